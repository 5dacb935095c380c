package jinja

// assignFunc assigns a value to a compiled target.
type assignFunc func(m *machine, f *frame, v Value)

func (c *compiler) compileTarget(n node, s scope) assignFunc {
	switch n := n.(type) {
	case *nameNode:
		_, slot := c.locateName(n.name, n.line, s)
		return func(m *machine, f *frame, v Value) { f.slots[slot] = v }
	case *tupleNode:
		stores := make([]assignFunc, len(n.items))
		for i, item := range n.items {
			stores[i] = c.compileTarget(item, s)
		}
		return func(m *machine, f *frame, v Value) {
			for i, item := range m.unpackItems(v, len(stores)) {
				stores[i](m, f, item)
			}
		}
	}
	c.failSyntax(c.line, "can't assign")
	return nil
}

// unpackItems returns the n items of v, as Python unpacks a value that is
// assigned to n names.
func (m *machine) unpackItems(v Value, n int) []Value {
	var items []Value
	switch v := v.(type) {
	case *tuple:
		items = v.items
	case *List:
		items = v.items
	default:
		it := iteratorOf(v)
		if it == nil {
			failType("cannot unpack non-iterable %s object", typeName(v))
		}
		for len(items) <= n {
			item, ok := it.next(m)
			if !ok {
				break
			}
			items = append(items, item)
		}
	}
	if len(items) < n {
		failValue("not enough values to unpack (expected %d, got %d)", n, len(items))
	}
	if len(items) > n {
		failValue("too many values to unpack (expected %d)", n)
	}
	return items
}

func (c *compiler) compileAssign(n *assignNode, s scope) stmt {
	line := n.line
	value := c.compileExpr(n.value, s)
	if target, is := n.target.(*namespaceNode); is {
		return c.compileAttributeAssign(target, value, line, s)
	}
	if name, is := n.target.(*nameNode); is {
		_, slot := c.locateName(name.name, name.line, s)
		return func(m *machine, f *frame) flow {
			m.payStep()
			m.line = line
			f.slots[slot] = value(m, f)
			return flowOn
		}
	}
	put := c.compileTarget(n.target, s)
	return func(m *machine, f *frame) flow {
		m.payStep()
		m.line = line
		put(m, f, value(m, f))
		return flowOn
	}
}

func (c *compiler) compileAttributeAssign(target *namespaceNode, value expr, line int, s scope) stmt {
	up, slot := c.locateName(target.name, line, s)
	return func(m *machine, f *frame) flow {
		m.payStep()
		m.line = line
		ns := requireNamespace(f.outerFrame(up).slots[slot])
		ns.attrs.Set(target.attr, value(m, f))
		return flowOn
	}
}

func requireNamespace(v Value) *namespace {
	ns, is := v.(*namespace)
	if !is {
		failRuntime("TemplateRuntimeError", "cannot assign attribute on non-namespace object")
	}
	return ns
}

func (c *compiler) compileAssignBlock(n *assignBlockNode, s scope) stmt {
	inner := s.newInner()
	inner.visitNodes(n.body)
	body, slots := c.compileScope(n.body, inner)
	taken := func(m *machine, f *frame) Value { return m.captured }
	value := expr(taken)
	if n.filter != nil {
		value = c.compileFilter(n.filter, inner, taken)
	}
	var put assignFunc
	if target, is := n.target.(*namespaceNode); is {
		up, slot := c.locateName(target.name, n.line, s)
		put = func(m *machine, f *frame, v Value) {
			requireNamespace(f.outerFrame(up).slots[slot]).attrs.Set(target.attr, v)
		}
	} else {
		put = c.compileTarget(n.target, s)
	}
	return func(m *machine, f *frame) flow {
		m.payStep()
		m.line = n.line
		text, end := m.captureOutput(body, f)
		if end != flowOn {
			return end
		}
		m.captured = text
		put(m, f, value(m, f))
		f.clearSlots(slots)
		return flowOn
	}
}
