package jinja

import "math/big"

// globals are what every template can call.
var globals map[string]Value

func init() {
	globals = map[string]Value{
		"range":           newFunction("safe_range", rangeGlobal),
		"dict":            &function{name: "dict", call: func(m *machine, a args) Value { return m.dictOf("dict", a) }},
		"namespace":       &function{name: "Namespace", call: func(m *machine, a args) Value { return &namespace{m.dictOf("dict", a)} }},
		"cycler":          newFunction("Cycler", newCycler),
		"joiner":          newFunction("Joiner", newJoiner),
		"raise_exception": newFunction("raise_exception", raiseGlobal),
		"strftime_now":    newFunction("<lambda>", strftimeGlobal),
	}
}

// maxRange is jinja2.sandbox.MAX_RANGE.
const maxRange = 100_000

func rangeGlobal(m *machine, a args) Value {
	a.noKeywords("range")
	if len(a.pos) == 0 {
		typeError("range expected at least 1 argument, got 0")
	}
	if len(a.pos) > 3 {
		typeError("range expected at most 3 arguments, got %d", len(a.pos))
	}
	n := make([]int, len(a.pos))
	for i, v := range a.pos {
		if _, is := v.(*big.Int); is {
			fail("OverflowError", "Python int too large to convert to C ssize_t")
		}
		n[i] = intArg(v)
		if n[i] > 1<<60 || n[i] < -1<<60 {
			fail("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
		}
	}
	r := &interval{step: 1}
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
		valueError("range() arg 3 must not be zero")
	}
	if r.len() > maxRange {
		fail("OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", maxRange)
	}
	return r
}

// dictOf is dict(...).
func (m *machine) dictOf(name string, a args) *Dict {
	d := NewDict()
	if len(a.pos) > 1 {
		typeError("%s expected at most 1 argument, got %d", name, len(a.pos))
	}
	if len(a.pos) == 1 {
		mustDefine(a.pos[0])
		m.fillDict(d, a.pos[0])
	}
	for _, k := range a.kw {
		d.Set(k.name, k.value)
	}
	return d
}

func (m *machine) fillDict(d *Dict, from Value) {
	if src, is := from.(*Dict); is {
		m.holdItems(2 * src.Len())
		for i, key := range src.keys {
			d.set(m, key, src.values[i])
		}
		return
	}
	for i, item := range m.gather(from) {
		m.step()
		if iteratorOf(item) == nil {
			typeError("cannot convert dictionary update sequence element #%d to a sequence", i)
		}
		kv := m.gather(item)
		if len(kv) != 2 {
			valueError("dictionary update sequence element #%d has length %d; 2 is required", i, len(kv))
		}
		d.set(m, kv[0], kv[1])
	}
}

// raiseGlobal is how a template refuses what it was given.
func raiseGlobal(m *machine, a args) Value {
	panic(&Error{Kind: KindRaise, Message: m.str(a.bind("raise_exception", 1, "m")[0])})
}

func strftimeGlobal(m *machine, a args) Value {
	format, is := text(a.bind("<lambda>", 1, "f")[0])
	if !is {
		typeError("strftime() argument 1 must be str, not %s", typeName(a.bind("<lambda>", 1, "f")[0]))
	}
	return m.strftime(format)
}

// cycler goes through its items over and over.
type cycler struct {
	items []Value
	at    int
}

func newCycler(m *machine, a args) Value {
	a.noKeywords("Cycler.__init__")
	if len(a.pos) == 0 {
		fail("RuntimeError", "at least one item has to be provided")
	}
	return &cycler{items: a.pos}
}

func (c *cycler) attribute(name string) Value {
	switch name {
	case "current":
		return c.items[c.at]
	case "pos":
		return c.at
	case "items":
		return &tuple{items: c.items}
	case "next":
		return &function{name: "next", call: func(m *machine, a args) Value {
			a.positional("Cycler.next", 0, 0)
			v := c.items[c.at]
			c.at = (c.at + 1) % len(c.items)
			return v
		}}
	case "reset":
		return &function{name: "reset", call: func(m *machine, a args) Value {
			a.positional("Cycler.reset", 0, 0)
			c.at = 0
			return None
		}}
	}
	return nil
}

// joiner gives nothing when it is first called, then its separator.
type joiner struct {
	separator Value
	used      bool
}

func newJoiner(m *machine, a args) Value {
	j := &joiner{separator: ", "}
	if got := a.bind("Joiner.__init__", 0, "sep"); got[0] != nil {
		j.separator = got[0]
	}
	return j
}

func (j *joiner) call(a args) Value {
	a.positional("Joiner.__call__", 0, 0)
	if !j.used {
		j.used = true
		return ""
	}
	return j.separator
}
