package jinja

// constant gives the value of an expression that never changes. A list is
// none: a template may take items out of it.
func constant(n node) (Value, bool) {
	switch n := n.(type) {
	case *constNode:
		return n.value, true
	case *tupleNode:
		items, ok := constants(n.items)
		return &tuple{items: items}, ok
	case *dictNode:
		d := NewDict()
		for i, k := range n.keys {
			key, is := k.(*constNode)
			if !is {
				return nil, false
			}
			name, is := key.value.(string)
			value, ok := constant(n.values[i])
			if !is || !ok {
				return nil, false
			}
			d.Set(name, value)
		}
		return d, true
	}
	return nil, false
}

func constants(list []node) ([]Value, bool) {
	out := make([]Value, 0, len(list))
	for _, n := range list {
		v, ok := constant(n)
		if !ok {
			return nil, false
		}
		out = append(out, v)
	}
	return out, true
}

func (c *compiler) exprs(list []node, s scope) []expr {
	out := make([]expr, len(list))
	for i, n := range list {
		out[i] = c.expr(n, s)
	}
	return out
}

func (c *compiler) expr(n node, s scope) expr {
	if v, ok := constant(n); ok {
		return func(*machine, *frame) Value { return v }
	}
	switch n := n.(type) {
	case *nameNode:
		return c.name(n, s)
	case *attrNode:
		return c.attribute(n, s)
	case *itemNode:
		return c.item(n, s)
	case *callNode:
		return c.callOf(n, s)
	case *filterNode:
		return c.filterOf(n, s, nil)
	case *condNode:
		return c.conditional(n, s)
	case *binaryNode:
		return c.binary(n, s)
	case *unaryNode:
		return c.unary(n, s)
	case *concatNode:
		write := c.sink(n, s)
		return func(m *machine, f *frame) Value {
			start := len(m.out)
			write(m, f)
			return m.take(start)
		}
	case *tupleNode:
		items := c.exprs(n.items, s)
		return func(m *machine, f *frame) Value { return &tuple{items: m.values(items, f)} }
	case *listNode:
		items := c.exprs(n.items, s)
		return func(m *machine, f *frame) Value { return &List{m.values(items, f)} }
	case *dictNode:
		return c.dict(n, s)
	case *compareNode:
		if len(n.ops) > 1 {
			return c.chain(n, s)
		}
	}
	test := c.cond(n, s) // a test or a comparison
	return func(m *machine, f *frame) Value { return test(m, f) }
}

func (m *machine) values(list []expr, f *frame) []Value {
	m.holdItems(len(list))
	out := make([]Value, len(list))
	for i, e := range list {
		out[i] = e(m, f)
	}
	return out
}

func (c *compiler) name(n *nameNode, s scope) expr {
	up, slot := c.placeName(n.name, n.line, s)
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
		if v := f.up(up).slots[slot]; v != nil {
			return v
		}
		return missing
	}
}

func (c *compiler) dict(n *dictNode, s scope) expr {
	keys, values := c.exprs(n.keys, s), c.exprs(n.values, s)
	return func(m *machine, f *frame) Value {
		m.holdItems(2 * len(keys))
		d := NewDict()
		for i, key := range keys {
			k := key(m, f)
			d.set(m, k, values[i](m, f))
		}
		return d
	}
}

func (c *compiler) conditional(n *condNode, s scope) expr {
	s = s.softly()
	test, then := c.cond(n.test, s), c.expr(n.then, s)
	otherwise := c.otherwise(n, s)
	return func(m *machine, f *frame) Value {
		if test(m, f) {
			return then(m, f)
		}
		return otherwise(m, f)
	}
}

func (c *compiler) otherwise(n *condNode, s scope) expr {
	if n.otherwise != nil {
		return c.expr(n.otherwise, s)
	}
	none := &undefined{hint: "the inline if-expression on line " + decimal(n.line) + " evaluated to false and no else section was defined."}
	return func(*machine, *frame) Value { return none }
}

func (c *compiler) unary(n *unaryNode, s scope) expr {
	if n.op == "not" {
		test := c.cond(n, s)
		return func(m *machine, f *frame) Value { return test(m, f) }
	}
	x, negative := c.expr(n.x, s), n.op == "-"
	return func(m *machine, f *frame) Value { return signed(x(m, f), negative) }
}

func (c *compiler) binary(n *binaryNode, s scope) expr {
	switch n.op {
	case "+":
		return c.sum(n, s)
	case "and", "or":
		left, right, and := c.expr(n.left, s), c.expr(n.right, s), n.op == "and"
		return func(m *machine, f *frame) Value {
			v := left(m, f)
			if truth(m, v) == and {
				return right(m, f)
			}
			return v
		}
	}
	left, right, op := c.expr(n.left, s), c.expr(n.right, s), n.op
	return func(m *machine, f *frame) Value {
		a := left(m, f)
		return arithmetic(m, op, a, right(m, f))
	}
}

// chain is a comparison with several operators: a < b < c.
func (c *compiler) chain(n *compareNode, s scope) expr {
	first, rest, ops := c.expr(n.first, s), c.exprs(n.rest, s), n.ops
	return func(m *machine, f *frame) Value {
		a := first(m, f)
		for i, op := range ops {
			b := rest[i](m, f)
			if !compare(m, op, a, b) {
				return false
			}
			a = b
		}
		return true
	}
}

// cond compiles an expression of which only the truth counts.
func (c *compiler) cond(n node, s scope) cond {
	switch n := n.(type) {
	case *testNode:
		return c.test(n, s)
	case *unaryNode:
		if n.op == "not" {
			x := c.cond(n.x, s)
			return func(m *machine, f *frame) bool { return !x(m, f) }
		}
	case *binaryNode:
		if n.op == "and" || n.op == "or" {
			left, right, and := c.cond(n.left, s), c.cond(n.right, s), n.op == "and"
			return func(m *machine, f *frame) bool {
				if left(m, f) == and {
					return right(m, f)
				}
				return !and
			}
		}
	case *compareNode:
		if len(n.ops) == 1 {
			return c.comparison(n, s)
		}
	}
	x := c.expr(n, s)
	return func(m *machine, f *frame) bool {
		v := x(m, f)
		if b, is := v.(bool); is {
			return b
		}
		return truth(m, v)
	}
}

func (c *compiler) comparison(n *compareNode, s scope) cond {
	left, op := c.expr(n.first, s), n.ops[0]
	if v, ok := constant(n.rest[0]); ok && (op == "==" || op == "!=") {
		if want, is := v.(string); is {
			equals := op == "=="
			return func(m *machine, f *frame) bool {
				v := left(m, f)
				if s, is := v.(string); is {
					return (s == want) == equals
				}
				return compare(m, op, v, want)
			}
		}
	}
	right := c.expr(n.rest[0], s)
	if list, is := n.rest[0].(*listNode); is && (op == "in" || op == "not in") {
		if items, ok := constants(list.items); ok {
			shared := &List{items}
			right = func(*machine, *frame) Value { return shared }
		}
	}
	return func(m *machine, f *frame) bool {
		a := left(m, f)
		return compare(m, op, a, right(m, f))
	}
}
