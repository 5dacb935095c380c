package jinja

// tupleOptions control how parseTuple reads an expression that may have
// commas.
type tupleOptions struct {
	simple      bool   // names and literals only
	conditional bool   // also a conditional expression: a if b else c
	end         string // a keyword that ends the tuple
	parenthesis bool   // in parentheses, where a tuple may be empty
}

func (p *parser) parseTuple(o tupleOptions) node {
	var items []node
	isTuple := false
	for {
		if items != nil {
			p.expect(",")
		}
		if p.is(tokenVariableEnd) || p.is(tokenBlockEnd) || p.is(")") || o.end != "" && p.isName(o.end) {
			break
		}
		if o.simple {
			items = append(items, p.parsePrimary())
		} else {
			items = append(items, p.parseExpression(o.conditional))
		}
		if !p.is(",") {
			break
		}
		isTuple = true
	}
	if !isTuple {
		if items != nil {
			return items[0]
		}
		if !o.parenthesis {
			p.failSyntax(p.current().line, "Expected an expression, got %s", plainRepr(p.current().displayName()))
		}
	}
	return &tupleNode{items}
}

func (p *parser) parseExpression(conditional bool) node {
	p.enterNesting()
	defer func() { p.nesting-- }()
	if !conditional {
		return p.parseOr()
	}
	line := p.current().line
	n := p.parseOr()
	for p.skipName("if") {
		test := p.parseOr()
		var otherwise node
		if p.skipName("else") {
			otherwise = p.parseExpression(true)
		}
		n = &condNode{test, n, otherwise, line}
		line = p.current().line
	}
	return n
}

func (p *parser) parseOr() node {
	left := p.parseAnd()
	for p.skipName("or") {
		left = &binaryNode{"or", left, p.parseAnd()}
	}
	return left
}

func (p *parser) parseAnd() node {
	left := p.parseNot()
	for p.skipName("and") {
		left = &binaryNode{"and", left, p.parseNot()}
	}
	return left
}

func (p *parser) parseNot() node {
	if !p.skipName("not") {
		return p.parseCompare()
	}
	p.enterNesting()
	defer func() { p.nesting-- }()
	return &unaryNode{"not", p.parseNot()}
}

func (p *parser) parseCompare() node {
	n := &compareNode{first: p.parseSum()}
	for {
		t := p.current()
		switch {
		case t.kind == "==" || t.kind == "!=" || t.kind == "<" || t.kind == "<=" || t.kind == ">" || t.kind == ">=":
			p.next()
			n.ops = append(n.ops, string(t.kind))
		case p.skipName("in"):
			n.ops = append(n.ops, "in")
		case p.isName("not") && p.at+1 < len(p.tokens) && p.tokens[p.at+1].kind == tokenName && p.tokens[p.at+1].text == "in":
			p.next()
			p.next()
			n.ops = append(n.ops, "not in")
		case n.ops == nil:
			return n.first
		default:
			return n
		}
		n.rest = append(n.rest, p.parseSum())
	}
}

func (p *parser) parseSum() node {
	left := p.parseConcat()
	for p.is("+") || p.is("-") {
		op := string(p.next().kind)
		left = &binaryNode{op, left, p.parseConcat()}
	}
	return left
}

func (p *parser) parseConcat() node {
	first := p.parseProduct()
	if !p.is("~") {
		return first
	}
	items := []node{first}
	for p.skipIf("~") {
		items = append(items, p.parseProduct())
	}
	return &concatNode{items}
}

func (p *parser) parseProduct() node {
	left := p.parsePower()
	for p.is("*") || p.is("/") || p.is("//") || p.is("%") {
		op := string(p.next().kind)
		left = &binaryNode{op, left, p.parsePower()}
	}
	return left
}

func (p *parser) parsePower() node {
	left := p.parseUnary(true)
	for p.skipIf("**") {
		left = &binaryNode{"**", left, p.parseUnary(true)}
	}
	return left
}

func (p *parser) parseUnary(filters bool) node {
	var n node
	if p.is("-") || p.is("+") {
		op := string(p.next().kind)
		p.enterNesting()
		n = &unaryNode{op, p.parseUnary(false)}
		p.nesting--
	} else {
		n = p.parsePrimary()
	}
	n = p.parsePostfix(n)
	if filters {
		n = p.parseFilters(n)
	}
	return n
}

func (p *parser) parsePrimary() node {
	t := p.current()
	switch t.kind {
	case tokenName:
		p.next()
		switch t.text {
		case "true", "True":
			return &constNode{true}
		case "false", "False":
			return &constNode{false}
		case "none", "None":
			return &constNode{None}
		}
		return &nameNode{t.text, useLoad, t.line}
	case tokenString:
		value := p.next().value.(string)
		for p.is(tokenString) {
			value += p.next().value.(string)
		}
		return &constNode{value}
	case tokenInteger, tokenFloat:
		p.next()
		return &constNode{t.value}
	case "(":
		p.next()
		p.enterNesting()
		n := p.parseTuple(tupleOptions{conditional: true, parenthesis: true})
		p.nesting--
		p.expect(")")
		return n
	case "[":
		return p.parseList()
	case "{":
		return p.parseDict()
	default:
		p.failSyntax(t.line, "unexpected %s", plainRepr(t.displayName()))
		return nil
	}
}

func (p *parser) parseList() node {
	p.next()
	n := &listNode{}
	for !p.is("]") {
		if n.items != nil {
			p.expect(",")
			if p.is("]") {
				break
			}
		}
		n.items = append(n.items, p.parseExpression(true))
	}
	p.expect("]")
	return n
}

func (p *parser) parseDict() node {
	p.next()
	n := &dictNode{}
	for !p.is("}") {
		if n.keys != nil {
			p.expect(",")
			if p.is("}") {
				break
			}
		}
		n.keys = append(n.keys, p.parseExpression(true))
		p.expect(":")
		n.values = append(n.values, p.parseExpression(true))
	}
	p.expect("}")
	return n
}

func (p *parser) parsePostfix(n node) node {
	for {
		switch p.current().kind {
		case ".", "[":
			n = p.parseSubscript(n)
		case "(":
			n = p.parseCall(n)
		default:
			return n
		}
	}
}

func (p *parser) parseFilters(n node) node {
	for {
		switch {
		case p.is("|"):
			n = p.parseFilter(n, false)
		case p.isName("is"):
			n = p.parseTest(n)
		case p.is("("):
			n = p.parseCall(n)
		default:
			return n
		}
	}
}
