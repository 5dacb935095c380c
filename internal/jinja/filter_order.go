package jinja

import (
	"slices"
	"strings"
)

// keyReader reads the key of an item by an attribute path such as "a.b.0".
type keyReader struct {
	parts    []Value
	fold     bool  // lower-case strings, for comparison without case
	fallback Value // replaces an undefined value; nil for no replacement
}

func attributeParts(attribute Value) []Value {
	if attribute == nil || attribute == None {
		return nil
	}
	s, is := asText(attribute)
	if !is {
		return []Value{attribute}
	}
	var parts []Value
	for _, p := range strings.Split(s, ".") {
		if n, ok := parseInt(p, 10); ok && allRunes(p, isDigitRune) {
			parts = append(parts, n)
		} else {
			parts = append(parts, p)
		}
	}
	return parts
}

func (g keyReader) readKey(m *machine, v Value) Value {
	for _, p := range g.parts {
		v = m.getItem(v, p)
		if _, is := v.(*undefined); is && g.fallback != nil && g.fallback != None {
			v = g.fallback
		}
	}
	if s, is := asText(v); is && g.fold {
		m.payMemory(len(s))
		return toLower(m, s)
	}
	return v
}

func isSet(m *machine, v Value) bool { return v != nil && isTruthy(m, v) }

// sortByKeys sorts items stably by their keys. It fails when two keys cannot
// be compared.
func sortByKeys(m *machine, items, keys []Value, reverse bool) []Value {
	m.payItems(2 * len(items))
	order := make([]int, len(items))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		m.payStep()
		a, b := keys[i], keys[j]
		if reverse {
			a, b = b, a
		}
		switch {
		case isOrdered(m, "<", a, b):
			return -1
		case isOrdered(m, "<", b, a):
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
	got := a.bindNames("do_sort", 0, "reverse", "case_sensitive", "attribute")
	attributes := []Value{got[2]}
	if s, is := asText(got[2]); is {
		attributes = attributes[:0]
		for _, part := range strings.Split(s, ",") {
			attributes = append(attributes, part)
		}
	}
	var getters []keyReader
	for _, attribute := range attributes {
		getters = append(getters, keyReader{parts: attributeParts(attribute), fold: !isSet(m, got[1])})
	}
	items := m.copyItems(v)
	keys := make([]Value, len(items))
	for i, item := range items {
		key := &List{}
		for _, g := range getters {
			key.items = append(key.items, g.readKey(m, item))
		}
		keys[i] = key
	}
	return &List{sortByKeys(m, items, keys, isSet(m, got[0]))}
}

func dictSortFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_dictsort", 0, "case_sensitive", "by", "reverse")
	by := "key"
	if got[1] != nil {
		by, _ = asText(got[1])
	}
	if by != "key" && by != "value" {
		failRuntime("FilterArgumentError", "You can only sort by either \"key\" or \"value\"")
	}
	requireDefined(v)
	d, is := v.(*Dict)
	if !is {
		failRuntime("AttributeError", "'%s' object has no attribute 'items'", typeName(v))
	}
	keys := slices.Clone(d.keys)
	if by == "value" {
		keys = slices.Clone(d.values)
	}
	fold := keyReader{fold: !isSet(m, got[0])}
	for i := range keys {
		keys[i] = fold.readKey(m, keys[i])
	}
	return &List{sortByKeys(m, m.copyItems(&dictView{d, "items"}), keys, isSet(m, got[2]))}
}

func groupByFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_groupby", 1, "attribute", "default", "case_sensitive")
	plain := keyReader{parts: attributeParts(got[0]), fallback: got[1]}
	g := plain
	g.fold = !isSet(m, got[2])
	items := m.copyItems(v)
	keys := make([]Value, len(items))
	for i, item := range items {
		keys[i] = g.readKey(m, item)
	}
	items = sortByKeys(m, items, keys, false)
	out := &List{}
	var last Value
	for _, item := range items {
		key := g.readKey(m, item)
		if last == nil || !isEqual(m, last, key) {
			out.items = append(out.items, &tuple{items: []Value{plain.readKey(m, item), &List{}}, names: []string{"grouper", "list"}})
			last = key
		}
		group := out.items[len(out.items)-1].(*tuple).items[1].(*List)
		group.items = append(group.items, item)
	}
	return out
}

func uniqueFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_unique", 0, "case_sensitive", "attribute")
	g := keyReader{parts: attributeParts(got[1]), fold: !isSet(m, got[0])}
	seen := NewDict()
	var it iterator
	return newGenerator(func() (Value, bool) {
		if it == nil {
			it = m.newIterator(v)
		}
		for {
			item, ok := it.next(m)
			if !ok {
				return nil, false
			}
			m.payStep()
			key := g.readKey(m, item)
			if _, known := seen.findValue(m, key); !known {
				m.payMemory(64)
				seen.setValue(m, key, None)
				return item, true
			}
		}
	})
}

func newExtremeFilter(name, op string) filterFunc {
	return func(m *machine, v Value, a args) Value {
		got := a.bindNames(name, 0, "case_sensitive", "attribute")
		g := keyReader{parts: attributeParts(got[1]), fold: !isSet(m, got[0])}
		it := m.newIterator(v)
		best, ok := it.next(m)
		if !ok {
			return &undefined{hint: "No aggregated item, sequence was empty."}
		}
		bestKey := g.readKey(m, best)
		for {
			item, ok := it.next(m)
			if !ok {
				return best
			}
			m.payStep()
			if key := g.readKey(m, item); isOrdered(m, op, key, bestKey) {
				best, bestKey = item, key
			}
		}
	}
}
