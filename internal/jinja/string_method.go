package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// method is a method of a string; its arguments may be anything.
type method func(m *machine, s string, a args) Value

// stringMethods are the methods of str. What returns bytes is left out.
var stringMethods map[string]method

func init() {
	plain := func(name string, f func(*machine, string) string) method {
		return func(m *machine, s string, a args) Value {
			a.positional("str."+name, 0, 0)
			m.hold(len(s))
			return f(m, s)
		}
	}
	check := func(name string, f func(string) bool) method {
		return func(m *machine, s string, a args) Value {
			a.positional("str."+name, 0, 0)
			m.work(len(s))
			return f(s)
		}
	}
	every := func(name string, is func(rune) bool) method {
		return check(name, func(s string) bool { return all(s, is) })
	}
	stringMethods = map[string]method{
		"upper":        plain("upper", upper),
		"lower":        plain("lower", lower),
		"casefold":     plain("casefold", func(m *machine, s string) string { return lower(m, strings.ReplaceAll(s, "ß", "ss")) }),
		"title":        plain("title", titleCase),
		"capitalize":   plain("capitalize", capitalize),
		"swapcase":     plain("swapcase", swapCase),
		"strip":        stripMethod("strip", true, true),
		"lstrip":       stripMethod("lstrip", true, false),
		"rstrip":       stripMethod("rstrip", false, true),
		"split":        splitMethod,
		"rsplit":       rsplitMethod,
		"splitlines":   splitLinesMethod,
		"join":         joinMethod,
		"replace":      replaceMethod,
		"startswith":   affixMethod("startswith", strings.HasPrefix),
		"endswith":     affixMethod("endswith", strings.HasSuffix),
		"removeprefix": removeMethod("removeprefix", strings.TrimPrefix),
		"removesuffix": removeMethod("removesuffix", strings.TrimSuffix),
		"find":         findMethod("find", strings.Index),
		"rfind":        findMethod("rfind", strings.LastIndex),
		"index":        indexMethod("index", strings.Index),
		"rindex":       indexMethod("rindex", strings.LastIndex),
		"count":        countMethod,
		"partition":    partitionMethod("partition", strings.Index, false),
		"rpartition":   partitionMethod("rpartition", strings.LastIndex, true),
		"zfill":        zfillMethod,
		"center":       padMethod("center", centered),
		"ljust":        padMethod("ljust", func(pad int, width int) int { return 0 }),
		"rjust":        padMethod("rjust", func(pad int, width int) int { return pad }),
		"expandtabs":   expandTabsMethod,
		"format":       func(m *machine, s string, a args) Value { return m.formatted(s, a, false) },
		"format_map":   formatMapMethod,
		"isdigit":      every("isdigit", isDigitRune),
		"isdecimal":    every("isdecimal", func(r rune) bool { return unicode.Is(unicode.Nd, r) }),
		"isnumeric":    every("isnumeric", isNumericRune),
		"isalpha":      every("isalpha", unicode.IsLetter),
		"isalnum":      every("isalnum", isAlnumRune),
		"isspace":      every("isspace", isSpace),
		"isascii":      check("isascii", isASCII),
		"isidentifier": check("isidentifier", isIdentifier),
		"isprintable":  check("isprintable", func(s string) bool { return s == "" || all(s, unicode.IsPrint) }),
		"islower":      check("islower", func(s string) bool { return allCased(s, isLower) }),
		"isupper":      check("isupper", func(s string) bool { return allCased(s, isUpper) }),
		"istitle":      check("istitle", isTitle),
	}
}

// stringMethod gives a bound method, nil when there is none of that name.
func stringMethod(s, name string, isMarkup bool) Value {
	call := stringMethods[name]
	if isMarkup && (call != nil || name == "striptags" || name == "unescape") {
		return newFunction(name, func(m *machine, a args) Value { return markupMethod(m, s, name, a) })
	}
	if call == nil {
		return nil
	}
	return newFunction(name, func(m *machine, a args) Value { return call(m, s, a) })
}

// textArg gives a string argument.
func textArg(fn string, v Value) string {
	s, is := text(v)
	if !is {
		typeError("%s() argument must be str, not %s", fn, typeName(v))
	}
	return s
}

// intArg gives an integer argument.
func intArg(v Value) int {
	n, is := indexOf(v)
	if !is {
		typeError("'%s' object cannot be interpreted as an integer", typeName(v))
	}
	return n
}

func stripMethod(name string, left, right bool) method {
	return func(m *machine, s string, a args) Value {
		got := a.positional(name, 0, 1)
		m.work(len(s))
		if len(got) == 0 || got[0] == None {
			return strip(m, s, isSpace, left, right)
		}
		chars, is := text(got[0])
		if !is {
			typeError("%s arg must be None or str", name)
		}
		if len(chars) <= 16 {
			return strip(m, s, func(r rune) bool { return strings.ContainsRune(chars, r) }, left, right)
		}
		m.hold(len(chars))
		set := map[rune]bool{}
		seen := 0
		for _, r := range chars {
			seen++
			m.along(seen)
			set[r] = true
		}
		return strip(m, s, func(r rune) bool { return set[r] }, left, right)
	}
}

func strip(m *machine, s string, is func(rune) bool, left, right bool) string {
	seen := 0
	gone := func(r rune) bool {
		seen++
		m.along(seen)
		return is(r)
	}
	if left {
		s = strings.TrimLeftFunc(s, gone)
	}
	if right {
		s = strings.TrimRightFunc(s, gone)
	}
	return s
}

func joinMethod(m *machine, s string, a args) Value {
	got := a.positional("str.join", 1, 1)
	if iteratorOf(got[0]) == nil {
		typeError("can only join an iterable")
	}
	items := m.collect(got[0])
	parts := make([]string, len(items))
	size := 0
	for i, item := range items {
		part, is := text(item)
		if !is {
			typeError("sequence item %d: expected str instance, %s found", i, typeName(item))
		}
		parts[i] = part
		size += len(part) + len(s)
	}
	m.hold(size)
	return strings.Join(parts, s)
}

func replaceMethod(m *machine, s string, a args) Value {
	got := a.positional("replace", 2, 3)
	n := -1
	old, isText := text(got[0])
	new, isText2 := text(got[1])
	if !isText {
		typeError("replace() argument 1 must be str, not %s", typeName(got[0]))
	}
	if !isText2 {
		typeError("replace() argument 2 must be str, not %s", typeName(got[1]))
	}
	if len(got) == 3 {
		n = intArg(got[2])
	}
	return m.replace(s, old, new, n)
}

func (m *machine) replace(s, old, new string, n int) string {
	if n < 0 {
		n = -1
	}
	m.work(len(s))
	count := strings.Count(s, old)
	if n >= 0 && n < count {
		count = n
	}
	if count == 0 {
		return s
	}
	if len(new) > 0 && count > m.limits.Output/len(new) {
		exceed("a text of more than %d bytes", m.limits.Output)
	}
	m.hold(len(s) + count*len(new) - count*len(old))
	return strings.Replace(s, old, new, n)
}

func affixMethod(name string, has func(s, affix string) bool) method {
	return func(m *machine, s string, a args) Value {
		got := a.positional(name, 1, 3)
		if len(got) > 1 {
			s = m.window(s, got[1:])
			if s == noWindow {
				return false
			}
		}
		if affix, is := text(got[0]); is {
			return has(s, affix)
		}
		t, is := got[0].(*tuple)
		if !is {
			typeError("%s first arg must be str or a tuple of str, not %s", name, typeName(got[0]))
		}
		for _, item := range t.items {
			affix, is := text(item)
			m.work(len(affix))
			if !is {
				typeError("tuple for %s must only contain str, not %s", name, typeName(item))
			}
			if has(s, affix) {
				return true
			}
		}
		return false
	}
}

func removeMethod(name string, remove func(s, affix string) string) method {
	return func(m *machine, s string, a args) Value {
		return remove(s, textArg(name, a.positional("str."+name, 1, 1)[0]))
	}
}

func countMethod(m *machine, s string, a args) Value {
	got := a.positional("count", 1, 3)
	part, is := text(got[0])
	if !is {
		typeError("must be str, not %s", typeName(got[0]))
	}
	if len(got) > 1 {
		if s = m.window(s, got[1:]); s == noWindow {
			return 0
		}
	}
	m.work(len(s))
	return strings.Count(s, part)
}

func partitionMethod(name string, index func(s, part string) int, last bool) method {
	return func(m *machine, s string, a args) Value {
		part := textArg(name, a.positional("str."+name, 1, 1)[0])
		if part == "" {
			valueError("empty separator")
		}
		m.work(len(s))
		i := index(s, part)
		switch {
		case i >= 0:
			return &tuple{items: []Value{s[:i], part, s[i+len(part):]}}
		case last:
			return &tuple{items: []Value{"", "", s}}
		}
		return &tuple{items: []Value{s, "", ""}}
	}
}

func zfillMethod(m *machine, s string, a args) Value {
	width := intArg(a.positional("str.zfill", 1, 1)[0])
	pad := width - utf8.RuneCountInString(s)
	if pad <= 0 {
		return s
	}
	m.hold(len(s) + pad)
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = s[:1], s[1:]
	}
	return sign + strings.Repeat("0", pad) + s
}

// centered is how many of the padding go to the left.
func centered(pad, width int) int { return pad/2 + pad&width&1 }

func padMethod(name string, left func(pad, width int) int) method {
	return func(m *machine, s string, a args) Value {
		got := a.positional(name, 1, 2)
		fill := " "
		if len(got) > 1 {
			var is bool
			fill, is = text(got[1])
			if !is || utf8.RuneCountInString(fill) != 1 {
				typeError("The fill character must be exactly one character long")
			}
		}
		return m.pad(s, intArg(got[0]), fill, left)
	}
}

func (m *machine) pad(s string, width int, fill string, left func(pad, width int) int) string {
	pad := width - utf8.RuneCountInString(s)
	if pad <= 0 {
		return s
	}
	m.hold(len(s) + min(pad, m.limits.Output+1)*len(fill))
	before := left(pad, width)
	return strings.Repeat(fill, before) + s + strings.Repeat(fill, pad-before)
}

func expandTabsMethod(m *machine, s string, a args) Value {
	size := 8
	if got := a.bind("expandtabs", 0, "tabsize"); got[0] != nil {
		size = intArg(got[0])
	}
	m.hold(len(s) + min(strings.Count(s, "\t"), m.limits.Output)*min(max(size, 0), m.limits.Output))
	var b strings.Builder
	column := 0
	for _, r := range s {
		switch {
		case r == '\t' && size > 0:
			n := size - column%size
			b.WriteString(strings.Repeat(" ", n))
			column += n
		case r == '\t':
		default:
			b.WriteRune(r)
			column++
			if r == '\n' || r == '\r' {
				column = 0
			}
		}
	}
	return b.String()
}
