package jinja

// tupleOptions say how an expression with commas is read.
type tupleOptions struct {
	simple      bool   // names and literals only
	conditional bool   // "a if b else c" is read too
	end         string // a name that ends it
	parenthesis bool   // it may be empty
}

func (p *parser) tuple(o tupleOptions) node {
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
			items = append(items, p.primary())
		} else {
			items = append(items, p.expression(o.conditional))
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
			p.fail(p.current().line, "Expected an expression, got %s", plainRepr(p.current().describe()))
		}
	}
	return &tupleNode{items}
}

func (p *parser) expression(conditional bool) node {
	p.deeper()
	defer func() { p.nesting-- }()
	if !conditional {
		return p.or()
	}
	line := p.current().line
	n := p.or()
	for p.skipName("if") {
		test := p.or()
		var otherwise node
		if p.skipName("else") {
			otherwise = p.expression(true)
		}
		n = &condNode{test, n, otherwise, line}
		line = p.current().line
	}
	return n
}

func (p *parser) or() node {
	left := p.and()
	for p.skipName("or") {
		left = &binaryNode{"or", left, p.and()}
	}
	return left
}

func (p *parser) and() node {
	left := p.not()
	for p.skipName("and") {
		left = &binaryNode{"and", left, p.not()}
	}
	return left
}

func (p *parser) not() node {
	if !p.skipName("not") {
		return p.compare()
	}
	p.deeper()
	defer func() { p.nesting-- }()
	return &unaryNode{"not", p.not()}
}

func (p *parser) compare() node {
	n := &compareNode{first: p.sum()}
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
		n.rest = append(n.rest, p.sum())
	}
}

func (p *parser) sum() node {
	left := p.concat()
	for p.is("+") || p.is("-") {
		op := string(p.next().kind)
		left = &binaryNode{op, left, p.concat()}
	}
	return left
}

func (p *parser) concat() node {
	first := p.product()
	if !p.is("~") {
		return first
	}
	items := []node{first}
	for p.skipIf("~") {
		items = append(items, p.product())
	}
	return &concatNode{items}
}

func (p *parser) product() node {
	left := p.power()
	for p.is("*") || p.is("/") || p.is("//") || p.is("%") {
		op := string(p.next().kind)
		left = &binaryNode{op, left, p.power()}
	}
	return left
}

func (p *parser) power() node {
	left := p.unary(true)
	for p.skipIf("**") {
		left = &binaryNode{"**", left, p.unary(true)}
	}
	return left
}

func (p *parser) unary(filters bool) node {
	var n node
	if p.is("-") || p.is("+") {
		op := string(p.next().kind)
		p.deeper()
		n = &unaryNode{op, p.unary(false)}
		p.nesting--
	} else {
		n = p.primary()
	}
	n = p.postfix(n)
	if filters {
		n = p.filters(n)
	}
	return n
}

func (p *parser) primary() node {
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
		p.deeper()
		n := p.tuple(tupleOptions{conditional: true, parenthesis: true})
		p.nesting--
		p.expect(")")
		return n
	case "[":
		return p.list()
	case "{":
		return p.dict()
	}
	p.fail(t.line, "unexpected %s", plainRepr(t.describe()))
	return nil
}

func (p *parser) list() node {
	p.next()
	n := &listNode{}
	for !p.is("]") {
		if n.items != nil {
			p.expect(",")
			if p.is("]") {
				break
			}
		}
		n.items = append(n.items, p.expression(true))
	}
	p.expect("]")
	return n
}

func (p *parser) dict() node {
	p.next()
	n := &dictNode{}
	for !p.is("}") {
		if n.keys != nil {
			p.expect(",")
			if p.is("}") {
				break
			}
		}
		n.keys = append(n.keys, p.expression(true))
		p.expect(":")
		n.values = append(n.values, p.expression(true))
	}
	p.expect("}")
	return n
}

func (p *parser) postfix(n node) node {
	for {
		switch p.current().kind {
		case ".", "[":
			n = p.subscript(n)
		case "(":
			n = p.call(n)
		default:
			return n
		}
	}
}

func (p *parser) filters(n node) node {
	for {
		switch {
		case p.is("|"):
			n = p.filter(n, false)
		case p.isName("is"):
			n = p.test(n)
		case p.is("("):
			n = p.call(n)
		default:
			return n
		}
	}
}
