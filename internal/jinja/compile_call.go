package jinja

// compileCall compiles f(...). It calls the methods of strings and dicts
// directly, without a bound method in between.
func (c *compiler) compileCall(n *callNode, s scope) expr {
	arguments := c.compileArgs(n.callArgs, s)
	line := n.line
	if attr, is := n.x.(*attrNode); is {
		obj, name := c.compileExpr(attr.x, s), attr.name
		ofString, ofDict := stringMethods[name], dictMethods[name]
		return func(m *machine, f *frame) Value {
			m.payStep()
			v := obj(m, f)
			switch v := v.(type) {
			case string:
				if ofString != nil {
					return ofString(m, v, arguments(m, f))
				}
			case *Dict:
				if ofDict != nil {
					return ofDict(m, v, arguments(m, f))
				}
			}
			fn := m.getAttribute(v, name)
			a := arguments(m, f)
			m.line = line
			return m.callValue(fn, a)
		}
	}
	callee := c.compileExpr(n.x, s)
	return func(m *machine, f *frame) Value {
		m.payStep()
		fn := callee(m, f)
		a := arguments(m, f)
		m.line = line
		return m.callValue(fn, a)
	}
}

func (m *machine) callValue(fn Value, a args) Value {
	switch fn := fn.(type) {
	case *undefined:
		fn.fail()
	case *macro:
		return fn.callMacro(m, a)
	case *function:
		return fn.call(m, a)
	case *loopVar:
		return fn.callRecursively(m, a)
	case *joiner:
		return fn.joinNext(a)
	}
	failType("'%s' object is not callable", typeName(fn))
	return nil
}

func isCallable(v Value) bool {
	switch v.(type) {
	case *undefined, *macro, *function, *loopVar, *joiner:
		return true
	}
	return false
}

// compileFilter compiles a chain of filters. In a filter block, which has no
// operand, start provides the value.
func (c *compiler) compileFilter(n *filterNode, s scope, start expr) expr {
	var x expr
	switch inner := n.x.(type) {
	case nil:
		x = start
	case *filterNode:
		x = c.compileFilter(inner, s, start)
	default:
		x = c.compileExpr(n.x, s)
	}
	arguments := c.compileArgs(n.callArgs, s)
	apply, known := filters[n.name]
	if !known {
		if !s.lateErrors {
			c.failSyntax(n.line, "No filter named '%s'.", n.name)
		}
		name := n.name
		apply = func(*machine, Value, args) Value {
			failRuntime("TemplateRuntimeError", "No filter named '%s' found.", name)
			return nil
		}
	}
	return func(m *machine, f *frame) Value {
		m.payStep()
		v := x(m, f)
		return apply(m, v, arguments(m, f))
	}
}

func (c *compiler) compileTest(n *testNode, s scope) condition {
	x := c.compileExpr(n.x, s)
	arguments := c.compileArgs(n.callArgs, s)
	apply, known := tests[n.name]
	if !known {
		if !s.lateErrors {
			c.failSyntax(n.line, "No test named '%s'.", n.name)
		}
		name := n.name
		apply = func(*machine, Value, args) bool {
			failRuntime("TemplateRuntimeError", "No test named '%s' found.", name)
			return false
		}
	}
	return func(m *machine, f *frame) bool {
		v := x(m, f)
		return apply(m, v, arguments(m, f))
	}
}
