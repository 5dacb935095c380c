package jinja

import "slices"

func sumFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_sum", 0, "attribute", "start")
	g := getter{parts: attributeParts(got[0])}
	total := got[1]
	if total == nil {
		total = 0
	}
	it := m.iterate(v)
	if _, is := text(total); is {
		typeError("sum() can't sum strings [use ''.join(seq) instead]")
	}
	for {
		item, ok := it.next(m)
		if !ok {
			return total
		}
		m.step()
		total = add(m, total, g.get(m, item))
	}
}

func firstFilter(m *machine, v Value, a args) Value {
	a.bind("do_first", 0)
	if first, ok := m.iterate(v).next(m); ok {
		return first
	}
	return &undefined{hint: "No first item, sequence was empty."}
}

func lastFilter(m *machine, v Value, a args) Value {
	a.bind("do_last", 0)
	switch v := v.(type) {
	case *List:
		if n := len(v.items); n > 0 {
			return v.items[n-1]
		}
	}
	g := m.reversed(v)
	if g == nil {
		typeError("'%s' object is not reversible", typeName(v))
	}
	if last, ok := g.produce(); ok {
		return last
	}
	return &undefined{hint: "No last item, sequence was empty."}
}

func reverseFilter(m *machine, v Value, a args) Value {
	a.bind("do_reverse", 0)
	if s, is := text(v); is {
		reversed := m.substring(s, None, None, -1)
		if _, is := v.(markup); is {
			return markup(reversed)
		}
		return reversed
	}
	if g := m.reversed(v); g != nil {
		return g
	}
	if iteratorOf(v) == nil {
		fail("FilterArgumentError", "argument must be iterable")
	}
	items := m.gather(v)
	slices.Reverse(items)
	return &List{items}
}

func listFilter(m *machine, v Value, a args) Value {
	a.bind("do_list", 0)
	return &List{m.gather(v)}
}

func itemsFilter(m *machine, v Value, a args) Value {
	a.bind("do_items", 0)
	var it iterator
	return newGenerator(func() (Value, bool) {
		if it == nil {
			switch v := v.(type) {
			case *undefined:
				it = &sliceIterator{}
			case *Dict:
				it = &itemsIterator{dict: v}
			default:
				typeError("Can only get item pairs from a mapping.")
			}
		}
		return it.next(m)
	})
}

func joinFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_join", 0, "d", "attribute")
	separator := ""
	if got[0] != nil {
		separator = m.str(got[0])
	}
	g := getter{parts: attributeParts(got[1])}
	it := m.iterate(v)
	start := len(m.out)
	for first := true; ; first = false {
		item, ok := it.next(m)
		if !ok {
			return m.take(start)
		}
		if !first {
			m.out = append(m.out, separator...)
		}
		m.step()
		m.write(g.get(m, item))
		m.written(start)
	}
}

func batchFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_batch", 1, "linecount", "fill_with")
	it := iterator(nil)
	ended := false
	return newGenerator(func() (Value, bool) {
		if it == nil {
			it = m.iterate(v)
		}
		var row []Value
		for !ended {
			if equal(m, len(row), got[0]) && len(row) > 0 {
				return &List{row}, true
			}
			item, ok := it.next(m)
			if !ok {
				ended = true
				break
			}
			m.step()
			row = append(row, item)
		}
		if len(row) == 0 {
			return nil, false
		}
		if got[1] != nil && got[1] != None && ordered(m, "<", len(row), got[0]) {
			n := intArg(got[0])
			m.holdItems(n)
			for len(row) < n {
				row = append(row, got[1])
			}
		}
		return &List{row}, true
	})
}

func sliceFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_slice", 1, "slices", "fill_with")
	var seq []Value
	at, n, offset := 0, 0, 0
	return newGenerator(func() (Value, bool) {
		if n == 0 {
			seq = m.gather(v)
			mustDefine(got[0])
			if n = intArg(got[0]); n == 0 {
				fail("ZeroDivisionError", "integer division or modulo by zero")
			}
		}
		if at >= n {
			return nil, false
		}
		m.step()
		each, extra := len(seq)/n, len(seq)%n
		start := offset + at*each
		if at < extra {
			offset++
		}
		end := offset + (at+1)*each
		row := slices.Clone(seq[start:end])
		if got[1] != nil && got[1] != None && at >= extra {
			row = append(row, got[1])
		}
		at++
		return &List{row}, true
	})
}

// mapFilter applies a filter, or reads an attribute, of each item.
func mapFilter(m *machine, v Value, a args) Value {
	var it iterator
	var apply func(Value) Value
	return newGenerator(func() (Value, bool) {
		if it == nil {
			if !truth(m, v) {
				return nil, false
			}
			apply = m.mapper(a)
			it = m.iterate(v)
		}
		item, ok := it.next(m)
		if !ok {
			return nil, false
		}
		m.step()
		return apply(item), true
	})
}

func (m *machine) mapper(a args) func(Value) Value {
	if len(a.pos) == 0 && slices.ContainsFunc(a.kw, func(k keyword) bool { return k.name == "attribute" }) {
		var g getter
		for _, k := range a.kw {
			switch k.name {
			case "attribute":
				g.parts = attributeParts(k.value)
			case "default":
				g.fallback = k.value
			default:
				fail("FilterArgumentError", "Unexpected keyword argument '%s'", k.name)
			}
		}
		return func(v Value) Value { return g.get(m, v) }
	}
	if len(a.pos) == 0 {
		fail("FilterArgumentError", "map requires a filter argument")
	}
	rest := args{pos: a.pos[1:], kw: a.kw}
	return func(v Value) Value {
		name, _ := text(a.pos[0])
		f, known := filters[name]
		if !known {
			fail("TemplateRuntimeError", "No filter named %s.", m.repr(a.pos[0]))
		}
		return f(m, v, rest)
	}
}

// selectFilter keeps the items, or the items with an attribute, that pass a
// test.
func selectFilter(name string, keep, byAttribute bool) filter {
	return func(m *machine, v Value, a args) Value {
		var it iterator
		var pass func(Value) bool
		return newGenerator(func() (Value, bool) {
			if it == nil {
				if !truth(m, v) {
					return nil, false
				}
				pass = m.selector(a, byAttribute)
				it = m.iterate(v)
			}
			for {
				item, ok := it.next(m)
				if !ok {
					return nil, false
				}
				m.step()
				if pass(item) == keep {
					return item, true
				}
			}
		})
	}
}

func (m *machine) selector(a args, byAttribute bool) func(Value) bool {
	var g getter
	pos := a.pos
	if byAttribute {
		if len(pos) == 0 {
			fail("FilterArgumentError", "Missing parameter for attribute name")
		}
		g.parts = attributeParts(pos[0])
		pos = pos[1:]
	}
	if len(pos) == 0 {
		return func(v Value) bool { return truth(m, g.get(m, v)) }
	}
	rest := args{pos: pos[1:], kw: a.kw}
	return func(v Value) bool {
		name, _ := text(pos[0])
		t, known := tests[name]
		v = g.get(m, v)
		if !known {
			fail("TemplateRuntimeError", "No test named %s.", m.repr(pos[0]))
		}
		return t(m, v, rest)
	}
}
