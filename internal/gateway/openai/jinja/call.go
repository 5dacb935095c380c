package jinja

import "fmt"

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

// bind gives the arguments of a function in the order of its parameters, nil
// for those left out; the first ones are required.
func (a args) bind(fn string, required int, names ...string) []Value {
	if len(a.pos) > len(names) {
		typeError("%s() takes %d positional arguments but %d were given", fn, len(names), len(a.pos))
	}
	got := make([]Value, len(names))
	copy(got, a.pos)
next:
	for _, k := range a.kw {
		for i, name := range names {
			if name != k.name {
				continue
			}
			if got[i] != nil {
				typeError("%s() got multiple values for argument '%s'", fn, name)
			}
			got[i] = k.value
			continue next
		}
		typeError("%s() got an unexpected keyword argument '%s'", fn, k.name)
	}
	for i := range required {
		if got[i] == nil {
			typeError("%s() missing 1 required positional argument: '%s'", fn, names[i])
		}
	}
	return got
}

// positional is bind for functions that take no keywords.
func (a args) positional(fn string, least, most int) []Value {
	a.noKeywords(fn)
	if len(a.pos) < least || len(a.pos) > most {
		want := fmt.Sprintf("from %d to %d arguments", least, most)
		switch {
		case most == 0:
			want = "no arguments"
		case least == most && most == 1:
			want = "exactly one argument"
		case least == most:
			want = fmt.Sprintf("exactly %d arguments", most)
		}
		typeError("%s() takes %s (%d given)", fn, want, len(a.pos))
	}
	return a.pos
}

func (a args) noKeywords(fn string) {
	if len(a.kw) > 0 {
		typeError("%s() takes no keyword arguments", fn)
	}
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
