package jinja

// callOf compiles f(...). A method of a string or dict is called without
// making it first.
func (c *compiler) callOf(n *callNode, s scope) expr {
	arguments := c.arguments(n.callArgs, s)
	line := n.line
	if attr, is := n.x.(*attrNode); is {
		obj, name := c.expr(attr.x, s), attr.name
		ofString, ofDict := stringMethods[name], dictMethods[name]
		return func(m *machine, f *frame) Value {
			m.step()
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
			fn := m.attribute(v, name)
			a := arguments(m, f)
			m.line = line
			return m.call(fn, a)
		}
	}
	callee := c.expr(n.x, s)
	return func(m *machine, f *frame) Value {
		m.step()
		fn := callee(m, f)
		a := arguments(m, f)
		m.line = line
		return m.call(fn, a)
	}
}

func (m *machine) call(fn Value, a args) Value {
	switch fn := fn.(type) {
	case *undefined:
		fn.fail()
	case *macro:
		return fn.call(m, a)
	case *function:
		return fn.call(m, a)
	case *loop:
		return fn.call(m, a)
	case *joiner:
		return fn.call(a)
	}
	typeError("'%s' object is not callable", typeName(fn))
	return nil
}

func isCallable(v Value) bool {
	switch v.(type) {
	case *undefined, *macro, *function, *loop, *joiner:
		return true
	}
	return false
}

// filterOf compiles an application of a filter; start replaces what a filter
// block applies its filters to.
func (c *compiler) filterOf(n *filterNode, s scope, start expr) expr {
	var x expr
	switch inner := n.x.(type) {
	case nil:
		x = start
	case *filterNode:
		x = c.filterOf(inner, s, start)
	default:
		x = c.expr(n.x, s)
	}
	arguments := c.arguments(n.callArgs, s)
	apply, known := filters[n.name]
	if !known {
		if !s.soft {
			c.fail(n.line, "No filter named '%s'.", n.name)
		}
		name := n.name
		apply = func(*machine, Value, args) Value {
			fail("TemplateRuntimeError", "No filter named '%s' found.", name)
			return nil
		}
	}
	return func(m *machine, f *frame) Value {
		m.step()
		v := x(m, f)
		return apply(m, v, arguments(m, f))
	}
}

func (c *compiler) test(n *testNode, s scope) cond {
	x := c.expr(n.x, s)
	arguments := c.arguments(n.callArgs, s)
	apply, known := tests[n.name]
	if !known {
		if !s.soft {
			c.fail(n.line, "No test named '%s'.", n.name)
		}
		name := n.name
		apply = func(*machine, Value, args) bool {
			fail("TemplateRuntimeError", "No test named '%s' found.", name)
			return false
		}
	}
	return func(m *machine, f *frame) bool {
		v := x(m, f)
		return apply(m, v, arguments(m, f))
	}
}
