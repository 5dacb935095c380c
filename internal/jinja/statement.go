package jinja

func (p *parser) statement() node {
	t := p.current()
	if t.kind != tokenName {
		p.fail(t.line, "tag name expected")
	}
	p.tags = append(p.tags, t.text)
	defer func() { p.tags = p.tags[:len(p.tags)-1] }()
	switch t.text {
	case "for":
		return p.forLoop()
	case "if":
		return p.ifElse()
	case "set":
		return p.set()
	case "macro":
		return p.macro()
	case "call":
		return p.callBlock()
	case "generation":
		p.next()
		return &callBlockNode{macro: &macroNode{body: p.block("endgeneration"), line: t.line}, line: t.line}
	case "filter":
		p.next()
		n := &filterBlockNode{line: t.line, filter: p.filter(nil, true)}
		n.body = p.block("endfilter")
		return n
	case "with":
		return p.with()
	case "autoescape":
		p.next()
		n := &scopeNode{option: p.expression(true)}
		n.body = p.block("endautoescape")
		return n
	case "break", "continue":
		p.next()
		return &jumpNode{map[string]flow{"break": flowBreak, "continue": flowContinue}[t.text], t.line}
	case "include", "import", "from", "extends", "block":
		p.fail(t.line, "{%% %s %%} is not supported: a chat template stands alone", t.text)
	}
	p.tags = p.tags[:len(p.tags)-1]
	defer func() { p.tags = append(p.tags, "") }()
	p.failTag(t.text, p.ends)
	return nil
}

func (p *parser) forLoop() node {
	n := &forNode{line: p.next().line}
	n.target = p.target(tupleOptions{end: "in"})
	p.expectName("in")
	n.iter = p.tuple(tupleOptions{end: "recursive"})
	if p.skipName("if") {
		n.test = p.expression(true)
	}
	n.recursive = p.skipName("recursive")
	n.body = p.statements("endfor", "else")
	if p.next().text == "else" {
		n.otherwise = p.block("endfor")
	}
	return n
}

func (p *parser) ifElse() node {
	first := &ifNode{line: p.next().line}
	n := first
	for {
		n.test = p.tuple(tupleOptions{})
		n.body = p.statements("elif", "else", "endif")
		switch p.next().text {
		case "elif":
			n = &ifNode{line: p.current().line}
			first.elifs = append(first.elifs, n)
			continue
		case "else":
			first.otherwise = p.block("endif")
		}
		return first
	}
}

func (p *parser) set() node {
	line := p.next().line
	target := p.setTarget()
	if p.skipIf("=") {
		return &assignNode{target, p.tuple(tupleOptions{conditional: true}), line}
	}
	filter := p.filter(nil, false)
	return &assignBlockNode{target, filter, p.block("endset"), line}
}

func (p *parser) setTarget() node {
	if p.look() == "." {
		name := p.expect(tokenName)
		p.next()
		return &namespaceNode{name.text, p.expect(tokenName).text}
	}
	return p.target(tupleOptions{})
}

func (p *parser) macro() node {
	n := &macroNode{line: p.next().line}
	n.name = p.nameTarget().name
	p.signature(n)
	n.body = p.block("endmacro")
	return n
}

func (p *parser) signature(n *macroNode) {
	p.expect("(")
	for !p.is(")") {
		if n.args != nil {
			p.expect(",")
		}
		arg := p.nameTarget()
		arg.use = useParam
		if p.skipIf("=") {
			n.defaults = append(n.defaults, p.expression(true))
		} else if n.defaults != nil {
			p.fail(p.current().line, "non-default argument follows default argument")
		}
		n.args = append(n.args, arg)
	}
	p.expect(")")
}

func (p *parser) callBlock() node {
	line := p.next().line
	n := &callBlockNode{macro: &macroNode{line: line}, line: line}
	if p.is("(") {
		p.signature(n.macro)
	}
	call, is := p.expression(true).(*callNode)
	if !is {
		p.fail(line, "expected call")
	}
	n.call = call
	n.macro.body = p.block("endcall")
	return n
}

func (p *parser) with() node {
	n := &withNode{line: p.next().line}
	for !p.is(tokenBlockEnd) {
		if n.targets != nil {
			p.expect(",")
		}
		target := p.target(tupleOptions{})
		setUse(target, useParam)
		n.targets = append(n.targets, target)
		p.expect("=")
		n.values = append(n.values, p.expression(true))
	}
	n.body = p.block("endwith")
	return n
}

// target reads what may be assigned to.
func (p *parser) target(o tupleOptions) node {
	o.simple = true
	line := p.current().line
	n := p.tuple(o)
	if what := notAssignable(n); what != "" {
		p.fail(line, "can't assign to '%s'", what)
	}
	setUse(n, useStore)
	return n
}

func (p *parser) nameTarget() *nameNode {
	t := p.expect(tokenName)
	if isConstantName(t.text) {
		p.fail(t.line, "can't assign to 'name'")
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

func notAssignable(n node) string {
	switch n := n.(type) {
	case *nameNode:
		return ""
	case *tupleNode:
		for _, item := range n.items {
			if notAssignable(item) != "" {
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

func setUse(n node, u use) {
	if name, is := n.(*nameNode); is {
		name.use = u
		return
	}
	children(n, func(c node) { setUse(c, u) })
}
