package jinja

import (
	"unicode/utf8"
)

// iterator yields the values of an iterable one by one.
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

// listIterator sees what pop takes away.
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

type intervalIterator struct {
	at, left, step int
}

func (i *intervalIterator) next(*machine) (Value, bool) {
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
	return pair(k, v), true
}

// iteratorOf returns nil when v is not iterable.
func iteratorOf(v Value) iterator {
	switch v := v.(type) {
	case *List:
		return &listIterator{list: v}
	case *tuple:
		return &sliceIterator{items: v.items}
	case *Dict:
		return &sliceIterator{items: v.keys}
	case *view:
		switch v.what {
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
	case *interval:
		return &intervalIterator{v.start, v.len(), v.step}
	case *undefined:
		return &sliceIterator{}
	case *generator:
		return v
	}
	return nil
}

func (m *machine) iterate(v Value) iterator {
	it := iteratorOf(v)
	if it == nil {
		typeError("'%s' object is not iterable", typeName(v))
	}
	return it
}

// collect is list(v), for reading only: it may share the value's own items.
func (m *machine) collect(v Value) []Value {
	switch v := v.(type) {
	case *List:
		m.work(len(v.items))
		return v.items
	case *tuple:
		m.work(len(v.items))
		return v.items
	}
	return m.gather(v)
}

// gather is list(v), always a new slice.
func (m *machine) gather(v Value) []Value {
	if n, ok := lengthOf(m, v); ok {
		m.holdItems(n)
	}
	it := m.iterate(v)
	var items []Value
	for {
		item, ok := it.next(m)
		if !ok {
			return items
		}
		if len(items)&(len(items)-1) == 0 {
			m.holdItems(len(items))
		}
		m.work(16)
		items = append(items, item)
	}
}

// lengthOf is len(v), where v has one.
func lengthOf(m *machine, v Value) (int, bool) {
	switch v := v.(type) {
	case string:
		m.work(len(v))
		return utf8.RuneCountInString(v), true
	case markup:
		return utf8.RuneCountInString(string(v)), true
	case *List:
		return len(v.items), true
	case *tuple:
		return len(v.items), true
	case *Dict:
		return v.Len(), true
	case *view:
		return v.dict.Len(), true
	case *interval:
		return v.len(), true
	case *undefined:
		return 0, true
	}
	return 0, false
}

func (m *machine) length(v Value) int {
	n, ok := lengthOf(m, v)
	if !ok {
		typeError("object of type '%s' has no len()", typeName(v))
	}
	return n
}

// reversed is Python's reversed(v): nil when v cannot be read backwards.
func (m *machine) reversed(v Value) *generator {
	var items []Value
	switch v := v.(type) {
	case *List:
		items = v.items
	case *tuple:
		items = v.items
	case *Dict:
		items = v.keys
	case *interval:
		items = m.gather(v)
	case *view:
		items = m.gather(v)
	case *undefined:
	case string, markup:
		items = m.gather(v)
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
