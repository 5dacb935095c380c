package jinja

func (p *parser) parseStatement() node {
	t := p.current()
	if t.kind != tokenName {
		p.failSyntax(t.line, "tag name expected")
	}
	p.openTags = append(p.openTags, t.text)
	defer func() { p.openTags = p.openTags[:len(p.openTags)-1] }()
	switch t.text {
	case "for":
		return p.parseFor()
	case "if":
		return p.parseIf()
	case "set":
		return p.parseSet()
	case "macro":
		return p.parseMacro()
	case "call":
		return p.parseCallBlock()
	case "generation":
		p.next()
		return &callBlockNode{macro: &macroNode{body: p.parseBlock("endgeneration"), line: t.line}, line: t.line}
	case "filter":
		p.next()
		n := &filterBlockNode{line: t.line, filter: p.parseFilter(nil, true)}
		n.body = p.parseBlock("endfilter")
		return n
	case "with":
		return p.parseWith()
	case "autoescape":
		p.next()
		n := &scopeNode{option: p.parseExpression(true)}
		n.body = p.parseBlock("endautoescape")
		return n
	case "break", "continue":
		p.next()
		return &jumpNode{map[string]flow{"break": flowBreak, "continue": flowContinue}[t.text], t.line}
	case "include", "import", "from", "extends", "block":
		p.failSyntax(t.line, "{%% %s %%} is not supported, because a chat template cannot use other templates", t.text)
	}
	p.openTags = p.openTags[:len(p.openTags)-1]
	defer func() { p.openTags = append(p.openTags, "") }()
	p.failTag(t.text, p.openEnds)
	return nil
}

func (p *parser) parseFor() node {
	n := &forNode{line: p.next().line}
	n.target = p.parseTarget(tupleOptions{end: "in"})
	p.expectName("in")
	n.iter = p.parseTuple(tupleOptions{end: "recursive"})
	if p.skipName("if") {
		n.test = p.parseExpression(true)
	}
	n.recursive = p.skipName("recursive")
	n.body = p.parseBody("endfor", "else")
	if p.next().text == "else" {
		n.otherwise = p.parseBlock("endfor")
	}
	return n
}

func (p *parser) parseIf() node {
	first := &ifNode{line: p.next().line}
	n := first
	for {
		n.test = p.parseTuple(tupleOptions{})
		n.body = p.parseBody("elif", "else", "endif")
		switch p.next().text {
		case "elif":
			n = &ifNode{line: p.current().line}
			first.elifs = append(first.elifs, n)
			continue
		case "else":
			first.otherwise = p.parseBlock("endif")
		}
		return first
	}
}

func (p *parser) parseSet() node {
	line := p.next().line
	target := p.parseSetTarget()
	if p.skipIf("=") {
		return &assignNode{target, p.parseTuple(tupleOptions{conditional: true}), line}
	}
	filter := p.parseFilter(nil, false)
	return &assignBlockNode{target, filter, p.parseBlock("endset"), line}
}

func (p *parser) parseSetTarget() node {
	if p.peekKind() == "." {
		name := p.expect(tokenName)
		p.next()
		return &namespaceNode{name.text, p.expect(tokenName).text}
	}
	return p.parseTarget(tupleOptions{})
}

func (p *parser) parseMacro() node {
	n := &macroNode{line: p.next().line}
	n.name = p.parseNameTarget().name
	p.parseSignature(n)
	n.body = p.parseBlock("endmacro")
	return n
}

func (p *parser) parseSignature(n *macroNode) {
	p.expect("(")
	for !p.is(")") {
		if n.args != nil {
			p.expect(",")
		}
		arg := p.parseNameTarget()
		arg.use = useParam
		if p.skipIf("=") {
			n.defaults = append(n.defaults, p.parseExpression(true))
		} else if n.defaults != nil {
			p.failSyntax(p.current().line, "non-default argument follows default argument")
		}
		n.args = append(n.args, arg)
	}
	p.expect(")")
}

func (p *parser) parseCallBlock() node {
	line := p.next().line
	n := &callBlockNode{macro: &macroNode{line: line}, line: line}
	if p.is("(") {
		p.parseSignature(n.macro)
	}
	call, is := p.parseExpression(true).(*callNode)
	if !is {
		p.failSyntax(line, "expected call")
	}
	n.call = call
	n.macro.body = p.parseBlock("endcall")
	return n
}

func (p *parser) parseWith() node {
	n := &withNode{line: p.next().line}
	for !p.is(tokenBlockEnd) {
		if n.targets != nil {
			p.expect(",")
		}
		target := p.parseTarget(tupleOptions{})
		setUse(target, useParam)
		n.targets = append(n.targets, target)
		p.expect("=")
		n.values = append(n.values, p.parseExpression(true))
	}
	n.body = p.parseBlock("endwith")
	return n
}

// parseTarget parses the target of an assignment.
func (p *parser) parseTarget(o tupleOptions) node {
	o.simple = true
	line := p.current().line
	n := p.parseTuple(o)
	if what := unassignableKind(n); what != "" {
		p.failSyntax(line, "can't assign to '%s'", what)
	}
	setUse(n, useStore)
	return n
}

func (p *parser) parseNameTarget() *nameNode {
	t := p.expect(tokenName)
	if isConstantName(t.text) {
		p.failSyntax(t.line, "can't assign to 'name'")
	}
	return &nameNode{t.text, useStore, t.line}
}

func isConstantName(s string) bool {
	switch s {
	case "true", "false", "none", "True", "False", "None":
		return true
	}
	return false
}

func unassignableKind(n node) string {
	switch n := n.(type) {
	case *nameNode:
		return ""
	case *tupleNode:
		for _, item := range n.items {
			if unassignableKind(item) != "" {
				return "tuple"
			}
		}
		return ""
	case *constNode:
		return "const"
	case *listNode:
		return "list"
	case *dictNode:
		return "dict"
	}
	return "expression"
}

func setUse(n node, u nameUse) {
	if name, is := n.(*nameNode); is {
		name.use = u
		return
	}
	visitChildren(n, func(c node) { setUse(c, u) })
}
