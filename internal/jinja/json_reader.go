package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// FromJSON decodes JSON as Python's json.loads does: objects keep the order of
// their keys, the last of equal keys wins, 1 is an int and 1.0 a float, NaN
// and Infinity are valid. A lone surrogate becomes U+FFFD.
func FromJSON(data []byte) (v Value, err error) {
	r := &jsonReader{s: string(data)}
	defer func() {
		if p := recover(); p != nil {
			problem, ours := p.(jsonError)
			if !ours {
				panic(p)
			}
			v, err = nil, fmt.Errorf("JSON, byte %d: %s", r.at, string(problem))
		}
	}()
	v = r.readValue(0)
	r.skipSpace()
	if r.at < len(r.s) {
		r.failJSON("unexpected data after the value")
	}
	return v, nil
}

// maxJSONDepth is how deep JSON values may nest.
const maxJSONDepth = 512

type jsonError string

type jsonReader struct {
	s  string
	at int
}

func (r *jsonReader) failJSON(problem string) { panic(jsonError(problem)) }

func (r *jsonReader) skipSpace() {
	for r.at < len(r.s) {
		switch r.s[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

func (r *jsonReader) peek() byte {
	r.skipSpace()
	if r.at >= len(r.s) {
		r.failJSON("unexpected end")
	}
	return r.s[r.at]
}

func (r *jsonReader) skipWord(word string) bool {
	if strings.HasPrefix(r.s[r.at:], word) {
		r.at += len(word)
		return true
	}
	return false
}

func (r *jsonReader) readValue(depth int) Value {
	if depth > maxJSONDepth {
		r.failJSON("nested too deep")
	}
	c := r.peek()
	switch {
	case c == '"':
		return r.readText()
	case c == '{':
		return r.readObject(depth)
	case c == '[':
		return r.readArray(depth)
	case r.skipWord("null"):
		return None
	case r.skipWord("true"):
		return true
	case r.skipWord("false"):
		return false
	case r.skipWord("NaN"):
		return math.NaN()
	case r.skipWord("Infinity"):
		return math.Inf(1)
	case r.skipWord("-Infinity"):
		return math.Inf(-1)
	}
	return r.readNumber()
}

func (r *jsonReader) readObject(depth int) Value {
	d := NewDict()
	r.at++
	if r.peek() == '}' {
		r.at++
		return d
	}
	for {
		if r.peek() != '"' {
			r.failJSON("a key must be a string")
		}
		key := r.readText()
		if r.peek() != ':' {
			r.failJSON("missing colon after a key")
		}
		r.at++
		d.Set(key, r.readValue(depth+1))
		if r.atEnd('}') {
			return d
		}
	}
}

func (r *jsonReader) readArray(depth int) Value {
	list := &List{}
	r.at++
	if r.peek() == ']' {
		r.at++
		return list
	}
	for {
		list.items = append(list.items, r.readValue(depth+1))
		if r.atEnd(']') {
			return list
		}
	}
}

// atEnd reads a comma or the closing bracket, and reports whether it was the
// bracket.
func (r *jsonReader) atEnd(end byte) bool {
	switch r.peek() {
	case end:
		r.at++
		return true
	case ',':
		r.at++
		return false
	}
	r.failJSON("a comma or '" + string(end) + "' is missing")
	return false
}

func (r *jsonReader) readNumber() Value {
	start := r.at
	digits := func() int {
		from := r.at
		for r.at < len(r.s) && isDecimal(r.s[r.at]) {
			r.at++
		}
		return r.at - from
	}
	r.skipWord("-")
	zero := r.at < len(r.s) && r.s[r.at] == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		r.at = start
		r.failJSON("expected a value")
	}
	isInt := true
	if r.at+1 < len(r.s) && r.s[r.at] == '.' && isDecimal(r.s[r.at+1]) {
		r.at++
		digits()
		isInt = false
	}
	if r.at < len(r.s) && r.s[r.at]|0x20 == 'e' {
		back := r.at
		r.at++
		if !r.skipWord("+") {
			r.skipWord("-")
		}
		if digits() == 0 {
			r.at = back
		} else {
			isInt = false
		}
	}
	word := r.s[start:r.at]
	if !isInt {
		f, _ := strconv.ParseFloat(word, 64)
		return f
	}
	if n, err := strconv.Atoi(word); err == nil {
		return n
	}
	if len(word) > maxDigits {
		r.failJSON("an integer has too many digits")
	}
	n, _ := new(big.Int).SetString(word, 10)
	return n
}

func (r *jsonReader) readText() string {
	r.at++
	start := r.at
	for r.at < len(r.s) {
		switch c := r.s[r.at]; {
		case c == '"':
			s := r.s[start:r.at]
			r.at++
			return strings.ToValidUTF8(s, "\uFFFD")
		case c == '\\':
			return r.readEscapedText(start)
		case c < ' ':
			r.failJSON("control character in a string")
		}
		r.at++
	}
	r.failJSON("string is not closed")
	return ""
}

// readEscapedText reads the rest of a string that has escapes.
func (r *jsonReader) readEscapedText(start int) string {
	b := []byte(r.s[start:r.at])
	for r.at < len(r.s) {
		switch c := r.s[r.at]; {
		case c == '"':
			r.at++
			return strings.ToValidUTF8(string(b), "\uFFFD")
		case c < ' ':
			r.failJSON("control character in a string")
		case c == '\\':
			b = r.readEscape(b)
		default:
			b = append(b, c)
			r.at++
		}
	}
	r.failJSON("string is not closed")
	return ""
}

func (r *jsonReader) readEscape(b []byte) []byte {
	r.at++
	if r.at >= len(r.s) {
		r.failJSON("string is not closed")
	}
	c := r.s[r.at]
	r.at++
	switch c {
	case '"', '\\', '/':
		return append(b, c)
	case 'b':
		return append(b, '\b')
	case 'f':
		return append(b, '\f')
	case 'n':
		return append(b, '\n')
	case 'r':
		return append(b, '\r')
	case 't':
		return append(b, '\t')
	case 'u':
		unit := r.readHexUnit()
		if utf16.IsSurrogate(unit) && strings.HasPrefix(r.s[r.at:], `\u`) {
			back := r.at
			r.at += 2
			if full := utf16.DecodeRune(unit, r.readHexUnit()); full != utf8.RuneError {
				return utf8.AppendRune(b, full)
			}
			r.at = back
		}
		return utf8.AppendRune(b, unit)
	}
	r.failJSON("unknown escape in a string")
	return nil
}

func (r *jsonReader) readHexUnit() rune {
	unit, ok := hexRune(r.s[r.at:], 4)
	if !ok {
		r.failJSON("an escape needs four hex digits")
	}
	r.at += 4
	return unit
}
