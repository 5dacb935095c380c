package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// filter is what stands behind "|": a function of a value and arguments.
type filter func(m *machine, v Value, a args) Value

// filters are jinja2's, with tojson as transformers replaces it. random and
// pprint are left out: the one is not one text, the other is for people.
var filters map[string]filter

func init() {
	length := func(m *machine, v Value, a args) Value {
		a.positional("len", 0, 0)
		return m.length(v)
	}
	filters = map[string]filter{
		"abs": absFilter, "attr": attrFilter, "batch": batchFilter,
		"capitalize": textFilter("do_capitalize", capitalize), "center": centerFilter,
		"count": length, "length": length, "d": defaultFilter, "default": defaultFilter,
		"dictsort": dictSortFilter, "e": escapeFilter, "escape": escapeFilter,
		"filesizeformat": fileSizeFilter, "first": firstFilter, "float": floatFilter,
		"forceescape": forceEscapeFilter, "format": formatFilter, "groupby": groupByFilter,
		"indent": indentFilter, "int": intFilter, "items": itemsFilter, "join": joinFilter,
		"last": lastFilter, "list": listFilter, "lower": textFilter("do_lower", lower),
		"map": mapFilter, "max": extremeFilter("do_max", ">"), "min": extremeFilter("do_min", "<"),
		"reject":  selectFilter("sync_do_reject", false, false),
		"replace": replaceFilter, "reverse": reverseFilter, "round": roundFilter, "safe": safeFilter,
		"rejectattr": selectFilter("sync_do_rejectattr", false, true),
		"select":     selectFilter("sync_do_select", true, false),
		"selectattr": selectFilter("sync_do_selectattr", true, true),
		"slice":      sliceFilter, "sort": sortFilter, "string": stringFilter, "striptags": stripTagsFilter,
		"sum": sumFilter, "title": textFilter("do_title", titleWords), "tojson": toJSON, "trim": trimFilter,
		"truncate": truncateFilter, "unique": uniqueFilter, "upper": textFilter("do_upper", upper),
		"urlencode": urlEncodeFilter, "urlize": urlizeFilter, "wordcount": wordCountFilter,
		"wordwrap": wordWrapFilter, "xmlattr": xmlAttrFilter,
	}
}

// textFilter maps the text of a value; markup stays markup.
func textFilter(name string, f func(string) string) filter {
	return func(m *machine, v Value, a args) Value {
		a.bind(name, 0)
		s := m.str(v)
		m.hold(len(s))
		if _, is := v.(markup); is {
			return markup(f(s))
		}
		return f(s)
	}
}

// titleWords is the filter title: words begin after space, hyphens, brackets.
func titleWords(s string) string {
	begins := true
	var word []rune
	var b strings.Builder
	flush := func() {
		if len(word) > 0 {
			b.WriteString(upper(string(word[:1])))
			b.WriteString(lower(string(word[1:])))
			word = word[:0]
		}
	}
	for _, r := range s {
		begins = isSpace(r) || strings.ContainsRune("-({[<", r)
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

func absFilter(m *machine, v Value, a args) Value {
	a.positional("abs", 0, 0)
	switch n := toInt(v).(type) {
	case float64:
		return math.Abs(n)
	case int, *big.Int:
		if order(n, 0) < 0 {
			return signed(n, true)
		}
		return n
	}
	if u, is := v.(*undefined); is && u != nil {
		typeError("bad operand type for abs(): 'Undefined'")
	}
	typeError("bad operand type for abs(): '%s'", typeName(v))
	return nil
}

func attrFilter(m *machine, v Value, a args) Value {
	name, is := text(a.bind("do_attr", 1, "name")[0])
	if !is {
		typeError("attribute name must be string, not '%s'", typeName(a.pos[0]))
	}
	if u, is := v.(*undefined); is {
		u.fail()
	}
	if got := m.own(v, name); got != nil {
		return got
	}
	return dunder(v, name, name)
}

func centerFilter(m *machine, v Value, a args) Value {
	width := 80
	if got := a.bind("do_center", 0, "width"); got[0] != nil {
		width = intArg(got[0])
	}
	s := m.pad(m.str(v), width, " ", centered)
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
	got := a.bind("do_default", 0, "default_value", "boolean")
	_, isUndefined := v.(*undefined)
	if isUndefined || got[1] != nil && truth(m, got[1]) && !truth(m, v) {
		if got[0] == nil {
			return ""
		}
		return got[0]
	}
	return v
}

func escapeFilter(m *machine, v Value, a args) Value {
	a.positional("escape", 0, 0)
	return escape(m, v)
}

func forceEscapeFilter(m *machine, v Value, a args) Value {
	a.bind("do_forceescape", 0)
	return escape(m, m.str(v))
}

func safeFilter(m *machine, v Value, a args) Value {
	a.bind("do_mark_safe", 0)
	return markup(m.str(v))
}

func stringFilter(m *machine, v Value, a args) Value {
	a.bind("soft_str", 0)
	if s, is := v.(markup); is {
		return s
	}
	return m.str(v)
}

func stripTagsFilter(m *machine, v Value, a args) Value {
	a.bind("do_striptags", 0)
	return stripTags(m, m.str(v))
}

func trimFilter(m *machine, v Value, a args) Value {
	if s, is := v.(string); is && len(a.pos)+len(a.kw) == 0 {
		m.work(len(s))
		return strings.TrimFunc(s, isSpace)
	}
	got := a.bind("do_trim", 0, "chars")
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
	got := a.bind("do_replace", 2, "old", "new", "count")
	n := -1
	if got[2] != nil && got[2] != None {
		n = intArg(got[2])
	}
	return m.replace(m.str(v), m.str(got[0]), m.str(got[1]), n)
}

func formatFilter(m *machine, v Value, a args) Value {
	if len(a.pos) > 0 && len(a.kw) > 0 {
		fail("FilterArgumentError", "can't handle positional and keyword arguments at the same time")
	}
	_, escaped := v.(markup)
	if len(a.kw) == 0 {
		return m.percent(m.str(v), &tuple{items: a.pos}, escaped)
	}
	d := NewDict()
	for _, k := range a.kw {
		d.Set(k.name, k.value)
	}
	return m.percent(m.str(v), d, escaped)
}

// parseInt reads an integer as Python's int(s, base) does.
func parseInt(s string, base int) (Value, bool) {
	s = strings.TrimFunc(s, isSpace)
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = strings.TrimPrefix(s[:1], "+"), s[1:]
	}
	prefixes := map[int]string{2: "0b", 8: "0o", 16: "0x"}
	if prefix := prefixes[base]; prefix != "" && len(s) > 2 && strings.EqualFold(s[:2], prefix) {
		s = strings.TrimPrefix(s[2:], "_")
	}
	if s == "" || s[0] == '_' || s[len(s)-1] == '_' || strings.Contains(s, "__") || strings.ContainsAny(s, "+-") {
		return nil, false
	}
	if base == 0 {
		end := 0
		if isDecimal(s[0]) {
			end = integerEnd(s, 0)
		}
		if end != len(s) {
			return nil, false
		}
	} else {
		s = strings.ReplaceAll(s, "_", "")
	}
	if len(s) > maxDigits && base&(base-1) != 0 {
		return nil, false
	}
	if n, err := strconv.ParseInt(sign+s, base, 64); err == nil {
		return int(n), true
	}
	n, ok := new(big.Int).SetString(sign+s, base)
	if !ok {
		return nil, false
	}
	return small(n), true
}

// parseFloat reads a float as Python's float(s) does.
func parseFloat(s string) (float64, bool) {
	s = strings.TrimFunc(s, isSpace)
	bare := strings.ToLower(strings.TrimLeft(s, "+-"))
	if strings.HasPrefix(bare, "0x") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") ||
		strings.Contains(s, "_.") || strings.Contains(s, "._") || strings.Contains(bare, "_e") || strings.Contains(bare, "e_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// truncateFloat is int(f), false where Python raises ValueError.
func truncateFloat(f float64) (Value, bool) {
	if math.IsNaN(f) {
		return nil, false
	}
	if math.IsInf(f, 0) {
		fail("OverflowError", "cannot convert float infinity to integer")
	}
	if math.Abs(f) < 1<<62 {
		return int(f), true
	}
	n, _ := new(big.Float).SetFloat64(f).Int(nil)
	return small(n), true
}

func intFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_int", 0, "default", "base")
	base := 10
	if got[1] != nil {
		base = intArg(got[1])
	}
	otherwise := got[0]
	if otherwise == nil {
		otherwise = 0
	}
	switch n := toInt(v).(type) {
	case int, *big.Int:
		return n
	case float64:
		if i, ok := truncateFloat(n); ok {
			return i
		}
		return otherwise
	case *undefined:
		n.fail()
	}
	s, is := text(v)
	if !is {
		return otherwise
	}
	m.work(len(s))
	if base == 0 || base >= 2 && base <= 36 {
		if i, ok := parseInt(s, base); ok {
			return i
		}
	}
	if f, ok := parseFloat(s); ok {
		if i, ok := truncateFloat(f); ok {
			return i
		}
	}
	return otherwise
}

func floatFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_float", 0, "default")
	if isNumber(v) {
		return toFloat(v)
	}
	if u, is := v.(*undefined); is {
		u.fail()
	}
	if s, is := text(v); is {
		if f, ok := parseFloat(s); ok {
			return f
		}
	}
	if got[0] == nil {
		return 0.0
	}
	return got[0]
}

func roundFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_round", 0, "precision", "method")
	precision, method := 0, "common"
	if got[1] != nil {
		method, _ = text(got[1])
	}
	if method != "common" && method != "ceil" && method != "floor" {
		fail("FilterArgumentError", "method must be common, ceil or floor")
	}
	if got[0] != nil {
		precision = intArg(got[0])
	}
	mustNumber := func() {
		if !isNumber(v) {
			mustDefine(v)
			typeError("type %s doesn't define __round__ method", typeName(v))
		}
	}
	if method == "common" {
		if u, is := v.(*undefined); is && u != nil {
			typeError("type Undefined doesn't define __round__ method")
		}
		mustNumber()
		return roundTo(v, precision)
	}
	mustNumber()
	scale := numeric("**", 10, precision)
	f := toFloat(numeric("*", v, scale))
	if method == "ceil" {
		f = math.Ceil(f)
	} else {
		f = math.Floor(f)
	}
	n, ok := truncateFloat(f)
	if !ok {
		valueError("cannot convert float NaN to integer")
	}
	return numeric("/", n, scale)
}

// roundTo is round(v, precision): half to even.
func roundTo(v Value, precision int) Value {
	f, is := v.(float64)
	if !is {
		if precision >= 0 {
			return toInt(v)
		}
		return roundInteger(bigOf(v), -precision)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) || precision > 323 {
		return f
	}
	if precision < -308 {
		return math.Copysign(0, f)
	}
	if precision >= 0 {
		out, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
		return out
	}
	scale := math.Pow(10, float64(-precision))
	return math.RoundToEven(f/scale) * scale
}

func roundInteger(n *big.Int, digits int) Value {
	if digits > maxDigits {
		return 0
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)
	half := new(big.Int).Rsh(scale, 1)
	q, r := new(big.Int).DivMod(n, scale, new(big.Int))
	if c := r.Cmp(half); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return small(q.Mul(q, scale))
}

func fileSizeFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_filesizeformat", 0, "binary")
	mustDefine(v)
	size := 0.0
	if s, is := text(v); is {
		f, ok := parseFloat(s)
		if !ok {
			valueError("could not convert string to float: %s", plainRepr(s))
		}
		size = f
	} else if isNumber(v) {
		size = toFloat(v)
	} else {
		typeError("float() argument must be a string or a real number, not '%s'", typeName(v))
	}
	base, suffix := 1000.0, []string{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	if got[0] != nil && truth(m, got[0]) {
		base, suffix = 1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}
	}
	if size == 1 {
		return "1 Byte"
	}
	if size < base {
		return strconv.FormatFloat(math.Trunc(size)+0, 'f', 0, 64) + " Bytes"
	}
	unit := base * base
	i := 0
	for size >= unit && i < len(suffix)-1 {
		unit *= base
		i++
	}
	return strconv.FormatFloat(base*size/unit, 'f', 1, 64) + " " + suffix[i]
}

func xmlAttrFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_xmlattr", 0, "autospace")
	mustDefine(v)
	d, is := v.(*Dict)
	if !is {
		fail("AttributeError", "'%s' object has no attribute 'items'", typeName(v))
	}
	var parts []string
	for i, key := range d.keys {
		if _, is := d.values[i].(*undefined); is || d.values[i] == None {
			continue
		}
		name, is := text(key)
		if !is {
			typeError("expected string or bytes-like object, got '%s'", typeName(key))
		}
		if strings.ContainsAny(name, " \t\n\r\f\v/>=") {
			valueError("Invalid character in attribute name: %s", plainRepr(name))
		}
		parts = append(parts, string(escape(m, key))+`="`+string(escape(m, d.values[i]))+`"`)
	}
	s := strings.Join(parts, " ")
	m.hold(len(s))
	if s != "" && (got[0] == nil || truth(m, got[0])) {
		s = " " + s
	}
	return s
}

func wordCountFilter(m *machine, v Value, a args) Value {
	a.bind("do_wordcount", 0)
	n, in := 0, false
	s := m.str(v)
	m.work(len(s))
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
	a.bind("do_urlencode", 0)
	if _, is := text(v); is || iteratorOf(v) == nil {
		return quoteURL(m, m.str(v), false)
	}
	items := v
	if d, is := v.(*Dict); is {
		items = &view{d, "items"}
	}
	var parts []string
	for _, item := range m.gather(items) {
		kv := m.unpack(item, 2)
		parts = append(parts, quoteURL(m, m.str(kv[0]), true)+"="+quoteURL(m, m.str(kv[1]), true))
	}
	s := strings.Join(parts, "&")
	m.hold(len(s))
	return s
}

func quoteURL(m *machine, s string, query bool) string {
	m.hold(3 * len(s))
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
