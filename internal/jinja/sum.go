package jinja

// terms flattens a + b + c.
func terms(n node) []node {
	if b, is := n.(*binaryNode); is && b.op == "+" {
		return append(terms(b.left), b.right)
	}
	return []node{n}
}

// sum adds from left to right. As long as all are strings it only writes
// them one after the other.
func (c *compiler) sum(n *binaryNode, s scope) expr {
	parts := c.exprs(terms(n), s)
	return func(m *machine, f *frame) Value {
		v := parts[0](m, f)
		if first, is := v.(string); is {
			start := len(m.out)
			rest := m.writeTerms(first, parts[1:], f)
			v = m.take(start)
			if rest.at == len(parts)-1 {
				return v
			}
			v = add(m, v, rest.term)
			return m.addTerms(v, parts[rest.at+2:], f)
		}
		return m.addTerms(v, parts[1:], f)
	}
}

func (m *machine) addTerms(v Value, parts []expr, f *frame) Value {
	for _, p := range parts {
		v = add(m, v, p(m, f))
	}
	return v
}

// remainder is the first term that was no string, and where it stood.
type remainder struct {
	at   int
	term Value
}

func (m *machine) writeTerms(first string, parts []expr, f *frame) remainder {
	start := len(m.out)
	m.out = append(m.out, first...)
	for i, p := range parts {
		term := p(m, f)
		s, is := term.(string)
		if !is {
			return remainder{i, term}
		}
		m.out = append(m.out, s...)
		m.written(start)
	}
	return remainder{at: len(parts)}
}

// sink compiles an expression of which only the text counts.
func (c *compiler) sink(n node, s scope) sink {
	switch n := n.(type) {
	case *dataNode:
		text := n.text
		return func(m *machine, f *frame) { m.out = append(m.out, text...) }
	case *concatNode:
		items := make([]sink, len(n.items))
		for i, item := range n.items {
			items[i] = c.sink(item, s)
		}
		return func(m *machine, f *frame) {
			start := len(m.out)
			for _, write := range items {
				write(m, f)
			}
			m.written(start)
		}
	case *condNode:
		s := s.softly()
		test, then, otherwise := c.cond(n.test, s), c.sink(n.then, s), sink(func(*machine, *frame) {})
		if n.otherwise != nil {
			otherwise = c.sink(n.otherwise, s)
		}
		return func(m *machine, f *frame) {
			if test(m, f) {
				then(m, f)
			} else {
				otherwise(m, f)
			}
		}
	case *binaryNode:
		if n.op == "+" {
			return c.sumSink(n, s)
		}
	case *filterNode:
		if n.name == "tojson" && n.x != nil {
			return c.jsonSink(n, s)
		}
	}
	if v, ok := constant(n); ok {
		if text, is := v.(string); is {
			return func(m *machine, f *frame) { m.out = append(m.out, text...) }
		}
	}
	x := c.expr(n, s)
	return func(m *machine, f *frame) { m.write(x(m, f)) }
}

func (c *compiler) sumSink(n *binaryNode, s scope) sink {
	parts := c.exprs(terms(n), s)
	return func(m *machine, f *frame) {
		v := parts[0](m, f)
		if first, is := v.(string); is {
			start := len(m.out)
			rest := m.writeTerms(first, parts[1:], f)
			if rest.at == len(parts)-1 {
				return
			}
			v = add(m, m.take(start), rest.term)
			m.write(m.addTerms(v, parts[rest.at+2:], f))
			return
		}
		m.write(m.addTerms(v, parts[1:], f))
	}
}
