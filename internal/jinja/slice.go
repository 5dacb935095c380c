package jinja

import "math/big"

// slice compiles x[start:stop:step].
func (c *compiler) slice(n *sliceNode, x expr, s scope) expr {
	part := func(n node) expr {
		if n == nil {
			return func(*machine, *frame) Value { return None }
		}
		return c.expr(n, s)
	}
	start, stop, step := part(n.start), part(n.stop), part(n.step)
	return func(m *machine, f *frame) Value {
		v := x(m, f)
		a, b := start(m, f), stop(m, f)
		return m.slice(v, a, b, step(m, f))
	}
}

// span is a slice that was fitted to a length.
type span struct{ start, stop, step, n int }

func (m *machine) slice(v, start, stop, step Value) Value {
	switch v := v.(type) {
	case *List:
		return &List{take(m, v.items, fit(len(v.items), start, stop, step))}
	case *tuple:
		return &tuple{items: take(m, v.items, fit(len(v.items), start, stop, step))}
	case string:
		return m.substring(v, start, stop, step)
	case markup:
		return markup(m.substring(string(v), start, stop, step))
	case *interval:
		at := fit(v.len(), start, stop, step)
		return &interval{v.start + at.start*v.step, v.start + at.stop*v.step, at.step * v.step}
	case *undefined:
		v.fail()
	case *Dict:
		typeError("unhashable type: 'slice'")
	}
	typeError("'%s' object is not subscriptable", typeName(v))
	return nil
}

func (m *machine) substring(s string, start, stop, step Value) string {
	m.work(len(s))
	if isASCII(s) {
		at := fit(len(s), start, stop, step)
		if at.step == 1 {
			return s[at.start : at.start+at.n]
		}
		m.hold(at.n)
		out := make([]byte, at.n)
		for i := range out {
			out[i] = s[at.start+i*at.step]
		}
		return string(out)
	}
	m.hold(4 * len(s))
	runes := []rune(s)
	return string(take(m, runes, fit(len(runes), start, stop, step)))
}

func take[T any](m *machine, items []T, at span) []T {
	if at.step == 1 {
		return items[at.start : at.start+at.n : at.start+at.n]
	}
	m.holdItems(at.n)
	out := make([]T, at.n)
	for i := range out {
		out[i] = items[at.start+i*at.step]
	}
	return out
}

// fit is Python's slice.indices.
func fit(n int, start, stop, step Value) span {
	by := 1
	if step != None {
		by = sliceIndex(step)
		if by == 0 {
			valueError("slice step cannot be zero")
		}
	}
	low, high := 0, n
	if by < 0 {
		low, high = -1, n-1
	}
	bound := func(v Value, otherwise int) int {
		if v == None {
			return otherwise
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
	r := interval{bound(start, first), bound(stop, last), by}
	return span{r.start, r.stop, by, r.len()}
}

func sliceIndex(v Value) int {
	switch v := v.(type) {
	case int, bool, *big.Int:
		i, _ := indexOf(v)
		return i
	}
	typeError("slice indices must be integers or None or have an __index__ method")
	return 0
}
