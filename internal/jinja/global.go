package jinja

import "math/big"

// globals are the functions that every template can call.
var globals map[string]Value

func init() {
	globals = map[string]Value{
		"range":           newFunction("safe_range", callRange),
		"dict":            dictType,
		"namespace":       &function{name: "Namespace", call: func(m *machine, a args) Value { return &namespace{m.buildDict("dict", a)} }},
		"cycler":          newFunction("Cycler", newCycler),
		"joiner":          newFunction("Joiner", newJoiner),
		"raise_exception": newFunction("raise_exception", callRaiseException),
		"strftime_now":    newFunction("<lambda>", callStrftimeNow),
	}
}

// dictType is Python's type dict.
var dictType = newFunction("dict", func(m *machine, a args) Value { return m.buildDict("dict", a) })

// maxRange is jinja2.sandbox.MAX_RANGE.
const maxRange = 100_000

func callRange(m *machine, a args) Value {
	a.refuseKeywords("range")
	if len(a.pos) == 0 {
		failType("range expected at least 1 argument, got 0")
	}
	if len(a.pos) > 3 {
		failType("range expected at most 3 arguments, got %d", len(a.pos))
	}
	n := make([]int, len(a.pos))
	for i, v := range a.pos {
		if _, is := v.(*big.Int); is {
			failRuntime("OverflowError", "Python int too large to convert to C ssize_t")
		}
		n[i] = intArg(v)
		if n[i] > 1<<60 || n[i] < -1<<60 {
			failRuntime("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
		}
	}
	r := &rangeValue{step: 1}
	switch len(n) {
	case 1:
		r.stop = n[0]
	case 3:
		r.step = n[2]
		fallthrough
	case 2:
		r.start, r.stop = n[0], n[1]
	}
	if r.step == 0 {
		failValue("range() arg 3 must not be zero")
	}
	if r.len() > maxRange {
		failRuntime("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	return r
}

// buildDict implements dict(...) and the arguments of namespace(...).
func (m *machine) buildDict(name string, a args) *Dict {
	d := NewDict()
	if len(a.pos) > 1 {
		failType("%s expected at most 1 argument, got %d", name, len(a.pos))
	}
	if len(a.pos) == 1 {
		requireDefined(a.pos[0])
		m.fillDict(d, a.pos[0])
	}
	for _, k := range a.kw {
		d.Set(k.name, k.value)
	}
	return d
}

func (m *machine) fillDict(d *Dict, from Value) {
	if src, is := from.(*Dict); is {
		m.payItems(2 * src.Len())
		for i, key := range src.keys {
			d.setValue(m, key, src.values[i])
		}
		return
	}
	for i, item := range m.copyItems(from) {
		m.payStep()
		if iteratorOf(item) == nil {
			failType("cannot convert dictionary update sequence element #%d to a sequence", i)
		}
		kv := m.copyItems(item)
		if len(kv) != 2 {
			failValue("dictionary update sequence element #%d has length %d; 2 is required", i, len(kv))
		}
		d.setValue(m, kv[0], kv[1])
	}
}

// callRaiseException implements raise_exception(message).
func callRaiseException(m *machine, a args) Value {
	panic(&Error{Kind: KindRaise, Message: m.str(a.bindNames("raise_exception", 1, "m")[0])})
}

func callStrftimeNow(m *machine, a args) Value {
	format, is := asText(a.bindNames("<lambda>", 1, "f")[0])
	if !is {
		failType("strftime() argument 1 must be str, not %s", typeName(a.bindNames("<lambda>", 1, "f")[0]))
	}
	return m.formatTime(format)
}

// cycler returns its items in turn, over and over.
type cycler struct {
	items []Value
	at    int
}

func newCycler(m *machine, a args) Value {
	a.refuseKeywords("Cycler.__init__")
	if len(a.pos) == 0 {
		failRuntime("RuntimeError", "at least one item has to be provided")
	}
	return &cycler{items: a.pos}
}

func (c *cycler) getAttribute(name string) Value {
	switch name {
	case "current":
		return c.items[c.at]
	case "pos":
		return c.at
	case "items":
		return &tuple{items: c.items}
	case "next":
		return &function{name: "next", call: func(m *machine, a args) Value {
			a.requirePositional("Cycler.next", 0, 0)
			v := c.items[c.at]
			c.at = (c.at + 1) % len(c.items)
			return v
		}}
	case "reset":
		return &function{name: "reset", call: func(m *machine, a args) Value {
			a.requirePositional("Cycler.reset", 0, 0)
			c.at = 0
			return None
		}}
	}
	return nil
}

// joiner returns an empty text on its first call and its separator afterwards.
type joiner struct {
	separator Value
	used      bool
}

func newJoiner(m *machine, a args) Value {
	j := &joiner{separator: ", "}
	if got := a.bindNames("Joiner.__init__", 0, "sep"); got[0] != nil {
		j.separator = got[0]
	}
	return j
}

func (j *joiner) joinNext(a args) Value {
	a.requirePositional("Joiner.__call__", 0, 0)
	if !j.used {
		j.used = true
		return ""
	}
	return j.separator
}
