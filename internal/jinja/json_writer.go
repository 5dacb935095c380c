package jinja

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// jsonWriter encodes values as Python's json.dumps does.
type jsonWriter struct {
	m             *machine
	b             []byte
	ascii         bool
	indent        string
	lines         bool // write line breaks
	itemSeparator string
	keySeparator  string
	sortKeys      bool
}

// toJSON is the filter tojson of transformers, which does not escape HTML.
func toJSON(m *machine, v Value, a args) Value {
	start := len(m.out)
	m.writeJSON(v, a)
	return m.takeOutput(start)
}

func (m *machine) writeJSON(v Value, a args) {
	w := jsonWriter{m: m, b: m.out, itemSeparator: ", ", keySeparator: ": "}
	if len(a.pos)+len(a.kw) > 0 {
		w.setOptions(a.bindNames("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys"))
	}
	w.writeValue(v, 0)
	m.out = w.b
}

// compileJSONWriter compiles {{ x|tojson }}.
func (c *compiler) compileJSONWriter(n *filterNode, s scope) textWriter {
	x, arguments := c.compileExpr(n.x, s), c.compileArgs(n.callArgs, s)
	return func(m *machine, f *frame) {
		m.payStep()
		v := x(m, f)
		m.writeJSON(v, arguments(m, f))
	}
}

func (w *jsonWriter) setOptions(got []Value) {
	is := func(v Value) bool { return v != nil && isTruthy(w.m, v) }
	w.ascii, w.sortKeys = is(got[0]), is(got[3])
	if got[1] != nil && got[1] != None {
		w.lines, w.itemSeparator = true, ","
		switch indent := toInt(got[1]).(type) {
		case int:
			w.m.payMemory(max(indent, 0))
			w.indent = strings.Repeat(" ", max(indent, 0))
		case string:
			w.indent = indent
		case markup:
			w.indent = string(indent)
		default:
			requireDefined(got[1])
			failType("can't multiply sequence by non-int of type '%s'", typeName(got[1]))
		}
	}
	if got[2] == nil || got[2] == None {
		return
	}
	parts := w.m.unpackItems(got[2], 2)
	item, isText := asText(parts[0])
	key, isText2 := asText(parts[1])
	if !isText || !isText2 {
		failType("make_encoder() argument 1 must be str, not %s", typeName(parts[0]))
	}
	w.itemSeparator, w.keySeparator = item, key
}

func (w *jsonWriter) writeValue(v Value, depth int) {
	switch v := v.(type) {
	case none:
		w.b = append(w.b, "null"...)
	case bool:
		w.b = fmt.Append(w.b, v)
	case int, *big.Int:
		w.b = w.m.appendRepr(w.b, v, 0)
	case float64:
		w.b = append(w.b, jsonFloat(v)...)
	case string:
		w.b = appendJSON(w.b, v, w.ascii)
	case markup:
		w.b = appendJSON(w.b, string(v), w.ascii)
	case *List:
		w.writeList(v.items, depth)
	case *tuple:
		w.writeList(v.items, depth)
	case *Dict:
		w.writeDict(v, depth)
	default:
		failType("Object of type %s is not JSON serializable", typeName(v))
	}
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return string(appendFloat(nil, f))
}

func (w *jsonWriter) writeLineBreak(depth int) {
	if !w.lines {
		return
	}
	w.b = append(w.b, '\n')
	for range depth {
		w.b = append(w.b, w.indent...)
		w.m.checkText(w.b)
	}
}

func (w *jsonWriter) writeList(items []Value, depth int) {
	w.m.checkNesting(depth)
	if len(items) == 0 {
		w.b = append(w.b, "[]"...)
		return
	}
	w.b = append(w.b, '[')
	for i, item := range items {
		if i > 0 {
			w.b = append(w.b, w.itemSeparator...)
		}
		w.writeLineBreak(depth + 1)
		w.writeValue(item, depth+1)
		w.m.checkText(w.b)
	}
	w.writeLineBreak(depth)
	w.b = append(w.b, ']')
}

func (w *jsonWriter) writeDict(d *Dict, depth int) {
	w.m.checkNesting(depth)
	if d.Len() == 0 {
		w.b = append(w.b, "{}"...)
		return
	}
	w.b = append(w.b, '{')
	order := w.sortedKeys(d)
	for n := range d.keys {
		i := n
		if order != nil {
			i = order[n]
		}
		if n > 0 {
			w.b = append(w.b, w.itemSeparator...)
		}
		w.writeLineBreak(depth + 1)
		w.b = append(appendJSON(w.b, w.keyText(d.keys[i]), w.ascii), w.keySeparator...)
		w.writeValue(d.values[i], depth+1)
		w.m.checkText(w.b)
	}
	w.writeLineBreak(depth)
	w.b = append(w.b, '}')
}

// sortedKeys returns the positions of the keys in sorted order, or nil without
// sort_keys.
func (w *jsonWriter) sortedKeys(d *Dict) []int {
	if !w.sortKeys {
		return nil
	}
	order := make([]int, d.Len())
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		w.m.payStep()
		if isOrdered(w.m, "<", d.keys[i], d.keys[j]) {
			return -1
		}
		return 1
	})
	return order
}

func (w *jsonWriter) keyText(key Value) string {
	switch key := key.(type) {
	case string:
		return key
	case markup:
		return string(key)
	case none:
		return "null"
	case bool:
		return fmt.Sprint(key)
	case int, *big.Int:
		return w.m.str(key)
	case float64:
		return jsonFloat(key)
	}
	failType("keys must be str, int, float, bool or None, not %s", typeName(key))
	return ""
}

const hexDigits = "0123456789abcdef"

// appendJSON appends s as a JSON string.
func appendJSON(b []byte, s string, ascii bool) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && (c < utf8.RuneSelf || !ascii) {
			i++
			continue
		}
		b = append(b, s[from:i]...)
		r, n := utf8.DecodeRuneInString(s[i:])
		b = appendEscaped(b, r)
		i += n
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

func appendEscaped(b []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(b, '\\', byte(r))
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	case '\f':
		return append(b, `\f`...)
	case '\b':
		return append(b, `\b`...)
	}
	unit := func(u rune) {
		b = append(b, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
	}
	if r > 0xffff {
		r -= 0x10000
		unit(0xd800 + r>>10)
		unit(0xdc00 + r&0x3ff)
		return b
	}
	unit(r)
	return b
}
