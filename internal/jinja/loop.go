package jinja

import "slices"

// loop is the variable "loop" of a for loop.
type loop struct {
	iterable Value
	from     iterator
	list     listIterator // what from is, over a list
	index0   int
	size     int // -1 until it is known
	after    Value
	current  Value
	before   Value
	recurse  func(m *machine, items Value, depth int) string
	depth0   int
	changed  Value
}

func newLoop(v Value, from iterator) *loop {
	return &loop{iterable: v, from: from, index0: -1, size: -1}
}

// advance goes to the next item.
func (l *loop) advance(m *machine) (Value, bool) {
	v := l.after
	if v == nil {
		var ok bool
		if v, ok = l.from.next(m); !ok {
			return nil, false
		}
	}
	l.after = nil
	l.index0++
	l.before, l.current = l.current, v
	return v, true
}

func (l *loop) peek(m *machine) Value {
	if l.after == nil {
		l.after, _ = l.from.next(m)
	}
	return l.after
}

func (l *loop) length(m *machine) int {
	if l.size >= 0 {
		return l.size
	}
	if l.iterable != nil {
		if n, ok := lengthOf(m, l.iterable); ok {
			l.size = n
			return n
		}
	}
	var rest []Value
	for {
		v, ok := l.from.next(m)
		if !ok {
			break
		}
		m.step()
		rest = append(rest, v)
	}
	l.from = &sliceIterator{items: rest}
	l.size = len(rest) + l.index0 + 1
	if l.after != nil {
		l.size++
	}
	return l.size
}

// attribute gives loop.name, nil when there is none.
func (l *loop) attribute(m *machine, name string) Value {
	switch name {
	case "index0":
		return l.index0
	case "index":
		return l.index0 + 1
	case "first":
		return l.index0 == 0
	case "last":
		return l.peek(m) == nil
	case "length":
		return l.length(m)
	case "revindex0":
		return l.length(m) - l.index0 - 1
	case "revindex":
		return l.length(m) - l.index0
	case "depth0":
		return l.depth0
	case "depth":
		return l.depth0 + 1
	case "previtem":
		if l.index0 == 0 {
			return &undefined{hint: "there is no previous item"}
		}
		return l.before
	case "nextitem":
		if v := l.peek(m); v != nil {
			return v
		}
		return &undefined{hint: "there is no next item"}
	case "cycle":
		return newFunction("cycle", l.cycle)
	case "changed":
		return newFunction("changed", l.hasChanged)
	}
	return nil
}

func (l *loop) cycle(m *machine, a args) Value {
	a.noKeywords("LoopContext.cycle")
	if len(a.pos) == 0 {
		typeError("no items for cycling given")
	}
	return a.pos[l.index0%len(a.pos)]
}

func (l *loop) hasChanged(m *machine, a args) Value {
	a.noKeywords("LoopContext.changed")
	now := &tuple{items: a.pos}
	if l.changed != nil && equal(m, l.changed, now) {
		return false
	}
	l.changed = now
	return true
}

func (l *loop) call(m *machine, a args) Value {
	got := a.bind("LoopContext.__call__", 1, "iterable")
	if l.recurse == nil {
		typeError("The loop must have the 'recursive' marker to be called recursively.")
	}
	return l.recurse(m, got[0], l.depth0+1)
}

// forCode is a compiled for loop.
type forCode struct {
	line      int
	filter    func(m *machine, outer *frame, v Value) iterator // nil without "if"
	filterUp  int
	put       store
	slot      int // of the variable loop; -1 when the body does not use it
	enter     stmt
	body      []stmt
	leave     []int
	otherwise []stmt
	elseLeave []int
}

func (c *compiler) forLoop(n *forNode, s scope) stmt {
	refuseLoopTarget(c, n)
	inner, otherwise := s.inner(), s.inner()
	code := &forCode{line: n.line, slot: -1}
	extended := n.recursive || len(undeclared(n.body, "loop")) > 0
	if extended {
		inner.parameter("loop")
	}
	inner.seeTarget(n.target)
	inner.seeAll(n.body)
	otherwise.seeAll(n.otherwise)
	if n.test != nil {
		code.filter = c.loopFilter(n, s)
	}
	iter := c.expr(n.iter, s)
	if n.recursive {
		code.filterUp = 1
		inner = inner.activate()
		otherwise.in = inner.in
	}
	if extended {
		_, code.slot = c.placeName("loop", n.line, inner)
	}
	code.put = c.store(n.target, inner)
	inner.in.loops++
	if inner.in.loops > 20 {
		c.fail(n.line, "too many statically nested blocks")
	}
	code.enter = c.enter(inner)
	code.body = c.body(n.body, inner)
	code.leave = c.leave(inner)
	inner.in.loops--
	if n.otherwise != nil {
		code.otherwise, code.elseLeave = c.scoped(n.otherwise, otherwise)
	}
	if n.recursive {
		return code.recursive(iter, inner.in)
	}
	return func(m *machine, f *frame) flow {
		m.line = n.line
		return code.run(m, f, iter(m, f), nil, 0)
	}
}

func refuseLoopTarget(c *compiler, n node) {
	children(n, func(child node) {
		if name, is := child.(*nameNode); is && name.use == useStore && name.name == "loop" {
			c.fail(name.line, "Can't assign to special loop variable in for-loop target")
		}
		refuseLoopTarget(c, child)
	})
}

// loopFilter compiles "for ... if": a generator with variables of its own.
func (c *compiler) loopFilter(n *forNode, s scope) func(*machine, *frame, Value) iterator {
	test := s.inner()
	test.seeTarget(n.target)
	test.see(n.test)
	test = test.activate()
	enter := c.enter(test)
	put := c.store(n.target, test)
	keep := c.cond(n.test, test)
	_, isTuple := n.target.(*tupleNode)
	in := test.in
	return func(m *machine, outer *frame, v Value) iterator {
		f := newFrame(len(in.slots), outer)
		if enter != nil {
			enter(m, f)
		}
		from := m.iterate(v)
		next := func() (Value, bool) {
			for {
				item, ok := from.next(m)
				if !ok {
					return nil, false
				}
				m.step()
				put(m, f, item)
				if !keep(m, f) {
					continue
				}
				if isTuple {
					item = &tuple{items: slices.Clone(m.unpack(item, len(n.target.(*tupleNode).items)))}
				}
				return item, true
			}
		}
		return newGenerator(next)
	}
}

// run goes through the items, then through "else" if that is due.
func (code *forCode) run(m *machine, f *frame, items Value, recurse func(*machine, Value, int) string, depth int) flow {
	var from iterator
	list, isList := items.(*List)
	if code.filter != nil {
		from = code.filter(m, f.up(code.filterUp), items)
		items, isList = nil, false
	} else if !isList {
		from = m.iterate(items)
	}
	var l *loop
	if code.slot >= 0 {
		l = newLoop(items, from)
		l.recurse, l.depth0 = recurse, depth
		if isList {
			l.list.list = list
			l.from = &l.list
		}
	}
	var whole bool
	if l == nil && isList {
		whole = code.overList(m, f, list)
	} else {
		whole = code.over(m, f, from, l)
	}
	f.forget(code.leave)
	if whole || code.otherwise == nil {
		return flowOn
	}
	end := m.run(code.otherwise, f)
	f.forget(code.elseLeave)
	return end
}

// over tells whether an iteration ran to its end: without one, "else" runs,
// even after a break.
func (code *forCode) over(m *machine, f *frame, from iterator, l *loop) (whole bool) {
	for {
		var item Value
		var ok bool
		if l != nil {
			item, ok = l.advance(m)
		} else {
			item, ok = from.next(m)
		}
		if !ok {
			return whole
		}
		end := code.once(m, f, item, l)
		if end == flowBreak {
			return whole
		}
		whole = whole || end == flowOn
	}
}

// overList is over for the most usual loop.
func (code *forCode) overList(m *machine, f *frame, list *List) (whole bool) {
	for i := 0; i < len(list.items); i++ {
		end := code.once(m, f, list.items[i], nil)
		if end == flowBreak {
			return whole
		}
		whole = whole || end == flowOn
	}
	return whole
}

func (code *forCode) once(m *machine, f *frame, item Value, l *loop) flow {
	m.step()
	code.put(m, f, item)
	if l != nil {
		f.slots[code.slot] = l
	}
	if code.enter != nil {
		code.enter(m, f)
	}
	return m.run(code.body, f)
}

// recursive makes a loop that can be called.
func (code *forCode) recursive(iter expr, in *activation) stmt {
	return func(m *machine, outer *frame) flow {
		m.line = code.line
		var recurse func(m *machine, items Value, depth int) string
		recurse = func(m *machine, items Value, depth int) string {
			m.enter()
			f := newFrame(len(in.slots), outer)
			start := len(m.out)
			code.run(m, f, items, recurse, depth)
			m.leave()
			return m.take(start)
		}
		m.out = append(m.out, recurse(m, iter(m, outer), 0)...)
		return flowOn
	}
}
