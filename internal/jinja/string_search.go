package jinja

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// noWindow is the result of sliceByBounds when the start is after the end, where
// not even the empty string is found. It is not valid UTF-8, so no template
// can produce it.
const noWindow = "\xff"

// sliceByBounds returns s[start:end] for the bounds of str.find and similar
// methods.
func (m *machine) sliceByBounds(s string, bounds []Value) string {
	m.payWork(len(s))
	n := utf8.RuneCountInString(s)
	limit := func(i, unset int) int {
		if i >= len(bounds) || bounds[i] == None {
			return unset
		}
		v := sliceIndex(bounds[i])
		if v < 0 {
			v = max(v+n, 0)
		}
		return v
	}
	start, end := limit(0, 0), min(limit(1, n), n)
	if start > end {
		return noWindow
	}
	return m.sliceText(s, start, end, None)
}

// findText returns the index of a substring in characters, or -1.
func findText(m *machine, name, s string, a args, index func(s, part string) int) int {
	got := a.requirePositional(name, 1, 3)
	part, is := asText(got[0])
	if !is {
		failType("must be str, not %s", typeName(got[0]))
	}
	m.payWork(len(s))
	from := 0
	in := s
	if len(got) > 1 {
		if in = m.sliceByBounds(s, got[1:]); in == noWindow {
			return -1
		}
		if got[1] != None {
			if from = sliceIndex(got[1]); from < 0 {
				from = max(from+utf8.RuneCountInString(s), 0)
			}
		}
	}
	i := index(in, part)
	if i < 0 {
		return -1
	}
	return from + utf8.RuneCountInString(in[:i])
}

func newFindMethod(name string, index func(s, part string) int) methodFunc {
	return func(m *machine, s string, a args) Value { return findText(m, name, s, a, index) }
}

func newIndexMethod(name string, index func(s, part string) int) methodFunc {
	return func(m *machine, s string, a args) Value {
		i := findText(m, name, s, a, index)
		if i < 0 {
			failValue("substring not found")
		}
		return i
	}
}

// newTextList returns a list of strings.
func (m *machine) newTextList(parts []string) *List {
	m.payItems(len(parts))
	list := &List{make([]Value, len(parts))}
	for i, p := range parts {
		list.items[i] = p
	}
	return list
}

// splitArgs returns the arguments of split and rsplit. Without a separator
// they split at white space; maxSplit is -1 without a limit.
func splitArgs(name string, a args) (sep string, bySpace bool, maxSplit int) {
	got := a.bindNames(name, 0, "sep", "maxsplit")
	maxSplit = -1
	if got[1] != nil {
		maxSplit = intArg(got[1])
	}
	if got[0] == nil || got[0] == None {
		return "", true, maxSplit
	}
	sep, is := asText(got[0])
	if !is {
		failType("must be str or None, not %s", typeName(got[0]))
	}
	if sep == "" {
		failValue("empty separator")
	}
	return sep, false, maxSplit
}

func splitMethod(m *machine, s string, a args) Value {
	sep, bySpace, maxSplit := splitArgs("split", a)
	m.payMemory(len(s))
	if bySpace {
		return m.newTextList(m.splitBySpace(s, maxSplit))
	}
	m.payItems(strings.Count(s, sep))
	n := -1
	if maxSplit >= 0 && maxSplit < len(s)+1 {
		n = maxSplit + 1
	}
	return m.newTextList(strings.SplitN(s, sep, n))
}

func (m *machine) splitBySpace(s string, maxSplit int) []string {
	var parts []string
	for {
		s = strings.TrimLeftFunc(s, isSpace)
		if s == "" {
			return parts
		}
		end := strings.IndexFunc(s, isSpace)
		if end < 0 {
			return append(parts, s)
		}
		if maxSplit >= 0 && len(parts) >= maxSplit {
			return append(parts, strings.TrimRightFunc(s, isSpace))
		}
		parts = append(parts, s[:end])
		m.payParts(len(parts))
		s = s[end:]
	}
}

func rsplitMethod(m *machine, s string, a args) Value {
	sep, bySpace, maxSplit := splitArgs("rsplit", a)
	m.payMemory(len(s))
	var parts []string
	for {
		if bySpace {
			s = strings.TrimRightFunc(s, isSpace)
			if s == "" {
				break
			}
		}
		at, width := lastSeparator(s, sep, bySpace)
		if at < 0 || maxSplit >= 0 && len(parts) >= maxSplit {
			parts = append(parts, s)
			break
		}
		parts = append(parts, s[at+width:])
		m.payParts(len(parts))
		s = s[:at]
	}
	slices.Reverse(parts)
	return m.newTextList(parts)
}

func lastSeparator(s, sep string, bySpace bool) (at, width int) {
	if !bySpace {
		return strings.LastIndex(s, sep), len(sep)
	}
	at = strings.LastIndexFunc(s, isSpace)
	if at >= 0 {
		_, width = utf8.DecodeRuneInString(s[at:])
	}
	return at, width
}

func splitLinesMethod(m *machine, s string, a args) Value {
	got := a.bindNames("splitlines", 0, "keepends")
	m.payMemory(len(s))
	return m.newTextList(m.splitLines(s, got[0] != nil && isTruthy(m, got[0])))
}

func (m *machine) splitLines(s string, keep bool) []string {
	var lines []string
	for s != "" {
		i := strings.IndexFunc(s, isLineEnd)
		if i < 0 {
			return append(lines, s)
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			n = 2
		}
		if keep {
			lines = append(lines, s[:i+n])
		} else {
			lines = append(lines, s[:i])
		}
		m.payParts(len(lines))
		s = s[i+n:]
	}
	return lines
}

func isLineEnd(r rune) bool {
	switch r {
	case '\n', '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
		return true
	}
	return false
}

// dictMethods are the methods of dict that do not change it.
var dictMethods map[string]func(m *machine, d *Dict, a args) Value

func init() {
	viewOf := func(what string) func(m *machine, d *Dict, a args) Value {
		return func(m *machine, d *Dict, a args) Value {
			a.requirePositional("dict."+what, 0, 0)
			return &dictView{d, what}
		}
	}
	dictMethods = map[string]func(m *machine, d *Dict, a args) Value{
		"keys":   viewOf("keys"),
		"values": viewOf("values"),
		"items":  viewOf("items"),
		"copy": func(m *machine, d *Dict, a args) Value {
			a.requirePositional("dict.copy", 0, 0)
			return d
		},
		"get": func(m *machine, d *Dict, a args) Value {
			got := a.requirePositional("get", 1, 2)
			if v, ok := d.findValue(m, got[0]); ok {
				return v
			}
			if len(got) > 1 {
				return got[1]
			}
			return None
		},
		"fromkeys": func(m *machine, d *Dict, a args) Value {
			got := a.requirePositional("fromkeys", 1, 2)
			value := None
			if len(got) > 1 {
				value = got[1]
			}
			made := NewDict()
			for _, key := range m.copyItems(got[0]) {
				made.setValue(m, key, value)
			}
			return made
		},
	}
}

// listMethod returns a method that lists and tuples have, or nil.
func listMethod(v Value, items []Value, name string) Value {
	switch name {
	case "count":
		return newFunction(name, func(m *machine, a args) Value {
			want := a.requirePositional("count", 1, 1)[0]
			n := 0
			for _, item := range items {
				m.payWork(32)
				if isEqual(m, item, want) {
					n++
				}
			}
			return n
		})
	case "index":
		return newFunction(name, func(m *machine, a args) Value { return indexOfItem(m, v, items, a) })
	}
	return nil
}

func indexOfItem(m *machine, v Value, items []Value, a args) Value {
	got := a.requirePositional("index", 1, 3)
	from, to := 0, len(items)
	if len(got) > 1 {
		from = resolveSlice(len(items), got[1], None, None).start
	}
	if len(got) > 2 {
		at := resolveSlice(len(items), None, got[2], None)
		to = at.start + at.n
	}
	for i := from; i < to; i++ {
		m.payWork(32)
		if isEqual(m, items[i], got[0]) {
			return i
		}
	}
	if _, is := v.(*tuple); is {
		failValue("tuple.index(x): x not in tuple")
	}
	failValue("%s is not in list", m.repr(got[0]))
	return nil
}

// listMethodOf returns a method of a list, or nil. pop and clear change the
// list: the sandbox of jinja2 allows both, and templates use pop.
func listMethodOf(l *List, name string) Value {
	switch name {
	case "copy":
		return newFunction(name, func(m *machine, a args) Value {
			a.requirePositional("list.copy", 0, 0)
			return &List{l.items}
		})
	case "clear":
		return newFunction(name, func(m *machine, a args) Value {
			a.requirePositional("list.clear", 0, 0)
			l.items = nil
			return None
		})
	case "pop":
		return newFunction(name, func(m *machine, a args) Value { return l.popItem(m, a) })
	}
	return listMethod(l, l.items, name)
}

// popItem removes an item. It never writes to the slice, which other lists may
// share.
func (l *List) popItem(m *machine, a args) Value {
	got := a.requirePositional("pop", 0, 1)
	i := -1
	if len(got) > 0 {
		i = intArg(got[0])
	}
	if len(l.items) == 0 {
		failRuntime("IndexError", "pop from empty list")
	}
	v := itemAt(l.items, i)
	if v == nil {
		failRuntime("IndexError", "pop index out of range")
	}
	if i < 0 {
		i += len(l.items)
	}
	switch i {
	case 0:
		l.items = l.items[1:]
	case len(l.items) - 1:
		l.items = l.items[:i]
	default:
		l.items = m.concatItems(l.items[:i], l.items[i+1:])
	}
	return v
}
