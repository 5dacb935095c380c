package jinja

// constantValue returns the value of a constant expression. A list is not
// constant because templates can pop items from it.
func constantValue(n node) (Value, bool) {
	switch n := n.(type) {
	case *constNode:
		return n.value, true
	case *tupleNode:
		items, ok := constantValues(n.items)
		return &tuple{items: items}, ok
	case *dictNode:
		d := NewDict()
		for i, k := range n.keys {
			key, is := k.(*constNode)
			if !is {
				return nil, false
			}
			name, is := key.value.(string)
			value, ok := constantValue(n.values[i])
			if !is || !ok {
				return nil, false
			}
			d.Set(name, value)
		}
		return d, true
	}
	return nil, false
}

func constantValues(list []node) ([]Value, bool) {
	out := make([]Value, 0, len(list))
	for _, n := range list {
		v, ok := constantValue(n)
		if !ok {
			return nil, false
		}
		out = append(out, v)
	}
	return out, true
}

func (c *compiler) compileExprs(list []node, s scope) []expr {
	out := make([]expr, len(list))
	for i, n := range list {
		out[i] = c.compileExpr(n, s)
	}
	return out
}

func (c *compiler) compileExpr(n node, s scope) expr {
	if v, ok := constantValue(n); ok {
		return func(*machine, *frame) Value { return v }
	}
	switch n := n.(type) {
	case *nameNode:
		return c.compileName(n, s)
	case *attrNode:
		return c.compileAttribute(n, s)
	case *itemNode:
		return c.compileItem(n, s)
	case *callNode:
		return c.compileCall(n, s)
	case *filterNode:
		return c.compileFilter(n, s, nil)
	case *condNode:
		return c.compileConditional(n, s)
	case *binaryNode:
		return c.compileBinary(n, s)
	case *unaryNode:
		return c.compileUnary(n, s)
	case *concatNode:
		write := c.compileWriter(n, s)
		return func(m *machine, f *frame) Value {
			start := len(m.out)
			write(m, f)
			return m.takeOutput(start)
		}
	case *tupleNode:
		items := c.compileExprs(n.items, s)
		return func(m *machine, f *frame) Value { return &tuple{items: m.evalAll(items, f)} }
	case *listNode:
		items := c.compileExprs(n.items, s)
		return func(m *machine, f *frame) Value { return &List{m.evalAll(items, f)} }
	case *dictNode:
		return c.compileDict(n, s)
	case *compareNode:
		if len(n.ops) > 1 {
			return c.compileChain(n, s)
		}
	}
	test := c.compileCondition(n, s) // a test or a comparison
	return func(m *machine, f *frame) Value { return test(m, f) }
}

func (m *machine) evalAll(list []expr, f *frame) []Value {
	m.payItems(len(list))
	out := make([]Value, len(list))
	for i, e := range list {
		out[i] = e(m, f)
	}
	return out
}

func (c *compiler) compileName(n *nameNode, s scope) expr {
	up, slot := c.locateName(n.name, n.line, s)
	missing := &undefined{name: n.name}
	if up == 0 {
		return func(m *machine, f *frame) Value {
			if v := f.slots[slot]; v != nil {
				return v
			}
			return missing
		}
	}
	return func(m *machine, f *frame) Value {
		if v := f.outerFrame(up).slots[slot]; v != nil {
			return v
		}
		return missing
	}
}

func (c *compiler) compileDict(n *dictNode, s scope) expr {
	keys, values := c.compileExprs(n.keys, s), c.compileExprs(n.values, s)
	return func(m *machine, f *frame) Value {
		m.payItems(2 * len(keys))
		d := NewDict()
		for i, key := range keys {
			k := key(m, f)
			d.setValue(m, k, values[i](m, f))
		}
		return d
	}
}

func (c *compiler) compileConditional(n *condNode, s scope) expr {
	s = s.withLateErrors()
	test, then := c.compileCondition(n.test, s), c.compileExpr(n.then, s)
	otherwise := c.compileElse(n, s)
	return func(m *machine, f *frame) Value {
		if test(m, f) {
			return then(m, f)
		}
		return otherwise(m, f)
	}
}

func (c *compiler) compileElse(n *condNode, s scope) expr {
	if n.otherwise != nil {
		return c.compileExpr(n.otherwise, s)
	}
	hint := "the inline if-expression on line " + formatDecimal(n.line) + " evaluated to false and no else section was defined."
	missing := &undefined{hint: hint}
	return func(*machine, *frame) Value { return missing }
}

func (c *compiler) compileUnary(n *unaryNode, s scope) expr {
	if n.op == "not" {
		test := c.compileCondition(n, s)
		return func(m *machine, f *frame) Value { return test(m, f) }
	}
	x, negative := c.compileExpr(n.x, s), n.op == "-"
	return func(m *machine, f *frame) Value { return applySign(x(m, f), negative) }
}

func (c *compiler) compileBinary(n *binaryNode, s scope) expr {
	switch n.op {
	case "+":
		return c.compileSum(n, s)
	case "and", "or":
		left, right, and := c.compileExpr(n.left, s), c.compileExpr(n.right, s), n.op == "and"
		return func(m *machine, f *frame) Value {
			v := left(m, f)
			if isTruthy(m, v) == and {
				return right(m, f)
			}
			return v
		}
	}
	left, right, op := c.compileExpr(n.left, s), c.compileExpr(n.right, s), n.op
	return func(m *machine, f *frame) Value {
		a := left(m, f)
		return arithmetic(m, op, a, right(m, f))
	}
}

// compileChain compiles a comparison with several operators, such as a < b <
// c.
func (c *compiler) compileChain(n *compareNode, s scope) expr {
	first, rest, ops := c.compileExpr(n.first, s), c.compileExprs(n.rest, s), n.ops
	return func(m *machine, f *frame) Value {
		a := first(m, f)
		for i, op := range ops {
			b := rest[i](m, f)
			if !compareValues(m, op, a, b) {
				return false
			}
			a = b
		}
		return true
	}
}

// compileCondition compiles an expression that is used as a condition.
func (c *compiler) compileCondition(n node, s scope) condition {
	switch n := n.(type) {
	case *testNode:
		return c.compileTest(n, s)
	case *unaryNode:
		if n.op == "not" {
			x := c.compileCondition(n.x, s)
			return func(m *machine, f *frame) bool { return !x(m, f) }
		}
	case *binaryNode:
		if n.op == "and" || n.op == "or" {
			left, right, and := c.compileCondition(n.left, s), c.compileCondition(n.right, s), n.op == "and"
			return func(m *machine, f *frame) bool {
				if left(m, f) == and {
					return right(m, f)
				}
				return !and
			}
		}
	case *compareNode:
		if len(n.ops) == 1 {
			return c.compileComparison(n, s)
		}
	}
	x := c.compileExpr(n, s)
	return func(m *machine, f *frame) bool {
		v := x(m, f)
		if b, is := v.(bool); is {
			return b
		}
		return isTruthy(m, v)
	}
}

func (c *compiler) compileComparison(n *compareNode, s scope) condition {
	left, op := c.compileExpr(n.first, s), n.ops[0]
	if v, ok := constantValue(n.rest[0]); ok && (op == "==" || op == "!=") {
		if want, is := v.(string); is {
			equals := op == "=="
			return func(m *machine, f *frame) bool {
				v := left(m, f)
				if s, is := v.(string); is {
					return (s == want) == equals
				}
				return compareValues(m, op, v, want)
			}
		}
	}
	right := c.compileExpr(n.rest[0], s)
	if list, is := n.rest[0].(*listNode); is && (op == "in" || op == "not in") {
		if items, ok := constantValues(list.items); ok {
			shared := &List{items}
			right = func(*machine, *frame) Value { return shared }
		}
	}
	return func(m *machine, f *frame) bool {
		a := left(m, f)
		return compareValues(m, op, a, right(m, f))
	}
}
