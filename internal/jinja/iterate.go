package jinja

import (
	"unicode/utf8"
)

// iterator yields the values of an iterable. next returns false after the last
// one.
type iterator interface {
	next(m *machine) (Value, bool)
}

type sliceIterator struct {
	items []Value
	at    int
}

func (i *sliceIterator) next(*machine) (Value, bool) {
	if i.at >= len(i.items) {
		return nil, false
	}
	v := i.items[i.at]
	i.at++
	return v, true
}

// listIterator reads the list itself, so that it notices items removed by pop.
type listIterator struct {
	list *List
	at   int
}

func (i *listIterator) next(*machine) (Value, bool) {
	if i.at >= len(i.list.items) {
		return nil, false
	}
	v := i.list.items[i.at]
	i.at++
	return v, true
}

type runeIterator struct{ rest string }

func (i *runeIterator) next(*machine) (Value, bool) {
	if i.rest == "" {
		return nil, false
	}
	_, n := utf8.DecodeRuneInString(i.rest)
	c := i.rest[:n]
	i.rest = i.rest[n:]
	return c, true
}

type rangeIterator struct {
	at, left, step int
}

func (i *rangeIterator) next(*machine) (Value, bool) {
	if i.left == 0 {
		return nil, false
	}
	v := i.at
	i.at += i.step
	i.left--
	return v, true
}

type itemsIterator struct {
	dict *Dict
	at   int
}

func (i *itemsIterator) next(*machine) (Value, bool) {
	if i.at >= len(i.dict.keys) {
		return nil, false
	}
	k, v := i.dict.keys[i.at], i.dict.values[i.at]
	i.at++
	return newPair(k, v), true
}

// iteratorOf returns an iterator over v, or nil when v is not iterable.
func iteratorOf(v Value) iterator {
	switch v := v.(type) {
	case *List:
		return &listIterator{list: v}
	case *tuple:
		return &sliceIterator{items: v.items}
	case *Dict:
		return &sliceIterator{items: v.keys}
	case *dictView:
		switch v.kind {
		case "keys":
			return &sliceIterator{items: v.dict.keys}
		case "values":
			return &sliceIterator{items: v.dict.values}
		}
		return &itemsIterator{dict: v.dict}
	case string:
		return &runeIterator{rest: v}
	case markup:
		return &runeIterator{rest: string(v)}
	case *rangeValue:
		return &rangeIterator{v.start, v.len(), v.step}
	case *undefined:
		return &sliceIterator{}
	case *generator:
		return v
	}
	return nil
}

func (m *machine) newIterator(v Value) iterator {
	it := iteratorOf(v)
	if it == nil {
		failType("'%s' object is not iterable", typeName(v))
	}
	return it
}

// sharedItems is list(v) for reading only: the result may be the slice of v
// itself.
func (m *machine) sharedItems(v Value) []Value {
	switch v := v.(type) {
	case *List:
		m.payWork(len(v.items))
		return v.items
	case *tuple:
		m.payWork(len(v.items))
		return v.items
	}
	return m.copyItems(v)
}

// copyItems is list(v). The result is always a new slice.
func (m *machine) copyItems(v Value) []Value {
	if n, ok := lengthIfAny(m, v); ok {
		m.payItems(n)
	}
	it := m.newIterator(v)
	var items []Value
	for {
		item, ok := it.next(m)
		if !ok {
			return items
		}
		if len(items)&(len(items)-1) == 0 {
			m.payItems(len(items))
		}
		m.payWork(16)
		items = append(items, item)
	}
}

// lengthIfAny is len(v), and false when v has no length.
func lengthIfAny(m *machine, v Value) (int, bool) {
	switch v := v.(type) {
	case string:
		m.payWork(len(v))
		return utf8.RuneCountInString(v), true
	case markup:
		return utf8.RuneCountInString(string(v)), true
	case *List:
		return len(v.items), true
	case *tuple:
		return len(v.items), true
	case *Dict:
		return v.Len(), true
	case *dictView:
		return v.dict.Len(), true
	case *rangeValue:
		return v.len(), true
	case *undefined:
		return 0, true
	}
	return 0, false
}

func (m *machine) requireLength(v Value) int {
	n, ok := lengthIfAny(m, v)
	if !ok {
		failType("object of type '%s' has no len()", typeName(v))
	}
	return n
}

// reverseItems is reversed(v), or nil when v cannot be reversed.
func (m *machine) reverseItems(v Value) *generator {
	var items []Value
	switch v := v.(type) {
	case *List:
		items = v.items
	case *tuple:
		items = v.items
	case *Dict:
		items = v.keys
	case *rangeValue:
		items = m.copyItems(v)
	case *dictView:
		items = m.copyItems(v)
	case *undefined:
	case string, markup:
		items = m.copyItems(v)
	default:
		return nil
	}
	at := len(items)
	return &generator{func() (Value, bool) {
		if at == 0 {
			return nil, false
		}
		at--
		return items[at], true
	}}
}
