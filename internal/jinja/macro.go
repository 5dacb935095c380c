package jinja

import "slices"

// macroCode is a compiled macro.
type macroCode struct {
	name     string // empty for a call block
	args     []string
	slots    []int
	defaults []expr // of each argument; nil if it has none
	caller   int    // slots of the special variables; -1 when the body does not use them
	kwargs   int
	varargs  int
	explicit bool // caller is a declared argument
	body     []stmt
	layout   *frameLayout
}

// macro is a macro with the frame in which it was defined.
type macro struct {
	*macroCode
	outer *frame
}

// compileMacro compiles the body of a macro. s is the scope of its definition.
func (c *compiler) compileMacro(n *macroNode, s scope) *macroCode {
	inner := s.newInner()
	see := func() {
		for _, a := range n.args {
			inner.visitNode(a)
		}
		inner.visitNodes(n.defaults)
		inner.visitNodes(n.body)
	}
	see()
	code := &macroCode{name: n.name, caller: -1, kwargs: -1, varargs: -1}
	special := undeclaredNames(n.body, "caller", "kwargs", "varargs")
	for i, a := range n.args {
		if slices.Contains(code.args, a.name) {
			c.failSyntax(n.line, "duplicate argument '%s' in function definition", a.name)
		}
		code.args = append(code.args, a.name)
		code.explicit = code.explicit || a.name == "caller"
		hasDefault := i >= len(n.args)-len(n.defaults)
		if a.name == "caller" && !hasDefault && slices.Contains(special, "caller") {
			c.failSyntax(n.line, "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default.")
		}
	}
	inner = inner.withNewFrame()
	for _, name := range special {
		if !slices.Contains(code.args, name) {
			_, slot := c.locate(inner.addParameter(name), inner)
			*map[string]*int{"caller": &code.caller, "kwargs": &code.kwargs, "varargs": &code.varargs}[name] = slot
		}
	}
	see()
	load := c.compileLoads(inner)
	for i, a := range n.args {
		_, slot := c.locateName(a.name, a.line, inner)
		code.slots = append(code.slots, slot)
		var value expr
		if d := i - (len(n.args) - len(n.defaults)); d >= 0 {
			value = c.compileExpr(n.defaults[d], inner)
		}
		code.defaults = append(code.defaults, value)
	}
	code.body = c.compileBody(n.body, inner)
	if load != nil {
		code.body = slices.Insert(code.body, 0, code.compileDefaults(load))
	} else {
		code.body = slices.Insert(code.body, 0, code.compileDefaults(nil))
	}
	code.layout = inner.layout
	return code
}

// compileDefaults returns the statement that sets missing arguments to their
// defaults.
func (code *macroCode) compileDefaults(load stmt) stmt {
	absent := make([]Value, len(code.args))
	for i, name := range code.args {
		absent[i] = &undefined{hint: "parameter '" + name + "' was not provided", name: name}
	}
	return func(m *machine, f *frame) flow {
		if load != nil {
			load(m, f)
		}
		for i, slot := range code.slots {
			if f.slots[slot] != nil {
				continue
			}
			if code.defaults[i] != nil {
				f.slots[slot] = code.defaults[i](m, f)
			} else {
				f.slots[slot] = absent[i]
			}
		}
		return flowOn
	}
}

func (c *compiler) compileMacroStatement(n *macroNode, s scope) stmt {
	code := c.compileMacro(n, s)
	_, slot := c.locateName(n.name, n.line, s)
	return func(m *machine, f *frame) flow {
		m.payStep()
		f.slots[slot] = &macro{code, f}
		return flowOn
	}
}

func (c *compiler) compileCallBlock(n *callBlockNode, s scope) stmt {
	code := c.compileMacro(n.macro, s)
	if n.call == nil {
		return func(m *machine, f *frame) flow {
			m.line = n.line
			m.out = append(m.out, (&macro{code, f}).callMacro(m, args{}).(string)...)
			return flowOn
		}
	}
	callee := c.compileExpr(n.call.x, s)
	arguments := c.compileArgs(n.call.callArgs, s)
	if slices.ContainsFunc(n.call.kwargs, func(k kwargNode) bool { return k.name == "caller" }) {
		c.failSyntax(n.line, "keyword argument repeated: caller")
	}
	return func(m *machine, f *frame) flow {
		m.payStep()
		m.line = n.line
		fn := callee(m, f)
		a := arguments(m, f)
		kw := slices.Clone(a.kw)
		for _, k := range kw {
			if k.name == "caller" {
				failType("got multiple values for keyword argument 'caller'")
			}
		}
		a.kw = append(kw, keyword{"caller", &macro{code, f}})
		m.writeText(m.callValue(fn, a))
		return flowOn
	}
}

// callMacro calls the macro as Macro.__call__ of jinja2 does.
func (mc *macro) callMacro(m *machine, a args) Value {
	m.enterCall()
	line := m.line
	f := newFrame(len(mc.layout.slots), mc.outer)
	n := min(len(a.pos), len(mc.args))
	for i := range n {
		f.slots[mc.slots[i]] = a.pos[i]
	}
	kw := a.kw
	callerGiven := mc.explicit
	for i := n; i < len(mc.args); i++ {
		if at := slices.IndexFunc(kw, func(k keyword) bool { return k.name == mc.args[i] }); at >= 0 {
			f.slots[mc.slots[i]] = kw[at].value
			kw = slices.Delete(slices.Clone(kw), at, at+1)
		}
	}
	if mc.caller >= 0 && !callerGiven {
		if at := slices.IndexFunc(kw, func(k keyword) bool { return k.name == "caller" }); at >= 0 && kw[at].value != None {
			f.slots[mc.caller] = kw[at].value
			kw = slices.Delete(slices.Clone(kw), at, at+1)
		} else {
			f.slots[mc.caller] = &undefined{hint: "No caller defined", name: "caller"}
		}
	}
	mc.takeExtraArgs(m, f, a.pos, kw)
	start := len(m.out)
	m.runBody(mc.body, f)
	m.leaveCall()
	m.line = line
	return m.takeOutput(start)
}

// takeExtraArgs stores the arguments without a parameter in varargs and
// kwargs, and fails when the macro does not use those.
func (mc *macro) takeExtraArgs(m *machine, f *frame, pos []Value, kw []keyword) {
	name := Value(None)
	if mc.name != "" {
		name = mc.name
	}
	switch {
	case mc.kwargs >= 0:
		d := NewDict()
		for _, k := range kw {
			d.Set(k.name, k.value)
		}
		f.slots[mc.kwargs] = d
	case len(kw) > 0 && slices.ContainsFunc(kw, func(k keyword) bool { return k.name == "caller" }):
		failType("macro %s was invoked with two values for the special caller argument. This is most likely a bug.", plainRepr(name))
	case len(kw) > 0:
		failType("macro %s takes no keyword argument '%s'", plainRepr(name), kw[0].name)
	}
	switch extra := len(pos) - len(mc.args); {
	case mc.varargs >= 0:
		f.slots[mc.varargs] = &tuple{items: slices.Clone(pos[min(len(pos), len(mc.args)):])}
	case extra > 0:
		failType("macro %s takes not more than %d argument(s)", plainRepr(name), len(mc.args))
	}
}
