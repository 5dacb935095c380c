package jinja

import "slices"

func sumFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_sum", 0, "attribute", "start")
	g := keyReader{parts: attributeParts(got[0])}
	total := got[1]
	if total == nil {
		total = 0
	}
	it := m.newIterator(v)
	if _, is := asText(total); is {
		failType("sum() can't sum strings [use ''.join(seq) instead]")
	}
	for {
		item, ok := it.next(m)
		if !ok {
			return total
		}
		m.payStep()
		total = addValues(m, total, g.readKey(m, item))
	}
}

func firstFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_first", 0)
	if first, ok := m.newIterator(v).next(m); ok {
		return first
	}
	return &undefined{hint: "No first item, sequence was empty."}
}

func lastFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_last", 0)
	switch v := v.(type) {
	case *List:
		if n := len(v.items); n > 0 {
			return v.items[n-1]
		}
	}
	g := m.reverseItems(v)
	if g == nil {
		failType("'%s' object is not reversible", typeName(v))
	}
	if last, ok := g.produceNext(); ok {
		return last
	}
	return &undefined{hint: "No last item, sequence was empty."}
}

func reverseFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_reverse", 0)
	if s, is := asText(v); is {
		reversed := m.sliceText(s, None, None, -1)
		if _, is := v.(markup); is {
			return markup(reversed)
		}
		return reversed
	}
	if g := m.reverseItems(v); g != nil {
		return g
	}
	if iteratorOf(v) == nil {
		failRuntime("FilterArgumentError", "argument must be iterable")
	}
	items := m.copyItems(v)
	slices.Reverse(items)
	return &List{items}
}

func listFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_list", 0)
	return &List{m.copyItems(v)}
}

func itemsFilter(m *machine, v Value, a args) Value {
	a.bindNames("do_items", 0)
	var it iterator
	return newGenerator(func() (Value, bool) {
		if it == nil {
			switch v := v.(type) {
			case *undefined:
				it = &sliceIterator{}
			case *Dict:
				it = &itemsIterator{dict: v}
			default:
				failType("Can only get item pairs from a mapping.")
			}
		}
		return it.next(m)
	})
}

func joinFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_join", 0, "d", "attribute")
	separator := ""
	if got[0] != nil {
		separator = m.str(got[0])
	}
	g := keyReader{parts: attributeParts(got[1])}
	it := m.newIterator(v)
	start := len(m.out)
	for first := true; ; first = false {
		item, ok := it.next(m)
		if !ok {
			return m.takeOutput(start)
		}
		if !first {
			m.out = append(m.out, separator...)
		}
		m.payStep()
		m.writeValue(g.readKey(m, item))
		m.checkOutput(start)
	}
}

func batchFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_batch", 1, "linecount", "fill_with")
	it := iterator(nil)
	ended := false
	return newGenerator(func() (Value, bool) {
		if it == nil {
			it = m.newIterator(v)
		}
		var row []Value
		for !ended {
			if isEqual(m, len(row), got[0]) && len(row) > 0 {
				return &List{row}, true
			}
			item, ok := it.next(m)
			if !ok {
				ended = true
				break
			}
			m.payStep()
			row = append(row, item)
		}
		if len(row) == 0 {
			return nil, false
		}
		if got[1] != nil && got[1] != None && isOrdered(m, "<", len(row), got[0]) {
			n := intArg(got[0])
			m.payItems(n)
			for len(row) < n {
				row = append(row, got[1])
			}
		}
		return &List{row}, true
	})
}

func sliceFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_slice", 1, "slices", "fill_with")
	var seq []Value
	at, n, offset := 0, 0, 0
	return newGenerator(func() (Value, bool) {
		if n == 0 {
			seq = m.copyItems(v)
			requireDefined(got[0])
			if n = intArg(got[0]); n == 0 {
				failRuntime("ZeroDivisionError", "integer division or modulo by zero")
			}
		}
		if at >= n {
			return nil, false
		}
		m.payStep()
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

// mapFilter applies a filter to each item or reads an attribute of each item.
func mapFilter(m *machine, v Value, a args) Value {
	var it iterator
	var apply func(Value) Value
	return newGenerator(func() (Value, bool) {
		if it == nil {
			if !isTruthy(m, v) {
				return nil, false
			}
			apply = m.newMapper(a)
			it = m.newIterator(v)
		}
		item, ok := it.next(m)
		if !ok {
			return nil, false
		}
		m.payStep()
		return apply(item), true
	})
}

func (m *machine) newMapper(a args) func(Value) Value {
	if len(a.pos) == 0 && slices.ContainsFunc(a.kw, func(k keyword) bool { return k.name == "attribute" }) {
		var g keyReader
		for _, k := range a.kw {
			switch k.name {
			case "attribute":
				g.parts = attributeParts(k.value)
			case "default":
				g.fallback = k.value
			default:
				failRuntime("FilterArgumentError", "Unexpected keyword argument '%s'", k.name)
			}
		}
		return func(v Value) Value { return g.readKey(m, v) }
	}
	if len(a.pos) == 0 {
		failRuntime("FilterArgumentError", "map requires a filter argument")
	}
	rest := args{pos: a.pos[1:], kw: a.kw}
	return func(v Value) Value {
		name, _ := asText(a.pos[0])
		f, known := filters[name]
		if !known {
			failRuntime("TemplateRuntimeError", "No filter named %s.", m.repr(a.pos[0]))
		}
		return f(m, v, rest)
	}
}

// newSelectFilter returns a filter that keeps the items which pass, or with
// keep false fail, a test.
func newSelectFilter(name string, keep, byAttribute bool) filterFunc {
	return func(m *machine, v Value, a args) Value {
		var it iterator
		var pass func(Value) bool
		return newGenerator(func() (Value, bool) {
			if it == nil {
				if !isTruthy(m, v) {
					return nil, false
				}
				pass = m.newSelector(a, byAttribute)
				it = m.newIterator(v)
			}
			for {
				item, ok := it.next(m)
				if !ok {
					return nil, false
				}
				m.payStep()
				if pass(item) == keep {
					return item, true
				}
			}
		})
	}
}

func (m *machine) newSelector(a args, byAttribute bool) func(Value) bool {
	var g keyReader
	pos := a.pos
	if byAttribute {
		if len(pos) == 0 {
			failRuntime("FilterArgumentError", "Missing parameter for attribute name")
		}
		g.parts = attributeParts(pos[0])
		pos = pos[1:]
	}
	if len(pos) == 0 {
		return func(v Value) bool { return isTruthy(m, g.readKey(m, v)) }
	}
	rest := args{pos: pos[1:], kw: a.kw}
	return func(v Value) bool {
		name, _ := asText(pos[0])
		t, known := tests[name]
		v = g.readKey(m, v)
		if !known {
			failRuntime("TemplateRuntimeError", "No test named %s.", m.repr(pos[0]))
		}
		return t(m, v, rest)
	}
}
