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

// FromJSON reads JSON as Python's json.loads does: objects keep the order of
// their keys, the last of equal keys counts, 1 is an int and 1.0 a float, NaN
// and Infinity are read. A lone surrogate becomes U+FFFD.
func FromJSON(data []byte) (v Value, err error) {
	r := &jsonReader{s: string(data)}
	defer func() {
		if p := recover(); p != nil {
			problem, ours := p.(jsonProblem)
			if !ours {
				panic(p)
			}
			v, err = nil, fmt.Errorf("JSON, byte %d: %s", r.at, string(problem))
		}
	}()
	v = r.value(0)
	r.space()
	if r.at < len(r.s) {
		r.fail("something follows the value")
	}
	return v, nil
}

// jsonDepth bounds how deep values nest.
const jsonDepth = 512

type jsonProblem string

type jsonReader struct {
	s  string
	at int
}

func (r *jsonReader) fail(problem string) { panic(jsonProblem(problem)) }

func (r *jsonReader) space() {
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
	r.space()
	if r.at >= len(r.s) {
		r.fail("it ends too early")
	}
	return r.s[r.at]
}

func (r *jsonReader) skip(word string) bool {
	if strings.HasPrefix(r.s[r.at:], word) {
		r.at += len(word)
		return true
	}
	return false
}

func (r *jsonReader) value(depth int) Value {
	if depth > jsonDepth {
		r.fail("it is nested too deep")
	}
	c := r.peek()
	switch {
	case c == '"':
		return r.text()
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case r.skip("null"):
		return None
	case r.skip("true"):
		return true
	case r.skip("false"):
		return false
	case r.skip("NaN"):
		return math.NaN()
	case r.skip("Infinity"):
		return math.Inf(1)
	case r.skip("-Infinity"):
		return math.Inf(-1)
	}
	return r.number()
}

func (r *jsonReader) object(depth int) Value {
	d := NewDict()
	r.at++
	if r.peek() == '}' {
		r.at++
		return d
	}
	for {
		if r.peek() != '"' {
			r.fail("a key must be a string")
		}
		key := r.text()
		if r.peek() != ':' {
			r.fail("a key needs a colon")
		}
		r.at++
		d.Set(key, r.value(depth+1))
		if r.more('}') {
			return d
		}
	}
}

func (r *jsonReader) array(depth int) Value {
	list := &List{}
	r.at++
	if r.peek() == ']' {
		r.at++
		return list
	}
	for {
		list.items = append(list.items, r.value(depth+1))
		if r.more(']') {
			return list
		}
	}
}

// more reads a comma or the end.
func (r *jsonReader) more(end byte) bool {
	switch r.peek() {
	case end:
		r.at++
		return true
	case ',':
		r.at++
		return false
	}
	r.fail("a comma or '" + string(end) + "' is missing")
	return false
}

func (r *jsonReader) number() Value {
	start := r.at
	digits := func() int {
		from := r.at
		for r.at < len(r.s) && isDecimal(r.s[r.at]) {
			r.at++
		}
		return r.at - from
	}
	r.skip("-")
	zero := r.at < len(r.s) && r.s[r.at] == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		r.at = start
		r.fail("no value")
	}
	whole := true
	if r.at+1 < len(r.s) && r.s[r.at] == '.' && isDecimal(r.s[r.at+1]) {
		r.at++
		digits()
		whole = false
	}
	if r.at < len(r.s) && r.s[r.at]|0x20 == 'e' {
		back := r.at
		r.at++
		if !r.skip("+") {
			r.skip("-")
		}
		if digits() == 0 {
			r.at = back
		} else {
			whole = false
		}
	}
	word := r.s[start:r.at]
	if !whole {
		f, _ := strconv.ParseFloat(word, 64)
		return f
	}
	if n, err := strconv.Atoi(word); err == nil {
		return n
	}
	if len(word) > maxDigits {
		r.fail("an integer has too many digits")
	}
	n, _ := new(big.Int).SetString(word, 10)
	return n
}

func (r *jsonReader) text() string {
	r.at++
	start := r.at
	for r.at < len(r.s) {
		switch c := r.s[r.at]; {
		case c == '"':
			s := r.s[start:r.at]
			r.at++
			return strings.ToValidUTF8(s, "\uFFFD")
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			r.fail("a control character in a string")
		}
		r.at++
	}
	r.fail("a string has no end")
	return ""
}

// escaped reads on a string that holds escapes.
func (r *jsonReader) escaped(start int) string {
	b := []byte(r.s[start:r.at])
	for r.at < len(r.s) {
		switch c := r.s[r.at]; {
		case c == '"':
			r.at++
			return strings.ToValidUTF8(string(b), "\uFFFD")
		case c < ' ':
			r.fail("a control character in a string")
		case c == '\\':
			b = r.escape(b)
		default:
			b = append(b, c)
			r.at++
		}
	}
	r.fail("a string has no end")
	return ""
}

func (r *jsonReader) escape(b []byte) []byte {
	r.at++
	if r.at >= len(r.s) {
		r.fail("a string has no end")
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
		unit := r.unit()
		if utf16.IsSurrogate(unit) && strings.HasPrefix(r.s[r.at:], `\u`) {
			back := r.at
			r.at += 2
			if full := utf16.DecodeRune(unit, r.unit()); full != utf8.RuneError {
				return utf8.AppendRune(b, full)
			}
			r.at = back
		}
		return utf8.AppendRune(b, unit)
	}
	r.fail("an unknown escape in a string")
	return nil
}

func (r *jsonReader) unit() rune {
	unit, ok := hexRune(r.s[r.at:], 4)
	if !ok {
		r.fail("an escape needs four hex digits")
	}
	r.at += 4
	return unit
}
