package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDigits is the number of digits up to which Python converts integers to
// and from text.
const maxDigits = 4300

// writeValue appends str(v) to the output.
func (m *machine) writeValue(v Value) {
	switch v := v.(type) {
	case string:
		m.out = append(m.out, v...)
	case markup:
		m.out = append(m.out, v...)
	case *undefined:
	default:
		m.out = m.appendRepr(m.out, v, 0)
	}
}

// writeText appends v, which must be a string.
func (m *machine) writeText(v Value) {
	if _, is := asText(v); !is {
		failType("sequence item 0: expected str instance, %s found", typeName(v))
	}
	m.writeValue(v)
}

// str is str(v).
func (m *machine) str(v Value) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case *undefined:
		return ""
	}
	return m.repr(v)
}

// repr is repr(v).
func (m *machine) repr(v Value) string {
	b := m.appendRepr(nil, v, 0)
	m.payMemory(len(b))
	return string(b)
}

// plainRepr is repr of a value that contains no other values.
func plainRepr(v Value) string {
	return string(newPlainMachine().appendRepr(nil, v, 0))
}

// newPlainMachine returns a machine for operations outside of a render.
func newPlainMachine() *machine {
	return &machine{limits: Limits{}.orDefaults(), steps: 1 << 20, memory: 1 << 20, ticksLeft: 1 << 20}
}

func (m *machine) appendRepr(b []byte, v Value, depth int) []byte {
	switch v := v.(type) {
	case none:
		return append(b, "None"...)
	case bool:
		if v {
			return append(b, "True"...)
		}
		return append(b, "False"...)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case *big.Int:
		return append(b, bigText(v)...)
	case float64:
		return appendFloat(b, v)
	case string:
		return appendQuoted(b, v)
	case markup:
		return append(appendQuoted(append(b, "Markup("...), string(v)), ')')
	case *List:
		return append(m.appendItems(append(b, '['), v.items, depth), ']')
	case *tuple:
		b = m.appendItems(append(b, '('), v.items, depth)
		if len(v.items) == 1 {
			b = append(b, ',')
		}
		return append(b, ')')
	case *Dict:
		return m.appendDict(b, v, depth)
	case *dictView:
		b = append(append(b, "dict_"...), v.kind...)
		return append(m.appendItems(append(b, "(["...), m.copyItems(v), depth), "])"...)
	case *namespace:
		return append(m.appendDict(append(b, "<Namespace "...), v.attrs, depth), '>')
	}
	return append(b, objectRepr(v)...)
}

func objectRepr(v Value) string {
	switch v := v.(type) {
	case *undefined:
		return "Undefined"
	case *rangeValue:
		if v.step == 1 {
			return fmt.Sprintf("range(%d, %d)", v.start, v.stop)
		}
		return fmt.Sprintf("range(%d, %d, %d)", v.start, v.stop, v.step)
	case *macro:
		if v.name == "" {
			return "<Macro anonymous>"
		}
		return "<Macro " + plainRepr(v.name) + ">"
	case *function:
		return "<function " + v.name + " at " + address + ">"
	}
	return "<" + objectName(v) + " at " + address + ">"
}

// address replaces the address of an object in its repr. Templates must not
// see real addresses.
const address = "0x7f0000000000"

func (m *machine) appendItems(b []byte, items []Value, depth int) []byte {
	m.checkNesting(depth)
	for i, item := range items {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = m.appendRepr(b, item, depth+1)
		m.checkText(b)
	}
	return b
}

func (m *machine) appendDict(b []byte, d *Dict, depth int) []byte {
	m.checkNesting(depth)
	b = append(b, '{')
	for i, key := range d.keys {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(m.appendRepr(b, key, depth+1), ": "...)
		b = m.appendRepr(b, d.values[i], depth+1)
		m.checkText(b)
	}
	return append(b, '}')
}

// checkText charges for one more item of a text and checks its length.
func (m *machine) checkText(b []byte) {
	m.payStep()
	if len(b) > m.limits.Output {
		failLimit("a text of more than %d bytes", m.limits.Output)
	}
}

func formatDecimal(n int) string { return strconv.Itoa(n) }

func bigText(n *big.Int) string {
	if n.BitLen() > 4*maxDigits {
		failValue("Exceeds the limit (%d digits) for integer string conversion", maxDigits)
	}
	s := n.String()
	if len(strings.TrimPrefix(s, "-")) > maxDigits {
		failValue("Exceeds the limit (%d digits) for integer string conversion", maxDigits)
	}
	return s
}

// appendFloat appends repr(f).
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !strings.Contains(string(b[start:]), ".") {
		b = append(b, ".0"...)
	}
	return b
}

// appendQuoted appends repr(s).
func appendQuoted(b []byte, s string) []byte {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b = append(b, quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x100:
			b = fmt.Appendf(b, `\x%02x`, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return append(b, quote)
}

// ascii is ascii(v): repr with all characters beyond ASCII escaped.
func (m *machine) ascii(v Value) string {
	var b []byte
	for _, r := range m.repr(v) {
		switch {
		case r < 0x80:
			b = append(b, byte(r))
		case r < 0x100:
			b = fmt.Appendf(b, `\x%02x`, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return string(b)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isSpace is Python's str.isspace for one character.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}
