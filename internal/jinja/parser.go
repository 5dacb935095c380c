package jinja

import (
	"fmt"
	"slices"
	"strings"
)

// parser builds the syntax tree from tokens by the grammar of jinja2.
type parser struct {
	tokens   []token
	at       int
	nesting  int
	limit    int
	openEnds [][]string // statements that end or continue the open blocks
	openTags []string   // names of the open blocks
}

func parseTemplate(source string, limits Limits) []node {
	p := &parser{tokens: splitTokens(source), limit: limits.Nesting}
	p.checkToken()
	return p.parseUntil(nil)
}

func (p *parser) current() *token { return &p.tokens[p.at] }

func (p *parser) peekKind() tokenKind {
	if p.at+1 < len(p.tokens) {
		return p.tokens[p.at+1].kind
	}
	return tokenEOF
}

// next returns the current token and moves to the one after it.
func (p *parser) next() *token {
	t := &p.tokens[p.at]
	if p.at+1 < len(p.tokens) {
		p.at++
		p.checkToken()
	}
	return t
}

// checkToken fails at an invalid token.
func (p *parser) checkToken() {
	if t := p.current(); t.kind == tokenError {
		p.failSyntax(t.line, "%s", t.text)
	}
}

func (p *parser) failSyntax(line int, format string, args ...any) {
	panic(&Error{Kind: KindSyntax, Message: fmt.Sprintf(format, args...), Line: line})
}

// enterNesting begins a nested construct. The caller decrements nesting
// afterwards.
func (p *parser) enterNesting() {
	p.nesting++
	if p.nesting > p.limit {
		panic(&Error{Kind: KindLimit, Message: fmt.Sprintf("the template nests more than %d deep", p.limit), Line: p.current().line})
	}
}

func (p *parser) is(kind tokenKind) bool { return p.current().kind == kind }

func (p *parser) isName(names ...string) bool {
	return p.is(tokenName) && slices.Contains(names, p.current().text)
}

func (p *parser) skipIf(kind tokenKind) bool {
	if p.is(kind) {
		p.next()
		return true
	}
	return false
}

func (p *parser) skipName(name string) bool {
	if p.isName(name) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(kind tokenKind) *token {
	if !p.is(kind) {
		p.failExpected(string(kind))
	}
	return p.next()
}

func (p *parser) expectName(name string) *token {
	if !p.isName(name) {
		p.failExpected(name)
	}
	return p.next()
}

func (p *parser) failExpected(wanted string) {
	t := p.current()
	if t.kind == tokenEOF {
		p.failSyntax(t.line, "unexpected end of template, expected '%s'.", wanted)
	}
	p.failSyntax(t.line, "expected token '%s', got %s", wanted, plainRepr(t.displayName()))
}

// parseUntil parses up to a statement whose name is in ends.
func (p *parser) parseUntil(ends []string) []node {
	p.enterNesting()
	defer func() { p.nesting-- }()
	if ends != nil {
		p.openEnds = append(p.openEnds, ends)
		defer func() { p.openEnds = p.openEnds[:len(p.openEnds)-1] }()
	}
	var body []node
	var output *outputNode
	emit := func(n node, line int) {
		if output == nil {
			output = &outputNode{}
			body = append(body, output)
		}
		output.items = append(output.items, n)
		output.lines = append(output.lines, line)
	}
	for !p.is(tokenEOF) {
		t := p.current()
		switch t.kind {
		case tokenData:
			emit(&dataNode{t.text}, t.line)
			p.next()
		case tokenVariableBegin:
			p.next()
			emit(p.parseTuple(tupleOptions{conditional: true}), t.line)
			p.expect(tokenVariableEnd)
		default: // tokenBlockBegin
			output = nil
			p.next()
			if p.isName(ends...) {
				return body
			}
			body = append(body, p.parseStatement())
			p.expect(tokenBlockEnd)
		}
	}
	return body
}

// parseBody parses the body of a statement up to a statement whose name is in
// ends.
func (p *parser) parseBody(ends ...string) []node {
	p.skipIf(":")
	p.expect(tokenBlockEnd)
	body := p.parseUntil(ends)
	if p.is(tokenEOF) {
		p.failTag("", append(slices.Clone(p.openEnds), ends))
	}
	return body
}

// parseBlock is parseBody that also skips the name of the ending statement.
func (p *parser) parseBlock(end string) []node {
	body := p.parseBody(end)
	p.next()
	return body
}

func (p *parser) failTag(name string, ends [][]string) {
	message := "Unexpected end of template."
	if name != "" {
		message = "Encountered unknown tag " + plainRepr(name) + "."
	}
	if len(ends) > 0 {
		looking := "'" + strings.Join(ends[len(ends)-1], "' or '") + "'"
		expected := slices.ContainsFunc(ends, func(e []string) bool { return slices.Contains(e, name) })
		if name != "" && expected {
			message += " You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for " + looking + "."
		} else {
			message += " Jinja was looking for the following tags: " + looking + "."
		}
	}
	if len(p.openTags) > 0 {
		message += " The innermost block that needs to be closed is '" + p.openTags[len(p.openTags)-1] + "'."
	}
	p.failSyntax(p.current().line, "%s", message)
}
