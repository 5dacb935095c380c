package jinja

import (
	"strings"
	"unicode/utf8"
)

// filterFunc implements a filter: value|name(args).
type filterFunc func(m *machine, v Value, a args) Value

// filters are the built-in filters of jinja2, with the tojson of transformers.
// random is missing because a render must be repeatable, and pprint because
// its output is for people.
var filters map[string]filterFunc

func init() {
	length := func(m *machine, v Value, a args) Value {
		a.requirePositional("len", 0, 0)
		return m.requireLength(v)
	}
	filters = map[string]filterFunc{
		"abs": absFilter, "attr": attrFilter, "batch": batchFilter,
		"capitalize": newTextFilter("do_capitalize", capitalizeText), "center": centerFilter,
		"count": length, "length": length, "d": defaultFilter, "default": defaultFilter,
		"dictsort": dictSortFilter, "e": escapeFilter, "escape": escapeFilter,
		"filesizeformat": fileSizeFilter, "first": firstFilter, "float": floatFilter,
		"forceescape": forceEscapeFilter, "format": formatFilter, "groupby": groupByFilter,
		"indent": indentFilter, "int": intFilter, "items": itemsFilter, "join": joinFilter,
		"last": lastFilter, "list": listFilter, "lower": newTextFilter("do_lower", toLower),
		"map": mapFilter, "max": newExtremeFilter("do_max", ">"), "min": newExtremeFilter("do_min", "<"),
		"reject":  newSelectFilter("sync_do_reject", false, false),
		"replace": replaceFilter, "reverse": reverseFilter, "round": roundFilter, "safe": safeFilter,
		"rejectattr": newSelectFilter("sync_do_rejectattr", false, true),
		"select":     newSelectFilter("sync_do_select", true, false),
		"selectattr": newSelectFilter("sync_do_selectattr", true, true),
		"slice":      sliceFilter, "sort": sortFilter, "string": stringFilter, "striptags": stripTagsFilter,
		"sum": sumFilter, "title": titleFilter, "tojson": toJSON, "trim": trimFilter,
		"truncate": truncateFilter, "unique": uniqueFilter, "upper": newTextFilter("do_upper", toUpper),
		"urlencode": urlEncodeFilter, "urlize": urlizeFilter, "wordcount": wordCountFilter,
		"wordwrap": wordWrapFilter, "xmlattr": xmlAttrFilter,
	}
}

// newTextFilter returns a filter that maps text. Markup stays markup.
func newTextFilter(name string, f func(*machine, string) string) filterFunc {
	return func(m *machine, v Value, a args) Value {
		a.bindNames(name, 0)
		s := m.str(v)
		m.payMemory(len(s))
		if _, is := v.(markup); is {
			return markup(f(m, s))
		}
		return f(m, s)
	}
}

func titleFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_title", 0)
	s := m.str(v)
	m.payMemory(len(s))
	return titleWords(m, s)
}

// titleWords implements the filter title: a word begins after white space, a
// hyphen or an opening bracket.
func titleWords(m *machine, s string) string {
	var word []rune
	var b strings.Builder
	flush := func() {
		if len(word) > 0 {
			b.WriteString(toUpper(m, string(word[:1])))
			b.WriteString(toLower(m, string(word[1:])))
			word = word[:0]
		}
	}
	seen := 0
	for _, r := range s {
		seen++
		m.payRune(seen)
		begins := isSpace(r) || strings.ContainsRune("-({[<", r)
		if !begins {
			word = append(word, r)
			continue
		}
		flush()
		b.WriteRune(r)
	}
	flush()
	return b.String()
}

func attrFilter(m *machine, v Value, a args) Value {
	name, is := asText(a.bindNames("do_attr", 1, "name")[0])
	if !is {
		failType("attribute name must be string, not '%s'", typeName(a.pos[0]))
	}
	if u, is := v.(*undefined); is {
		u.fail()
	}
	if got := m.ownAttribute(v, name); got != nil {
		return got
	}
	return missingAttribute(v, name, name)
}

func centerFilter(m *machine, v Value, a args) Value {
	width := 80
	if got := a.bindNames("do_center", 0, "width"); got[0] != nil {
		width = intArg(got[0])
	}
	s := m.padText(m.str(v), width, " ", centerPadding)
	if _, is := v.(markup); is {
		return markup(s)
	}
	return s
}

func defaultFilter(m *machine, v Value, a args) Value {
	if _, isUndefined := v.(*undefined); len(a.kw) == 0 && len(a.pos) == 1 {
		if isUndefined {
			return a.pos[0]
		}
		return v
	}
	got := a.bindNames("do_default", 0, "default_value", "boolean")
	_, isUndefined := v.(*undefined)
	if isUndefined || got[1] != nil && isTruthy(m, got[1]) && !isTruthy(m, v) {
		if got[0] == nil {
			return ""
		}
		return got[0]
	}
	return v
}

func escapeFilter(m *machine, v Value, a args) Value {
	a.requirePositional("escape", 0, 0)
	return escapeHTML(m, v)
}

func forceEscapeFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_forceescape", 0)
	return escapeHTML(m, m.str(v))
}

func safeFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_mark_safe", 0)
	return markup(m.str(v))
}

func stringFilter(m *machine, v Value, a args) Value {
	a.bindNames("soft_str", 0)
	if s, is := v.(markup); is {
		return s
	}
	return m.str(v)
}

func stripTagsFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_striptags", 0)
	return removeTags(m, m.str(v))
}

func trimFilter(m *machine, v Value, a args) Value {
	if s, is := v.(string); is && len(a.pos)+len(a.kw) == 0 {
		m.payWork(len(s))
		return strings.TrimFunc(s, isSpace)
	}
	got := a.bindNames("do_trim", 0, "chars")
	var pos []Value
	if got[0] != nil {
		pos = got
	}
	s := m.str(v)
	if _, is := v.(markup); is {
		return markupMethod(m, s, "strip", args{pos: pos})
	}
	return stringMethods["strip"](m, s, args{pos: pos})
}

func replaceFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_replace", 2, "old", "new", "count")
	n := -1
	if got[2] != nil && got[2] != None {
		n = intArg(got[2])
	}
	return m.replaceText(m.str(v), m.str(got[0]), m.str(got[1]), n)
}

func formatFilter(m *machine, v Value, a args) Value {
	if len(a.pos) > 0 && len(a.kw) > 0 {
		failRuntime("FilterArgumentError", "can't handle positional and keyword arguments at the same time")
	}
	_, escaped := v.(markup)
	if len(a.kw) == 0 {
		return m.formatPercent(m.str(v), &tuple{items: a.pos}, escaped)
	}
	d := NewDict()
	for _, k := range a.kw {
		d.Set(k.name, k.value)
	}
	return m.formatPercent(m.str(v), d, escaped)
}

func xmlAttrFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_xmlattr", 0, "autospace")
	requireDefined(v)
	d, is := v.(*Dict)
	if !is {
		failRuntime("AttributeError", "'%s' object has no attribute 'items'", typeName(v))
	}
	var parts []string
	for i, key := range d.keys {
		if _, is := d.values[i].(*undefined); is || d.values[i] == None {
			continue
		}
		name, is := asText(key)
		if !is {
			failType("expected string or bytes-like object, got '%s'", typeName(key))
		}
		if strings.ContainsAny(name, " \t\n\r\f\v/>=") {
			failValue("Invalid character in attribute name: %s", plainRepr(name))
		}
		parts = append(parts, string(escapeHTML(m, key))+`="`+string(escapeHTML(m, d.values[i]))+`"`)
	}
	s := strings.Join(parts, " ")
	m.payMemory(len(s))
	if s != "" && (got[0] == nil || isTruthy(m, got[0])) {
		s = " " + s
	}
	return s
}

func wordCountFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_wordcount", 0)
	n, in := 0, false
	s := m.str(v)
	m.payWork(len(s))
	for _, r := range s {
		is := r == '_' || isAlnumRune(r)
		if is && !in {
			n++
		}
		in = is
	}
	return n
}

func urlEncodeFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_urlencode", 0)
	if _, is := asText(v); is || iteratorOf(v) == nil {
		return quoteURL(m, m.str(v), false)
	}
	items := v
	if d, is := v.(*Dict); is {
		items = &dictView{d, "items"}
	}
	var parts []string
	for _, item := range m.copyItems(items) {
		kv := m.unpackItems(item, 2)
		parts = append(parts, quoteURL(m, m.str(kv[0]), true)+"="+quoteURL(m, m.str(kv[1]), true))
	}
	s := strings.Join(parts, "&")
	m.payMemory(len(s))
	return s
}

func quoteURL(m *machine, s string, query bool) string {
	m.payMemory(3 * len(s))
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c < utf8.RuneSelf && (isDecimal(c) || c|0x20 >= 'a' && c|0x20 <= 'z') || strings.IndexByte("_.-~", c) >= 0, c == '/' && !query:
			b.WriteByte(c)
		case c == ' ' && query:
			b.WriteByte('+')
		default:
			b.WriteString("%" + strings.ToUpper(string([]byte{hexDigits[c>>4], hexDigits[c&15]})))
		}
	}
	return b.String()
}
