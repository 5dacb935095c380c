package jinja

// flattenSum returns the terms of a + b + c.
func flattenSum(n node) []node {
	if b, is := n.(*binaryNode); is && b.op == "+" {
		return append(flattenSum(b.left), b.right)
	}
	return []node{n}
}

// compileSum adds from left to right. While all terms are strings, it appends
// them to the output buffer instead of concatenating.
func (c *compiler) compileSum(n *binaryNode, s scope) expr {
	parts := c.compileExprs(flattenSum(n), s)
	return func(m *machine, f *frame) Value {
		v := parts[0](m, f)
		if first, is := v.(string); is {
			start := len(m.out)
			rest := m.writeTerms(first, parts[1:], f)
			v = m.takeOutput(start)
			if rest.at == len(parts)-1 {
				return v
			}
			v = addValues(m, v, rest.term)
			return m.addTerms(v, parts[rest.at+2:], f)
		}
		return m.addTerms(v, parts[1:], f)
	}
}

func (m *machine) addTerms(v Value, parts []expr, f *frame) Value {
	for _, p := range parts {
		v = addValues(m, v, p(m, f))
	}
	return v
}

// firstNonText is the first term that is not a string, and its index.
type firstNonText struct {
	at   int
	term Value
}

func (m *machine) writeTerms(first string, parts []expr, f *frame) firstNonText {
	start := len(m.out)
	m.out = append(m.out, first...)
	for i, p := range parts {
		term := p(m, f)
		s, is := term.(string)
		if !is {
			return firstNonText{i, term}
		}
		m.out = append(m.out, s...)
		m.checkOutput(start)
	}
	return firstNonText{at: len(parts)}
}

// compileWriter compiles an expression whose text is appended to the output.
func (c *compiler) compileWriter(n node, s scope) textWriter {
	switch n := n.(type) {
	case *dataNode:
		text := n.text
		return func(m *machine, f *frame) { m.out = append(m.out, text...) }
	case *concatNode:
		items := make([]textWriter, len(n.items))
		for i, item := range n.items {
			items[i] = c.compileWriter(item, s)
		}
		return func(m *machine, f *frame) {
			start := len(m.out)
			for _, write := range items {
				write(m, f)
			}
			m.checkOutput(start)
		}
	case *condNode:
		s := s.withLateErrors()
		test, then, otherwise := c.compileCondition(n.test, s), c.compileWriter(n.then, s), textWriter(func(*machine, *frame) {})
		if n.otherwise != nil {
			otherwise = c.compileWriter(n.otherwise, s)
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
			return c.compileSumWriter(n, s)
		}
	case *filterNode:
		if n.name == "tojson" && n.x != nil {
			return c.compileJSONWriter(n, s)
		}
	}
	if v, ok := constantValue(n); ok {
		if text, is := v.(string); is {
			return func(m *machine, f *frame) { m.out = append(m.out, text...) }
		}
	}
	x := c.compileExpr(n, s)
	return func(m *machine, f *frame) { m.writeValue(x(m, f)) }
}

func (c *compiler) compileSumWriter(n *binaryNode, s scope) textWriter {
	parts := c.compileExprs(flattenSum(n), s)
	return func(m *machine, f *frame) {
		v := parts[0](m, f)
		if first, is := v.(string); is {
			start := len(m.out)
			rest := m.writeTerms(first, parts[1:], f)
			if rest.at == len(parts)-1 {
				return
			}
			v = addValues(m, m.takeOutput(start), rest.term)
			m.writeValue(m.addTerms(v, parts[rest.at+2:], f))
			return
		}
		m.writeValue(m.addTerms(v, parts[1:], f))
	}
}
