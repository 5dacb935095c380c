package jinja

import (
	"math"
	"math/big"
	"strings"
)

// compareValues returns the result of a op b.
func compareValues(m *machine, op string, a, b Value) bool {
	switch op {
	case "==":
		return isEqual(m, a, b)
	case "!=":
		return !isEqual(m, a, b)
	case "in":
		return containsValue(m, b, a)
	case "not in":
		return !containsValue(m, b, a)
	}
	return isOrdered(m, op, a, b)
}

// isEqual returns a == b.
func isEqual(m *machine, a, b Value) bool { return isEqualAt(m, a, b, 0) }

func isEqualAt(m *machine, a, b Value, depth int) bool {
	switch x := a.(type) {
	case string:
		switch y := b.(type) {
		case string:
			if len(x) > 1024 && len(x) == len(y) {
				m.payWork(len(x))
			}
			return x == y
		case markup:
			return x == string(y)
		}
		return false
	case markup:
		y, is := asText(b)
		return is && string(x) == y
	case bool, int, float64, *big.Int:
		return isNumber(b) && compareNumbers(a, b) == 0
	case *undefined:
		_, is := b.(*undefined)
		return is
	case *List:
		y, is := b.(*List)
		return is && (x == y || isEqualItems(m, x.items, y.items, depth))
	case *tuple:
		y, is := b.(*tuple)
		return is && (x == y || isEqualItems(m, x.items, y.items, depth))
	case *Dict:
		y, is := b.(*Dict)
		return is && (x == y || isEqualDicts(m, x, y, depth))
	case *rangeValue:
		y, is := b.(*rangeValue)
		return is && isEqualItems(m, m.copyItems(x), m.copyItems(y), depth)
	}
	return a == b
}

func isEqualItems(m *machine, a, b []Value, depth int) bool {
	m.checkNesting(depth)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		m.payStep()
		if !isEqualAt(m, a[i], b[i], depth+1) {
			return false
		}
	}
	return true
}

func isEqualDicts(m *machine, a, b *Dict, depth int) bool {
	m.checkNesting(depth)
	if a.Len() != b.Len() {
		return false
	}
	for i, key := range a.keys {
		m.payStep()
		v, ok := b.findValue(m, key)
		if !ok || !isEqualAt(m, a.values[i], v, depth+1) {
			return false
		}
	}
	return true
}

// compareNumbers returns -1, 0 or 1 for a < b, a == b and a > b, and 2 when
// one of them is NaN.
func compareNumbers(a, b Value) int {
	x, aFloat := a.(float64)
	y, bFloat := b.(float64)
	switch {
	case aFloat && bFloat:
		return compareFloats(x, y)
	case aFloat:
		return compareMixed(x, bigOf(b), 1)
	case bFloat:
		return compareMixed(y, bigOf(a), -1)
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

func compareFloats(x, y float64) int {
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

// compareMixed compares a float with an integer exactly. sign is -1 when the
// operands are swapped.
func compareMixed(x float64, n *big.Int, sign int) int {
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

// isOrdered returns the result of a op b for <, <=, > and >=.
func isOrdered(m *machine, op string, a, b Value) bool {
	c, ok := compareSequences(m, op, a, b, 0)
	if !ok {
		requireDefined(a, b)
		failType("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
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

func compareSequences(m *machine, op string, a, b Value, depth int) (int, bool) {
	if isNumber(a) && isNumber(b) {
		return compareNumbers(a, b), true
	}
	if x, is := asText(a); is {
		y, is := asText(b)
		m.payWork(min(len(x), len(y)))
		return strings.Compare(x, y), is
	}
	switch x := a.(type) {
	case *List:
		if y, is := b.(*List); is {
			return compareItems(m, op, x.items, y.items, depth), true
		}
	case *tuple:
		if y, is := b.(*tuple); is {
			return compareItems(m, op, x.items, y.items, depth), true
		}
	}
	return 0, false
}

// compareItems compares the first items that differ; without such items, the
// shorter list is less.
func compareItems(m *machine, op string, a, b []Value, depth int) int {
	m.checkNesting(depth)
	for i := range min(len(a), len(b)) {
		m.payStep()
		if isEqualAt(m, a[i], b[i], depth+1) {
			continue
		}
		c, ok := compareSequences(m, op, a[i], b[i], depth+1)
		if !ok {
			requireDefined(a[i], b[i])
			failType("'%s' not supported between instances of '%s' and '%s'", op, typeName(a[i]), typeName(b[i]))
		}
		return c
	}
	return compareFloats(float64(len(a)), float64(len(b)))
}

// containsValue returns x in container.
func containsValue(m *machine, container, x Value) bool {
	switch c := container.(type) {
	case string:
		return m.containsText(c, x)
	case markup:
		return m.containsText(string(c), x)
	case *Dict:
		_, ok := c.findValue(m, x)
		return ok
	case *dictView:
		if c.kind == "keys" {
			_, ok := c.dict.findValue(m, x)
			return ok
		}
	}
	it := iteratorOf(container)
	if it == nil {
		failType("argument of type '%s' is not iterable", typeName(container))
	}
	for {
		item, ok := it.next(m)
		if !ok {
			return false
		}
		m.payWork(32)
		if isEqual(m, item, x) {
			return true
		}
	}
}

func (m *machine) containsText(s string, x Value) bool {
	part, is := asText(x)
	if !is {
		failType("'in <string>' requires string as left operand, not %s", typeName(x))
	}
	m.payWork(len(s))
	return strings.Contains(s, part)
}
