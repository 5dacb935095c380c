package jinja

import (
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is what a token is; its string is how messages name it.
type tokenKind string

const (
	tokenEOF           tokenKind = "end of template"
	tokenData          tokenKind = "template data / text"
	tokenBlockBegin    tokenKind = "begin of statement block"
	tokenBlockEnd      tokenKind = "end of statement block"
	tokenVariableBegin tokenKind = "begin of print statement"
	tokenVariableEnd   tokenKind = "end of print statement"
	tokenName          tokenKind = "name"
	tokenString        tokenKind = "string"
	tokenInteger       tokenKind = "integer"
	tokenFloat         tokenKind = "float"
	tokenError         tokenKind = "error" // what follows cannot be read; text says why
	// An operator is its own kind: "+", "==", ...
)

type token struct {
	kind  tokenKind
	text  string
	value Value // of a literal
	line  int
}

func (t token) describe() string {
	if t.kind == tokenName {
		return t.text
	}
	return string(t.kind)
}

// lexer splits a template into tokens, with trim_blocks and lstrip_blocks.
type lexer struct {
	source       string
	at           int
	line         int
	lineStarting bool // what was read last ended a line
	tokens       []token
	open         []byte // closing brackets that are waited for
}

// tokenize never fails: where the source cannot be read on, the last token
// says so.
func tokenize(source string) []token {
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	l := &lexer{
		source: strings.ToValidUTF8(strings.TrimSuffix(source, "\n"), "\uFFFD"),
		line:   1, lineStarting: true,
		tokens: make([]token, 0, len(source)/5+8),
	}
	for l.at < len(l.source) && l.root() {
	}
	if n := len(l.tokens); n == 0 || l.tokens[n-1].kind != tokenError {
		l.add(tokenEOF, "", nil)
	}
	return l.tokens
}

func (l *lexer) add(kind tokenKind, text string, value Value) {
	l.tokens = append(l.tokens, token{kind, text, value, l.line})
}

func (l *lexer) fail(message string) bool {
	l.add(tokenError, message, nil)
	return false
}

// advance moves on to a place, counting lines.
func (l *lexer) advance(to int) {
	if to > l.at {
		l.line += strings.Count(l.source[l.at:to], "\n")
		l.lineStarting = l.source[to-1] == '\n'
		l.at = to
	}
}

// root reads text up to a tag, and the tag.
func (l *lexer) root() bool {
	rest := l.source[l.at:]
	start := tagStart(rest)
	if start < 0 {
		l.add(tokenData, rest, nil)
		l.advance(len(l.source))
		return true
	}
	body := l.at + start + 2
	kind, sign := l.source[body-1], byte(0)
	if body < len(l.source) && (l.source[body] == '-' || l.source[body] == '+') {
		sign = l.source[body]
	}
	l.data(rest[:start], sign, kind != '{')
	l.advance(l.at + start)
	if kind == '%' {
		if end, isRaw := l.rawBegin(body); isRaw {
			l.advance(end)
			return l.raw()
		}
	}
	if sign != 0 {
		body++
	}
	switch kind {
	case '#':
		l.advance(body)
		return l.comment()
	case '%':
		l.add(tokenBlockBegin, "", nil)
		l.advance(body)
		return l.code('%', tokenBlockEnd)
	default:
		l.add(tokenVariableBegin, "", nil)
		l.advance(body)
		return l.code('}', tokenVariableEnd)
	}
}

func tagStart(s string) int {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '{')
		if i < 0 || from+i+1 >= len(s) {
			return -1
		}
		switch s[from+i+1] {
		case '{', '%', '#':
			return from + i
		}
		from += i + 1
	}
}

// data adds the text before a tag, stripped as the tag's sign asks.
func (l *lexer) data(s string, sign byte, strippable bool) {
	switch {
	case sign == '-':
		s = strings.TrimRightFunc(s, isSpace)
	case sign != '+' && strippable:
		from := strings.LastIndexByte(s, '\n') + 1
		if (from > 0 || l.lineStarting) && strings.TrimLeftFunc(s[from:], isSpace) == "" {
			s = s[:from]
		}
	}
	if s != "" {
		l.add(tokenData, s, nil)
	}
}

func (l *lexer) skipSpace(at int) int {
	for at < len(l.source) {
		r, n := utf8.DecodeRuneInString(l.source[at:])
		if !isSpace(r) {
			break
		}
		at += n
	}
	return at
}

// rawBegin tells whether a tag is {% raw %}, and where it ends.
func (l *lexer) rawBegin(at int) (int, bool) {
	at = l.skipSign(at)
	at = l.skipSpace(at)
	if !strings.HasPrefix(l.source[at:], "raw") {
		return 0, false
	}
	at = l.skipSpace(at + 3)
	if strings.HasPrefix(l.source[at:], "-%}") {
		return l.skipSpace(at + 3), true
	}
	return at + 2, strings.HasPrefix(l.source[at:], "%}")
}

func (l *lexer) skipSign(at int) int {
	if at < len(l.source) && (l.source[at] == '-' || l.source[at] == '+') {
		at++
	}
	return at
}

// raw reads up to {% endraw %}, as text.
func (l *lexer) raw() bool {
	for from := l.at; ; {
		i := strings.Index(l.source[from:], "{%")
		if i < 0 && l.at == len(l.source) {
			return true // Python does not miss it here
		}
		if i < 0 {
			return l.fail("Missing end of raw directive")
		}
		start := from + i
		from = start + 2
		body := l.skipSign(from)
		at := l.skipSpace(body)
		if !strings.HasPrefix(l.source[at:], "endraw") {
			continue
		}
		end, ok := l.tagEnd(l.skipSpace(at+6), '%')
		if !ok {
			continue
		}
		var sign byte
		if body > from {
			sign = l.source[from]
		}
		l.data(l.source[l.at:start], sign, true)
		l.advance(end)
		return true
	}
}

// tagEnd matches the end of a tag: %}, -%} with the space after it, +%}.
func (l *lexer) tagEnd(at int, kind byte) (int, bool) {
	if at >= len(l.source) {
		return 0, false
	}
	sign := l.source[at]
	body := at
	if sign == '-' || sign == '+' && kind != '}' {
		body++
	}
	if body+1 >= len(l.source) || l.source[body] != kind || l.source[body+1] != '}' {
		return 0, false
	}
	end := body + 2
	switch {
	case sign == '-':
		end = l.skipSpace(end)
	case sign != '+' && kind != '}' && end < len(l.source) && l.source[end] == '\n':
		end++
	}
	return end, true
}

func (l *lexer) comment() bool {
	i := strings.Index(l.source[l.at:], "#}")
	if i < 0 && l.at == len(l.source) {
		return true // Python does not miss it here
	}
	if i < 0 {
		return l.fail("Missing end of comment tag")
	}
	at := l.at + i
	if i > 0 && (l.source[at-1] == '-' || l.source[at-1] == '+') {
		at--
	}
	end, _ := l.tagEnd(at, '#')
	l.advance(end)
	return true
}

// code reads the tokens of a statement or expression up to its end.
func (l *lexer) code(end byte, endKind tokenKind) bool {
	l.open = l.open[:0]
	for l.at < len(l.source) {
		if len(l.open) == 0 {
			if to, ok := l.tagEnd(l.at, end); ok {
				l.add(endKind, "", nil)
				l.advance(to)
				return true
			}
		}
		if to := l.skipSpace(l.at); to > l.at {
			l.advance(to)
			continue
		}
		if !l.word() {
			return false
		}
	}
	return true
}

func (l *lexer) word() bool {
	c := l.source[l.at]
	switch {
	case c >= '0' && c <= '9':
		return l.number()
	case c == '"' || c == '\'':
		if end := stringEnd(l.source, l.at); end > 0 {
			return l.quoted(end)
		}
	case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf:
		if end := nameEnd(l.source, l.at); end > l.at {
			return l.name(end)
		}
	default:
		if n := operatorLen(l.source[l.at:]); n > 0 {
			return l.operator(l.source[l.at : l.at+n])
		}
	}
	r, _ := utf8.DecodeRuneInString(l.source[l.at:])
	return l.fail("unexpected char " + plainRepr(string(r)) + " at " + strconv.Itoa(utf8.RuneCountInString(l.source[:l.at])))
}

func (l *lexer) name(end int) bool {
	name := l.source[l.at:end]
	r, _ := utf8.DecodeRuneInString(name)
	if r != '_' && !unicode.IsLetter(r) && !unicode.Is(unicode.Nl, r) {
		return l.fail("Invalid character in identifier")
	}
	l.add(tokenName, name, nil)
	l.advance(end)
	return true
}

func nameEnd(s string, at int) int {
	for at < len(s) {
		c := s[at]
		if c < utf8.RuneSelf {
			if c != '_' && (c < '0' || c > '9' && c < 'A' || c > 'Z' && c < 'a' || c > 'z') {
				break
			}
			at++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[at:])
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) {
			break
		}
		at += n
	}
	return at
}

func operatorLen(s string) int {
	if len(s) > 1 {
		switch s[:2] {
		case "//", "**", "==", "!=", ">=", "<=":
			return 2
		}
	}
	if strings.IndexByte("+-/*%~[](){}><=.:|,;", s[0]) >= 0 {
		return 1
	}
	return 0
}

func (l *lexer) operator(op string) bool {
	switch op {
	case "(":
		l.open = append(l.open, ')')
	case "[":
		l.open = append(l.open, ']')
	case "{":
		l.open = append(l.open, '}')
	case ")", "]", "}":
		n := len(l.open)
		if n == 0 {
			return l.fail("unexpected '" + op + "'")
		}
		if want := l.open[n-1]; want != op[0] {
			return l.fail("unexpected '" + op + "', expected '" + string(want) + "'")
		}
		l.open = l.open[:n-1]
	}
	l.add(tokenKind(op), op, nil)
	l.advance(l.at + len(op))
	return true
}

func (l *lexer) number() bool {
	afterDot := l.at > 0 && l.source[l.at-1] == '.'
	if end := floatEnd(l.source, l.at); end > 0 && !afterDot {
		f, _ := strconv.ParseFloat(strings.ReplaceAll(l.source[l.at:end], "_", ""), 64)
		l.add(tokenFloat, "", f)
		l.advance(end)
		return true
	}
	end := integerEnd(l.source, l.at)
	digits := strings.ReplaceAll(l.source[l.at:end], "_", "")
	n, err := strconv.ParseInt(digits, 0, 64)
	if err == nil {
		l.add(tokenInteger, "", int(n))
	} else {
		big, ok := new(big.Int).SetString(digits, 0)
		if !ok || len(digits) > maxDigits {
			return l.fail("Exceeds the limit for integer string conversion")
		}
		l.add(tokenInteger, "", big)
	}
	l.advance(end)
	return true
}
