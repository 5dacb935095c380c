package jinja

import (
	"html"
	"strings"
)

var htmlEscaper = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;")

// escapeHTML is markupsafe.escape.
func escapeHTML(m *machine, v Value) markup {
	if s, is := v.(markup); is {
		return s
	}
	s := m.str(v)
	m.payMemory(len(s))
	out := htmlEscaper.Replace(s)
	m.payMemory(len(out))
	return markup(out)
}

// addMarkup is a + b where one side is markup; it escapes the other. It
// returns nil when neither side is markup.
func addMarkup(m *machine, a, b Value) Value {
	_, left := a.(markup)
	_, right := b.(markup)
	_, leftText := asText(a)
	_, rightText := asText(b)
	if !left && !right || !leftText || !rightText {
		return nil
	}
	x, y := escapeHTML(m, a), escapeHTML(m, b)
	m.payMemory(len(x) + len(y))
	return x + y
}

// removeTags is Markup.striptags.
func removeTags(m *machine, s string) string {
	m.payMemory(len(s))
	s = removeBetween(removeBetween(s, "<!--", "-->"), "<", ">")
	return html.UnescapeString(strings.Join(m.splitBySpace(s, -1), " "))
}

// removeBetween removes all text between two delimiters, and the delimiters.
func removeBetween(s, open, end string) string {
	var b strings.Builder
	for {
		from := strings.Index(s, open)
		if from < 0 {
			break
		}
		n := strings.Index(s[from+len(open):], end)
		if n < 0 {
			break
		}
		b.WriteString(s[:from])
		s = s[from+len(open)+n+len(end):]
	}
	b.WriteString(s)
	return b.String()
}

// escapedMethods are the string methods that escape their arguments and return
// markup when called on markup.
var escapedMethods = map[string]bool{
	"capitalize": true, "title": true, "lower": true, "upper": true, "replace": true, "ljust": true, "rjust": true,
	"lstrip": true, "rstrip": true, "center": true, "strip": true, "expandtabs": true, "swapcase": true,
	"zfill": true,
}

// markupMethod calls a string method on markup.
func markupMethod(m *machine, s string, name string, a args) Value {
	switch {
	case escapedMethods[name]:
		return asMarkup(stringMethods[name](m, s, escapeArgs(m, a)))
	case name == "join":
		got := a.requirePositional("str.join", 1, 1)
		list := &List{}
		for _, item := range m.copyItems(got[0]) {
			list.items = append(list.items, string(escapeHTML(m, item)))
		}
		return asMarkup(joinMethod(m, s, args{pos: []Value{list}}))
	case name == "format":
		return markup(m.formatString(s, a, true))
	case name == "partition" || name == "rpartition":
		return asMarkup(stringMethods[name](m, s, escapeArgs(m, a)))
	case name == "split" || name == "rsplit" || name == "splitlines":
		return asMarkup(stringMethods[name](m, s, a))
	case name == "striptags":
		a.requirePositional(name, 0, 0)
		return removeTags(m, s)
	case name == "unescape":
		a.requirePositional(name, 0, 0)
		return html.UnescapeString(s)
	}
	return stringMethods[name](m, s, a)
}

func escapeArgs(m *machine, a args) args {
	out := args{pos: make([]Value, len(a.pos)), kw: make([]keyword, len(a.kw))}
	one := func(v Value) Value {
		if _, is := asText(v); is {
			return string(escapeHTML(m, v))
		}
		return v
	}
	for i, v := range a.pos {
		out.pos[i] = one(v)
	}
	for i, k := range a.kw {
		out.kw[i] = keyword{k.name, one(k.value)}
	}
	return out
}

func asMarkup(v Value) Value {
	items := func(list []Value) []Value {
		out := make([]Value, len(list))
		for i, item := range list {
			out[i] = asMarkup(item)
		}
		return out
	}
	switch v := v.(type) {
	case string:
		return markup(v)
	case *List:
		return &List{items(v.items)}
	case *tuple:
		return &tuple{items: items(v.items)}
	}
	return v
}
