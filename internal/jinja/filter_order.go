package jinja

import (
	"slices"
	"strings"
)

// getter reads an attribute like "a.b.0" of items.
type getter struct {
	parts    []Value
	fold     bool  // strings are compared without case
	fallback Value // instead of undefined; nil is none
}

func attributeParts(attribute Value) []Value {
	if attribute == nil || attribute == None {
		return nil
	}
	s, is := text(attribute)
	if !is {
		return []Value{attribute}
	}
	var parts []Value
	for _, p := range strings.Split(s, ".") {
		if n, ok := parseInt(p, 10); ok && all(p, isDigitRune) {
			parts = append(parts, n)
		} else {
			parts = append(parts, p)
		}
	}
	return parts
}

func (g getter) get(m *machine, v Value) Value {
	for _, p := range g.parts {
		v = m.item(v, p)
		if _, is := v.(*undefined); is && g.fallback != nil && g.fallback != None {
			v = g.fallback
		}
	}
	if s, is := text(v); is && g.fold {
		m.hold(len(s))
		return lower(m, s)
	}
	return v
}

func flag(m *machine, v Value) bool { return v != nil && truth(m, v) }

// sorted sorts by keys, stably; less may fail.
func sorted(m *machine, items, keys []Value, reverse bool) []Value {
	m.holdItems(2 * len(items))
	order := make([]int, len(items))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		m.step()
		a, b := keys[i], keys[j]
		if reverse {
			a, b = b, a
		}
		switch {
		case ordered(m, "<", a, b):
			return -1
		case ordered(m, "<", b, a):
			return 1
		}
		return 0
	})
	out := make([]Value, len(items))
	for i, from := range order {
		out[i] = items[from]
	}
	return out
}

func sortFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_sort", 0, "reverse", "case_sensitive", "attribute")
	attributes := []Value{got[2]}
	if s, is := text(got[2]); is {
		attributes = attributes[:0]
		for _, part := range strings.Split(s, ",") {
			attributes = append(attributes, part)
		}
	}
	var getters []getter
	for _, attribute := range attributes {
		getters = append(getters, getter{parts: attributeParts(attribute), fold: !flag(m, got[1])})
	}
	items := m.gather(v)
	keys := make([]Value, len(items))
	for i, item := range items {
		key := &List{}
		for _, g := range getters {
			key.items = append(key.items, g.get(m, item))
		}
		keys[i] = key
	}
	return &List{sorted(m, items, keys, flag(m, got[0]))}
}

func dictSortFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_dictsort", 0, "case_sensitive", "by", "reverse")
	by := "key"
	if got[1] != nil {
		by, _ = text(got[1])
	}
	if by != "key" && by != "value" {
		fail("FilterArgumentError", "You can only sort by either \"key\" or \"value\"")
	}
	mustDefine(v)
	d, is := v.(*Dict)
	if !is {
		fail("AttributeError", "'%s' object has no attribute 'items'", typeName(v))
	}
	keys := slices.Clone(d.keys)
	if by == "value" {
		keys = slices.Clone(d.values)
	}
	fold := getter{fold: !flag(m, got[0])}
	for i := range keys {
		keys[i] = fold.get(m, keys[i])
	}
	return &List{sorted(m, m.gather(&view{d, "items"}), keys, flag(m, got[2]))}
}

func groupByFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_groupby", 1, "attribute", "default", "case_sensitive")
	plain := getter{parts: attributeParts(got[0]), fallback: got[1]}
	g := plain
	g.fold = !flag(m, got[2])
	items := m.gather(v)
	keys := make([]Value, len(items))
	for i, item := range items {
		keys[i] = g.get(m, item)
	}
	items = sorted(m, items, keys, false)
	out := &List{}
	var last Value
	for _, item := range items {
		key := g.get(m, item)
		if last == nil || !equal(m, last, key) {
			out.items = append(out.items, &tuple{items: []Value{plain.get(m, item), &List{}}, names: []string{"grouper", "list"}})
			last = key
		}
		group := out.items[len(out.items)-1].(*tuple).items[1].(*List)
		group.items = append(group.items, item)
	}
	return out
}

func uniqueFilter(m *machine, v Value, a args) Value {
	got := a.bind("do_unique", 0, "case_sensitive", "attribute")
	g := getter{parts: attributeParts(got[1]), fold: !flag(m, got[0])}
	seen := NewDict()
	var it iterator
	return newGenerator(func() (Value, bool) {
		if it == nil {
			it = m.iterate(v)
		}
		for {
			item, ok := it.next(m)
			if !ok {
				return nil, false
			}
			m.step()
			key := g.get(m, item)
			if _, known := seen.find(m, key); !known {
				m.hold(64)
				seen.set(m, key, None)
				return item, true
			}
		}
	})
}

func extremeFilter(name, op string) filter {
	return func(m *machine, v Value, a args) Value {
		got := a.bind(name, 0, "case_sensitive", "attribute")
		g := getter{parts: attributeParts(got[1]), fold: !flag(m, got[0])}
		it := m.iterate(v)
		best, ok := it.next(m)
		if !ok {
			return &undefined{hint: "No aggregated item, sequence was empty."}
		}
		bestKey := g.get(m, best)
		for {
			item, ok := it.next(m)
			if !ok {
				return best
			}
			m.step()
			if key := g.get(m, item); ordered(m, op, key, bestKey) {
				best, bestKey = item, key
			}
		}
	}
}
