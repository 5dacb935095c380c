package jinja

import (
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is the kind of a token, as error messages name it.
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
	tokenError         tokenKind = "error" // invalid source; the token's text is the message
	// An operator is its own kind: "+", "==" and so on.
)

type token struct {
	kind  tokenKind
	text  string
	value Value // value of a literal
	line  int
}

func (t token) displayName() string {
	if t.kind == tokenName {
		return t.text
	}
	return string(t.kind)
}

// lexer splits a template into tokens, with the options trim_blocks and
// lstrip_blocks.
type lexer struct {
	source       string
	at           int
	line         int
	lineStarting bool // the source before at ends with a line break
	tokens       []token
	open         []byte // closing brackets of the open ones
}

// splitTokens returns the tokens of a template. Invalid source ends with a
// token of kind tokenError.
func splitTokens(source string) []token {
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	l := &lexer{
		source: strings.ToValidUTF8(strings.TrimSuffix(source, "\n"), "\uFFFD"),
		line:   1, lineStarting: true,
		tokens: make([]token, 0, len(source)/5+8),
	}
	for l.at < len(l.source) && l.lexTextAndTag() {
	}
	if n := len(l.tokens); n == 0 || l.tokens[n-1].kind != tokenError {
		l.addToken(tokenEOF, "", nil)
	}
	return l.tokens
}

func (l *lexer) addToken(kind tokenKind, text string, value Value) {
	l.tokens = append(l.tokens, token{kind, text, value, l.line})
}

func (l *lexer) addError(message string) bool {
	l.addToken(tokenError, message, nil)
	return false
}

// advanceTo moves to a position of the source and counts the lines.
func (l *lexer) advanceTo(to int) {
	if to > l.at {
		l.line += strings.Count(l.source[l.at:to], "\n")
		l.lineStarting = l.source[to-1] == '\n'
		l.at = to
	}
}

// lexTextAndTag reads the text up to the next tag, and the tag. It returns
// false on invalid source, as do the other lex functions.
func (l *lexer) lexTextAndTag() bool {
	rest := l.source[l.at:]
	start := findTagStart(rest)
	if start < 0 {
		l.addToken(tokenData, rest, nil)
		l.advanceTo(len(l.source))
		return true
	}
	body := l.at + start + 2
	kind, sign := l.source[body-1], byte(0)
	if body < len(l.source) && (l.source[body] == '-' || l.source[body] == '+') {
		sign = l.source[body]
	}
	l.addData(rest[:start], sign, kind != '{')
	l.advanceTo(l.at + start)
	if kind == '%' {
		if end, isRaw := l.findRawBegin(body); isRaw {
			l.advanceTo(end)
			return l.lexRaw()
		}
	}
	if sign != 0 {
		body++
	}
	switch kind {
	case '#':
		l.advanceTo(body)
		return l.lexComment()
	case '%':
		l.addToken(tokenBlockBegin, "", nil)
		l.advanceTo(body)
		return l.lexCode('%', tokenBlockEnd)
	default:
		l.addToken(tokenVariableBegin, "", nil)
		l.advanceTo(body)
		return l.lexCode('}', tokenVariableEnd)
	}
}

func findTagStart(s string) int {
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

// addData adds the text before a tag. sign is the - or + of the tag;
// strippable tells whether lstrip_blocks applies.
func (l *lexer) addData(s string, sign byte, strippable bool) {
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
		l.addToken(tokenData, s, nil)
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

// findRawBegin reports whether the tag at a position is {% raw %}, and returns
// its end.
func (l *lexer) findRawBegin(at int) (int, bool) {
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

// lexRaw reads text up to {% endraw %}.
func (l *lexer) lexRaw() bool {
	for from := l.at; ; {
		i := strings.Index(l.source[from:], "{%")
		if i < 0 && l.at == len(l.source) {
			return true // Python does not miss it here
		}
		if i < 0 {
			return l.addError("Missing end of raw directive")
		}
		start := from + i
		from = start + 2
		body := l.skipSign(from)
		at := l.skipSpace(body)
		if !strings.HasPrefix(l.source[at:], "endraw") {
			continue
		}
		end, ok := l.matchTagEnd(l.skipSpace(at+6), '%')
		if !ok {
			continue
		}
		var sign byte
		if body > from {
			sign = l.source[from]
		}
		l.addData(l.source[l.at:start], sign, true)
		l.advanceTo(end)
		return true
	}
}

// matchTagEnd matches the end of a tag at a position: %}, +%}, or -%} with the
// white space after it. It returns the position after it.
func (l *lexer) matchTagEnd(at int, kind byte) (int, bool) {
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

func (l *lexer) lexComment() bool {
	i := strings.Index(l.source[l.at:], "#}")
	if i < 0 && l.at == len(l.source) {
		return true // Python does not miss it here
	}
	if i < 0 {
		return l.addError("Missing end of comment tag")
	}
	at := l.at + i
	if i > 0 && (l.source[at-1] == '-' || l.source[at-1] == '+') {
		at--
	}
	end, _ := l.matchTagEnd(at, '#')
	l.advanceTo(end)
	return true
}

// lexCode reads the tokens of a statement or expression up to the end of its
// tag.
func (l *lexer) lexCode(end byte, endKind tokenKind) bool {
	l.open = l.open[:0]
	for l.at < len(l.source) {
		if len(l.open) == 0 {
			if to, ok := l.matchTagEnd(l.at, end); ok {
				l.addToken(endKind, "", nil)
				l.advanceTo(to)
				return true
			}
		}
		if to := l.skipSpace(l.at); to > l.at {
			l.advanceTo(to)
			continue
		}
		if !l.lexToken() {
			return false
		}
	}
	return true
}

func (l *lexer) lexToken() bool {
	c := l.source[l.at]
	switch {
	case c >= '0' && c <= '9':
		return l.lexNumber()
	case c == '"' || c == '\'':
		if end := stringEnd(l.source, l.at); end > 0 {
			return l.lexString(end)
		}
	case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf:
		if end := nameEnd(l.source, l.at); end > l.at {
			return l.lexName(end)
		}
	default:
		if n := operatorLen(l.source[l.at:]); n > 0 {
			return l.lexOperator(l.source[l.at : l.at+n])
		}
	}
	r, _ := utf8.DecodeRuneInString(l.source[l.at:])
	return l.addError("unexpected char " + plainRepr(string(r)) + " at " + strconv.Itoa(utf8.RuneCountInString(l.source[:l.at])))
}

func (l *lexer) lexName(end int) bool {
	name := l.source[l.at:end]
	r, _ := utf8.DecodeRuneInString(name)
	if r != '_' && !unicode.IsLetter(r) && !unicode.Is(unicode.Nl, r) {
		return l.addError("Invalid character in identifier")
	}
	l.addToken(tokenName, name, nil)
	l.advanceTo(end)
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

func (l *lexer) lexOperator(op string) bool {
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
			return l.addError("unexpected '" + op + "'")
		}
		if want := l.open[n-1]; want != op[0] {
			return l.addError("unexpected '" + op + "', expected '" + string(want) + "'")
		}
		l.open = l.open[:n-1]
	}
	l.addToken(tokenKind(op), op, nil)
	l.advanceTo(l.at + len(op))
	return true
}

func (l *lexer) lexNumber() bool {
	afterDot := l.at > 0 && l.source[l.at-1] == '.'
	if end := floatEnd(l.source, l.at); end > 0 && !afterDot {
		f, _ := strconv.ParseFloat(strings.ReplaceAll(l.source[l.at:end], "_", ""), 64)
		l.addToken(tokenFloat, "", f)
		l.advanceTo(end)
		return true
	}
	end := integerEnd(l.source, l.at)
	digits := strings.ReplaceAll(l.source[l.at:end], "_", "")
	n, err := strconv.ParseInt(digits, 0, 64)
	if err == nil {
		l.addToken(tokenInteger, "", int(n))
	} else {
		big, ok := new(big.Int).SetString(digits, 0)
		if !ok || len(digits) > maxDigits {
			return l.addError("Exceeds the limit for integer string conversion")
		}
		l.addToken(tokenInteger, "", big)
	}
	l.advanceTo(end)
	return true
}
