package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// methodFunc implements a method of str.
type methodFunc func(m *machine, s string, a args) Value

// stringMethods are the methods of str, except for methods that return bytes.
var stringMethods map[string]methodFunc

func init() {
	plain := func(name string, f func(*machine, string) string) methodFunc {
		return func(m *machine, s string, a args) Value {
			a.requirePositional("str."+name, 0, 0)
			m.payMemory(len(s))
			return f(m, s)
		}
	}
	check := func(name string, f func(string) bool) methodFunc {
		return func(m *machine, s string, a args) Value {
			a.requirePositional("str."+name, 0, 0)
			m.payWork(len(s))
			return f(s)
		}
	}
	every := func(name string, is func(rune) bool) methodFunc {
		return check(name, func(s string) bool { return allRunes(s, is) })
	}
	stringMethods = map[string]methodFunc{
		"upper":        plain("upper", toUpper),
		"lower":        plain("lower", toLower),
		"casefold":     plain("casefold", func(m *machine, s string) string { return toLower(m, strings.ReplaceAll(s, "ß", "ss")) }),
		"title":        plain("title", titleCase),
		"capitalize":   plain("capitalize", capitalizeText),
		"swapcase":     plain("swapcase", swapCase),
		"strip":        newStripMethod("strip", true, true),
		"lstrip":       newStripMethod("lstrip", true, false),
		"rstrip":       newStripMethod("rstrip", false, true),
		"split":        splitMethod,
		"rsplit":       rsplitMethod,
		"splitlines":   splitLinesMethod,
		"join":         joinMethod,
		"replace":      replaceMethod,
		"startswith":   newAffixMethod("startswith", strings.HasPrefix),
		"endswith":     newAffixMethod("endswith", strings.HasSuffix),
		"removeprefix": newRemoveMethod("removeprefix", strings.TrimPrefix),
		"removesuffix": newRemoveMethod("removesuffix", strings.TrimSuffix),
		"find":         newFindMethod("find", strings.Index),
		"rfind":        newFindMethod("rfind", strings.LastIndex),
		"index":        newIndexMethod("index", strings.Index),
		"rindex":       newIndexMethod("rindex", strings.LastIndex),
		"count":        countMethod,
		"partition":    newPartitionMethod("partition", strings.Index, false),
		"rpartition":   newPartitionMethod("rpartition", strings.LastIndex, true),
		"zfill":        zfillMethod,
		"center":       newPadMethod("center", centerPadding),
		"ljust":        newPadMethod("ljust", func(pad int, width int) int { return 0 }),
		"rjust":        newPadMethod("rjust", func(pad int, width int) int { return pad }),
		"expandtabs":   expandTabsMethod,
		"format":       func(m *machine, s string, a args) Value { return m.formatString(s, a, false) },
		"format_map":   formatMapMethod,
		"isdigit":      every("isdigit", isDigitRune),
		"isdecimal":    every("isdecimal", func(r rune) bool { return unicode.Is(unicode.Nd, r) }),
		"isnumeric":    every("isnumeric", isNumericRune),
		"isalpha":      every("isalpha", unicode.IsLetter),
		"isalnum":      every("isalnum", isAlnumRune),
		"isspace":      every("isspace", isSpace),
		"isascii":      check("isascii", isASCII),
		"isidentifier": check("isidentifier", isIdentifier),
		"isprintable":  check("isprintable", func(s string) bool { return s == "" || allRunes(s, unicode.IsPrint) }),
		"islower":      check("islower", func(s string) bool { return isAllCased(s, isLower) }),
		"isupper":      check("isupper", func(s string) bool { return isAllCased(s, isUpper) }),
		"istitle":      check("istitle", isTitle),
	}
}

// stringMethod returns a bound method of s, or nil when str has no such
// method.
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

// textArg returns an argument that must be a string.
func textArg(fn string, v Value) string {
	s, is := asText(v)
	if !is {
		failType("%s() argument must be str, not %s", fn, typeName(v))
	}
	return s
}

// intArg returns an argument that must be an integer.
func intArg(v Value) int {
	n, is := indexOf(v)
	if !is {
		failType("'%s' object cannot be interpreted as an integer", typeName(v))
	}
	return n
}

func newStripMethod(name string, left, right bool) methodFunc {
	return func(m *machine, s string, a args) Value {
		got := a.requirePositional(name, 0, 1)
		m.payWork(len(s))
		if len(got) == 0 || got[0] == None {
			return trimRunes(m, s, isSpace, left, right)
		}
		chars, is := asText(got[0])
		if !is {
			failType("%s arg must be None or str", name)
		}
		if len(chars) <= 16 {
			return trimRunes(m, s, func(r rune) bool { return strings.ContainsRune(chars, r) }, left, right)
		}
		m.payMemory(len(chars))
		set := map[rune]bool{}
		seen := 0
		for _, r := range chars {
			seen++
			m.payRune(seen)
			set[r] = true
		}
		return trimRunes(m, s, func(r rune) bool { return set[r] }, left, right)
	}
}

func trimRunes(m *machine, s string, is func(rune) bool, left, right bool) string {
	seen := 0
	gone := func(r rune) bool {
		seen++
		m.payRune(seen)
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
	got := a.requirePositional("str.join", 1, 1)
	if iteratorOf(got[0]) == nil {
		failType("can only join an iterable")
	}
	items := m.sharedItems(got[0])
	parts := make([]string, len(items))
	size := 0
	for i, item := range items {
		part, is := asText(item)
		if !is {
			failType("sequence item %d: expected str instance, %s found", i, typeName(item))
		}
		parts[i] = part
		size += len(part) + len(s)
	}
	m.payMemory(size)
	return strings.Join(parts, s)
}

func replaceMethod(m *machine, s string, a args) Value {
	got := a.requirePositional("replace", 2, 3)
	n := -1
	old, isText := asText(got[0])
	new, isText2 := asText(got[1])
	if !isText {
		failType("replace() argument 1 must be str, not %s", typeName(got[0]))
	}
	if !isText2 {
		failType("replace() argument 2 must be str, not %s", typeName(got[1]))
	}
	if len(got) == 3 {
		n = intArg(got[2])
	}
	return m.replaceText(s, old, new, n)
}

func (m *machine) replaceText(s, old, new string, n int) string {
	if n < 0 {
		n = -1
	}
	m.payWork(len(s))
	count := strings.Count(s, old)
	if n >= 0 && n < count {
		count = n
	}
	if count == 0 {
		return s
	}
	if len(new) > 0 && count > m.limits.Output/len(new) {
		failLimit("a text of more than %d bytes", m.limits.Output)
	}
	m.payMemory(len(s) + count*len(new) - count*len(old))
	return strings.Replace(s, old, new, n)
}

func newAffixMethod(name string, has func(s, affix string) bool) methodFunc {
	return func(m *machine, s string, a args) Value {
		got := a.requirePositional(name, 1, 3)
		if len(got) > 1 {
			s = m.sliceByBounds(s, got[1:])
			if s == noWindow {
				return false
			}
		}
		if affix, is := asText(got[0]); is {
			return has(s, affix)
		}
		t, is := got[0].(*tuple)
		if !is {
			failType("%s first arg must be str or a tuple of str, not %s", name, typeName(got[0]))
		}
		for _, item := range t.items {
			affix, is := asText(item)
			m.payWork(len(affix))
			if !is {
				failType("tuple for %s must only contain str, not %s", name, typeName(item))
			}
			if has(s, affix) {
				return true
			}
		}
		return false
	}
}

func newRemoveMethod(name string, remove func(s, affix string) string) methodFunc {
	return func(m *machine, s string, a args) Value {
		return remove(s, textArg(name, a.requirePositional("str."+name, 1, 1)[0]))
	}
}

func countMethod(m *machine, s string, a args) Value {
	got := a.requirePositional("count", 1, 3)
	part, is := asText(got[0])
	if !is {
		failType("must be str, not %s", typeName(got[0]))
	}
	if len(got) > 1 {
		if s = m.sliceByBounds(s, got[1:]); s == noWindow {
			return 0
		}
	}
	m.payWork(len(s))
	return strings.Count(s, part)
}

func newPartitionMethod(name string, index func(s, part string) int, last bool) methodFunc {
	return func(m *machine, s string, a args) Value {
		part := textArg(name, a.requirePositional("str."+name, 1, 1)[0])
		if part == "" {
			failValue("empty separator")
		}
		m.payWork(len(s))
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
	width := intArg(a.requirePositional("str.zfill", 1, 1)[0])
	pad := width - utf8.RuneCountInString(s)
	if pad <= 0 {
		return s
	}
	m.payMemory(len(s) + pad)
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = s[:1], s[1:]
	}
	return sign + strings.Repeat("0", pad) + s
}

// centerPadding returns how much of the padding is on the left, as in
// str.center.
func centerPadding(pad, width int) int { return pad/2 + pad&width&1 }

func newPadMethod(name string, left func(pad, width int) int) methodFunc {
	return func(m *machine, s string, a args) Value {
		got := a.requirePositional(name, 1, 2)
		fill := " "
		if len(got) > 1 {
			var is bool
			fill, is = asText(got[1])
			if !is || utf8.RuneCountInString(fill) != 1 {
				failType("The fill character must be exactly one character long")
			}
		}
		return m.padText(s, intArg(got[0]), fill, left)
	}
}

func (m *machine) padText(s string, width int, fill string, left func(pad, width int) int) string {
	pad := width - utf8.RuneCountInString(s)
	if pad <= 0 {
		return s
	}
	m.payMemory(len(s) + min(pad, m.limits.Output+1)*len(fill))
	before := left(pad, width)
	return strings.Repeat(fill, before) + s + strings.Repeat(fill, pad-before)
}

func expandTabsMethod(m *machine, s string, a args) Value {
	size := 8
	if got := a.bindNames("expandtabs", 0, "tabsize"); got[0] != nil {
		size = intArg(got[0])
	}
	m.payMemory(len(s) + min(strings.Count(s, "\t"), m.limits.Output)*min(max(size, 0), m.limits.Output))
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
