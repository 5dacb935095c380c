package jinja

import "slices"

func (p *parser) parseSubscript(n node) node {
	if p.next().kind == "." {
		t := p.current()
		p.next()
		switch t.kind {
		case tokenName:
			return &attrNode{n, t.text}
		case tokenInteger:
			return &itemNode{n, &constNode{t.value}}
		default:
			p.failSyntax(t.line, "expected name or number")
		}
	}
	index := p.parseIndex()
	p.expect("]")
	return &itemNode{n, index}
}

func (p *parser) parseIndex() node {
	s := &sliceNode{}
	if !p.is(":") {
		n := p.parseExpression(true)
		if !p.is(":") {
			return n
		}
		s.start = n
	}
	p.next()
	if !p.is(":") && !p.is("]") {
		s.stop = p.parseExpression(true)
	}
	if p.skipIf(":") && !p.is("]") {
		s.step = p.parseExpression(true)
	}
	return s
}

func (p *parser) parseCall(n node) node {
	line := p.current().line
	return &callNode{n, p.parseCallArgs(), line}
}

func (p *parser) parseCallArgs() (a callArgs) {
	line := p.expect("(").line
	ensure := func(ok bool) {
		if !ok {
			p.failSyntax(line, "invalid syntax for function call expression")
		}
	}
	for comma := false; !p.is(")"); comma = true {
		if comma {
			p.expect(",")
			if p.is(")") {
				break
			}
		}
		switch {
		case p.is("*"):
			ensure(a.star == nil && a.starStar == nil)
			p.next()
			a.star = p.parseExpression(true)
		case p.is("**"):
			ensure(a.starStar == nil)
			p.next()
			a.starStar = p.parseExpression(true)
		case p.is(tokenName) && p.peekKind() == "=":
			ensure(a.starStar == nil)
			name := p.next().text
			p.next()
			if slices.ContainsFunc(a.kwargs, func(k kwargNode) bool { return k.name == name }) {
				p.failSyntax(line, "keyword argument repeated: %s", name)
			}
			a.kwargs = append(a.kwargs, kwargNode{name, p.parseExpression(true)})
		default:
			ensure(a.star == nil && a.starStar == nil && a.kwargs == nil)
			a.args = append(a.args, p.parseExpression(true))
		}
	}
	p.expect(")")
	return a
}

// parseFilter parses a chain of filters such as |name(args)|other. With
// inline, the first filter has no bar before it, as in {% filter name %}.
func (p *parser) parseFilter(n node, inline bool) *filterNode {
	var f *filterNode
	for p.is("|") || inline {
		if !inline {
			p.next()
		}
		t := p.expect(tokenName)
		f = &filterNode{p.parseDottedName(t.text), callNode{x: n, line: t.line}}
		if p.is("(") {
			f.callArgs = p.parseCallArgs()
		}
		inline = false
		n = f
	}
	return f
}

func (p *parser) parseDottedName(name string) string {
	for p.skipIf(".") {
		name += "." + p.expect(tokenName).text
	}
	return name
}

func (p *parser) parseTest(n node) node {
	line := p.next().line
	negated := p.skipName("not")
	t := &testNode{p.parseDottedName(p.expect(tokenName).text), callNode{x: n, line: line}}
	switch p.current().kind {
	case "(":
		t.callArgs = p.parseCallArgs()
	case tokenName, tokenString, tokenInteger, tokenFloat, "[", "{":
		if p.isName("else", "or", "and") {
			break
		}
		if p.isName("is") {
			p.failSyntax(p.current().line, "You cannot chain multiple tests with is")
		}
		t.args = []node{p.parsePostfix(p.parsePrimary())}
	default: // the test has no arguments
	}
	if negated {
		return &unaryNode{"not", t}
	}
	return t
}
