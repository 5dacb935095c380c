package jinja

import (
	"math"
	"math/big"
	"strings"
)

// compare is a op b.
func compare(m *machine, op string, a, b Value) bool {
	switch op {
	case "==":
		return equal(m, a, b)
	case "!=":
		return !equal(m, a, b)
	case "in":
		return contains(m, b, a)
	case "not in":
		return !contains(m, b, a)
	}
	return ordered(m, op, a, b)
}

// equal is a == b.
func equal(m *machine, a, b Value) bool { return equalAt(m, a, b, 0) }

func equalAt(m *machine, a, b Value, depth int) bool {
	switch x := a.(type) {
	case string:
		switch y := b.(type) {
		case string:
			if len(x) > 1024 && len(x) == len(y) {
				m.work(len(x))
			}
			return x == y
		case markup:
			return x == string(y)
		}
		return false
	case markup:
		y, is := text(b)
		return is && string(x) == y
	case bool, int, float64, *big.Int:
		return isNumber(b) && order(a, b) == 0
	case *undefined:
		_, is := b.(*undefined)
		return is
	case *List:
		y, is := b.(*List)
		return is && (x == y || equalItems(m, x.items, y.items, depth))
	case *tuple:
		y, is := b.(*tuple)
		return is && (x == y || equalItems(m, x.items, y.items, depth))
	case *Dict:
		y, is := b.(*Dict)
		return is && (x == y || equalDicts(m, x, y, depth))
	case *interval:
		y, is := b.(*interval)
		return is && equalItems(m, m.gather(x), m.gather(y), depth)
	}
	return a == b
}

func equalItems(m *machine, a, b []Value, depth int) bool {
	m.nest(depth)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		m.step()
		if !equalAt(m, a[i], b[i], depth+1) {
			return false
		}
	}
	return true
}

func equalDicts(m *machine, a, b *Dict, depth int) bool {
	m.nest(depth)
	if a.Len() != b.Len() {
		return false
	}
	for i, key := range a.keys {
		m.step()
		v, ok := b.find(m, key)
		if !ok || !equalAt(m, a.values[i], v, depth+1) {
			return false
		}
	}
	return true
}

// order compares numbers: -1, 0, 1, or 2 when one is NaN.
func order(a, b Value) int {
	x, aFloat := a.(float64)
	y, bFloat := b.(float64)
	switch {
	case aFloat && bFloat:
		return orderFloats(x, y)
	case aFloat:
		return orderMixed(x, bigOf(b), 1)
	case bFloat:
		return orderMixed(y, bigOf(a), -1)
	}
	i, isInt := toInt(a).(int)
	j, isInt2 := toInt(b).(int)
	if isInt && isInt2 {
		switch {
		case i < j:
			return -1
		case i > j:
			return 1
		}
		return 0
	}
	return bigOf(a).Cmp(bigOf(b))
}

func orderFloats(x, y float64) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	case x == y:
		return 0
	}
	return 2
}

// orderMixed compares a float with an integer, exactly.
func orderMixed(x float64, n *big.Int, sign int) int {
	switch {
	case math.IsNaN(x):
		return 2
	case math.IsInf(x, 0):
		if x > 0 {
			return sign
		}
		return -sign
	}
	return sign * new(big.Float).SetFloat64(x).Cmp(new(big.Float).SetInt(n))
}

// ordered is a < b and its like.
func ordered(m *machine, op string, a, b Value) bool {
	c, ok := orderOf(m, op, a, b, 0)
	if !ok {
		mustDefine(a, b)
		typeError("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	switch op {
	case "<":
		return c == -1
	case "<=":
		return c == -1 || c == 0
	case ">":
		return c == 1
	}
	return c == 1 || c == 0
}

func orderOf(m *machine, op string, a, b Value, depth int) (int, bool) {
	if isNumber(a) && isNumber(b) {
		return order(a, b), true
	}
	if x, is := text(a); is {
		y, is := text(b)
		m.work(min(len(x), len(y)))
		return strings.Compare(x, y), is
	}
	switch x := a.(type) {
	case *List:
		if y, is := b.(*List); is {
			return orderItems(m, op, x.items, y.items, depth), true
		}
	case *tuple:
		if y, is := b.(*tuple); is {
			return orderItems(m, op, x.items, y.items, depth), true
		}
	}
	return 0, false
}

// orderItems finds the first items that differ, and compares those.
func orderItems(m *machine, op string, a, b []Value, depth int) int {
	m.nest(depth)
	for i := range min(len(a), len(b)) {
		m.step()
		if equalAt(m, a[i], b[i], depth+1) {
			continue
		}
		c, ok := orderOf(m, op, a[i], b[i], depth+1)
		if !ok {
			mustDefine(a[i], b[i])
			typeError("'%s' not supported between instances of '%s' and '%s'", op, typeName(a[i]), typeName(b[i]))
		}
		return c
	}
	return orderFloats(float64(len(a)), float64(len(b)))
}

// contains is x in container.
func contains(m *machine, container, x Value) bool {
	switch c := container.(type) {
	case string:
		return m.hasText(c, x)
	case markup:
		return m.hasText(string(c), x)
	case *Dict:
		_, ok := c.find(m, x)
		return ok
	case *view:
		if c.what == "keys" {
			_, ok := c.dict.find(m, x)
			return ok
		}
	}
	it := iteratorOf(container)
	if it == nil {
		typeError("argument of type '%s' is not iterable", typeName(container))
	}
	for {
		item, ok := it.next(m)
		if !ok {
			return false
		}
		m.work(32)
		if equal(m, item, x) {
			return true
		}
	}
}

func (m *machine) hasText(s string, x Value) bool {
	part, is := text(x)
	if !is {
		typeError("'in <string>' requires string as left operand, not %s", typeName(x))
	}
	m.work(len(s))
	return strings.Contains(s, part)
}
