package jinja

import (
	"fmt"
	"slices"
	"strings"
)

// parser reads tokens into nodes, as jinja2's parser does.
type parser struct {
	tokens  []token
	at      int
	nesting int
	limit   int
	ends    [][]string // what the open blocks wait for
	tags    []string   // the open blocks
}

func parse(source string, limits Limits) []node {
	p := &parser{tokens: tokenize(source), limit: limits.Nesting}
	p.check()
	return p.subparse(nil)
}

func (p *parser) current() *token { return &p.tokens[p.at] }

func (p *parser) look() tokenKind {
	if p.at+1 < len(p.tokens) {
		return p.tokens[p.at+1].kind
	}
	return tokenEOF
}

// next moves on and returns the token it leaves.
func (p *parser) next() *token {
	t := &p.tokens[p.at]
	if p.at+1 < len(p.tokens) {
		p.at++
		p.check()
	}
	return t
}

// check fails where the lexer did.
func (p *parser) check() {
	if t := p.current(); t.kind == tokenError {
		p.fail(t.line, "%s", t.text)
	}
}

func (p *parser) fail(line int, format string, args ...any) {
	panic(&Error{Kind: KindSyntax, Message: fmt.Sprintf(format, args...), Line: line})
}

// deeper counts nesting; call the result when done.
func (p *parser) deeper() {
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
		p.unexpected(string(kind))
	}
	return p.next()
}

func (p *parser) expectName(name string) *token {
	if !p.isName(name) {
		p.unexpected(name)
	}
	return p.next()
}

func (p *parser) unexpected(wanted string) {
	t := p.current()
	if t.kind == tokenEOF {
		p.fail(t.line, "unexpected end of template, expected '%s'.", wanted)
	}
	p.fail(t.line, "expected token '%s', got %s", wanted, plainRepr(t.describe()))
}

// subparse reads up to a statement whose name is one of ends.
func (p *parser) subparse(ends []string) []node {
	p.deeper()
	defer func() { p.nesting-- }()
	if ends != nil {
		p.ends = append(p.ends, ends)
		defer func() { p.ends = p.ends[:len(p.ends)-1] }()
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
			emit(p.tuple(tupleOptions{conditional: true}), t.line)
			p.expect(tokenVariableEnd)
		default: // begin of a statement
			output = nil
			p.next()
			if p.isName(ends...) {
				return body
			}
			body = append(body, p.statement())
			p.expect(tokenBlockEnd)
		}
	}
	return body
}

// statements reads the body of a statement up to one of ends.
func (p *parser) statements(ends ...string) []node {
	p.skipIf(":")
	p.expect(tokenBlockEnd)
	body := p.subparse(ends)
	if p.is(tokenEOF) {
		p.failTag("", append(slices.Clone(p.ends), ends))
	}
	return body
}

// block is statements, and goes past the end's name.
func (p *parser) block(end string) []node {
	body := p.statements(end)
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
	if len(p.tags) > 0 {
		message += " The innermost block that needs to be closed is '" + p.tags[len(p.tags)-1] + "'."
	}
	p.fail(p.current().line, "%s", message)
}
