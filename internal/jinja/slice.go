package jinja

import "math/big"

// compileSlice compiles x[start:stop:step].
func (c *compiler) compileSlice(n *sliceNode, x expr, s scope) expr {
	part := func(n node) expr {
		if n == nil {
			return func(*machine, *frame) Value { return None }
		}
		return c.compileExpr(n, s)
	}
	start, stop, step := part(n.start), part(n.stop), part(n.step)
	return func(m *machine, f *frame) Value {
		v := x(m, f)
		a, b := start(m, f), stop(m, f)
		return m.sliceValue(v, a, b, step(m, f))
	}
}

// sliceRange is a slice resolved for a length; n is the number of its items.
type sliceRange struct{ start, stop, step, n int }

func (m *machine) sliceValue(v, start, stop, step Value) Value {
	switch v := v.(type) {
	case *List:
		return &List{sliceItems(m, v.items, resolveSlice(len(v.items), start, stop, step))}
	case *tuple:
		return &tuple{items: sliceItems(m, v.items, resolveSlice(len(v.items), start, stop, step))}
	case string:
		return m.sliceText(v, start, stop, step)
	case markup:
		return markup(m.sliceText(string(v), start, stop, step))
	case *rangeValue:
		at := resolveSlice(v.len(), start, stop, step)
		return &rangeValue{v.start + at.start*v.step, v.start + at.stop*v.step, at.step * v.step}
	case *undefined:
		v.fail()
	case *Dict:
		failType("unhashable type: 'slice'")
	}
	failType("'%s' object is not subscriptable", typeName(v))
	return nil
}

func (m *machine) sliceText(s string, start, stop, step Value) string {
	m.payWork(len(s))
	if isASCII(s) {
		at := resolveSlice(len(s), start, stop, step)
		if at.step == 1 {
			return s[at.start : at.start+at.n]
		}
		m.payMemory(at.n)
		out := make([]byte, at.n)
		for i := range out {
			out[i] = s[at.start+i*at.step]
		}
		return string(out)
	}
	m.payMemory(4 * len(s))
	runes := []rune(s)
	return string(sliceItems(m, runes, resolveSlice(len(runes), start, stop, step)))
}

func sliceItems[T any](m *machine, items []T, at sliceRange) []T {
	if at.step == 1 {
		return items[at.start : at.start+at.n : at.start+at.n]
	}
	m.payItems(at.n)
	out := make([]T, at.n)
	for i := range out {
		out[i] = items[at.start+i*at.step]
	}
	return out
}

// resolveSlice is Python's slice.indices.
func resolveSlice(n int, start, stop, step Value) sliceRange {
	by := 1
	if step != None {
		by = sliceIndex(step)
		if by == 0 {
			failValue("slice step cannot be zero")
		}
	}
	low, high := 0, n
	if by < 0 {
		low, high = -1, n-1
	}
	bound := func(v Value, unset int) int {
		if v == None {
			return unset
		}
		i := sliceIndex(v)
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	first, last := low, high
	if by < 0 {
		first, last = high, low
	}
	r := rangeValue{bound(start, first), bound(stop, last), by}
	return sliceRange{r.start, r.stop, by, r.len()}
}

func sliceIndex(v Value) int {
	switch v := v.(type) {
	case int, bool, *big.Int:
		i, _ := indexOf(v)
		return i
	}
	failType("slice indices must be integers or None or have an __index__ method")
	return 0
}
