package jinja

// store puts a value where a target says.
type store func(m *machine, f *frame, v Value)

func (c *compiler) store(n node, s scope) store {
	switch n := n.(type) {
	case *nameNode:
		_, slot := c.placeName(n.name, n.line, s)
		return func(m *machine, f *frame, v Value) { f.slots[slot] = v }
	case *tupleNode:
		stores := make([]store, len(n.items))
		for i, item := range n.items {
			stores[i] = c.store(item, s)
		}
		return func(m *machine, f *frame, v Value) {
			for i, item := range m.unpack(v, len(stores)) {
				stores[i](m, f, item)
			}
		}
	}
	c.fail(c.line, "can't assign")
	return nil
}

// unpack takes a value apart as a Python assignment to n names does.
func (m *machine) unpack(v Value, n int) []Value {
	var items []Value
	switch v := v.(type) {
	case *tuple:
		items = v.items
	case *List:
		items = v.items
	default:
		it := iteratorOf(v)
		if it == nil {
			typeError("cannot unpack non-iterable %s object", typeName(v))
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
		valueError("not enough values to unpack (expected %d, got %d)", n, len(items))
	}
	if len(items) > n {
		valueError("too many values to unpack (expected %d)", n)
	}
	return items
}

func (c *compiler) assign(n *assignNode, s scope) stmt {
	line := n.line
	value := c.expr(n.value, s)
	if target, is := n.target.(*namespaceNode); is {
		return c.assignAttribute(target, value, line, s)
	}
	if name, is := n.target.(*nameNode); is {
		_, slot := c.placeName(name.name, name.line, s)
		return func(m *machine, f *frame) flow {
			m.step()
			m.line = line
			f.slots[slot] = value(m, f)
			return flowOn
		}
	}
	put := c.store(n.target, s)
	return func(m *machine, f *frame) flow {
		m.step()
		m.line = line
		put(m, f, value(m, f))
		return flowOn
	}
}

func (c *compiler) assignAttribute(target *namespaceNode, value expr, line int, s scope) stmt {
	up, slot := c.placeName(target.name, line, s)
	return func(m *machine, f *frame) flow {
		m.step()
		m.line = line
		ns := theNamespace(f.up(up).slots[slot])
		ns.attrs.Set(target.attr, value(m, f))
		return flowOn
	}
}

func theNamespace(v Value) *namespace {
	ns, is := v.(*namespace)
	if !is {
		fail("TemplateRuntimeError", "cannot assign attribute on non-namespace object")
	}
	return ns
}

func (c *compiler) assignBlock(n *assignBlockNode, s scope) stmt {
	inner := s.inner()
	inner.seeAll(n.body)
	body, leave := c.scoped(n.body, inner)
	taken := func(m *machine, f *frame) Value { return m.taken }
	value := expr(taken)
	if n.filter != nil {
		value = c.filterOf(n.filter, inner, taken)
	}
	var put store
	if target, is := n.target.(*namespaceNode); is {
		up, slot := c.placeName(target.name, n.line, s)
		put = func(m *machine, f *frame, v Value) {
			theNamespace(f.up(up).slots[slot]).attrs.Set(target.attr, v)
		}
	} else {
		put = c.store(n.target, s)
	}
	return func(m *machine, f *frame) flow {
		m.step()
		m.line = n.line
		text, end := m.capture(body, f)
		if end != flowOn {
			return end
		}
		m.taken = text
		put(m, f, value(m, f))
		f.forget(leave)
		return flowOn
	}
}
