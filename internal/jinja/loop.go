package jinja

import "slices"

// loopVar is the variable loop of a for loop.
type loopVar struct {
	iterable Value
	from     iterator
	list     listIterator // storage of from for a loop over a list
	index0   int
	size     int // -1 until computed
	after    Value
	current  Value
	before   Value
	recurse  func(m *machine, items Value, depth int) string
	depth0   int
	changed  Value
}

func newLoop(v Value, from iterator) *loopVar {
	return &loopVar{iterable: v, from: from, index0: -1, size: -1}
}

// advanceItem moves to the next item.
func (l *loopVar) advanceItem(m *machine) (Value, bool) {
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

func (l *loopVar) peekNext(m *machine) Value {
	if l.after == nil {
		l.after, _ = l.from.next(m)
	}
	return l.after
}

func (l *loopVar) countItems(m *machine) int {
	if l.size >= 0 {
		return l.size
	}
	if l.iterable != nil {
		if n, ok := lengthIfAny(m, l.iterable); ok {
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
		m.payStep()
		rest = append(rest, v)
	}
	l.from = &sliceIterator{items: rest}
	l.size = len(rest) + l.index0 + 1
	if l.after != nil {
		l.size++
	}
	return l.size
}

// getAttribute returns loop.name, or nil.
func (l *loopVar) getAttribute(m *machine, name string) Value {
	switch name {
	case "index0":
		return l.index0
	case "index":
		return l.index0 + 1
	case "first":
		return l.index0 == 0
	case "last":
		return l.peekNext(m) == nil
	case "length":
		return l.countItems(m)
	case "revindex0":
		return l.countItems(m) - l.index0 - 1
	case "revindex":
		return l.countItems(m) - l.index0
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
		if v := l.peekNext(m); v != nil {
			return v
		}
		return &undefined{hint: "there is no next item"}
	case "cycle":
		return newFunction("cycle", l.pickCycle)
	case "changed":
		return newFunction("changed", l.hasChanged)
	}
	return nil
}

func (l *loopVar) pickCycle(m *machine, a args) Value {
	a.refuseKeywords("LoopContext.cycle")
	if len(a.pos) == 0 {
		failType("no items for cycling given")
	}
	return a.pos[l.index0%len(a.pos)]
}

func (l *loopVar) hasChanged(m *machine, a args) Value {
	a.refuseKeywords("LoopContext.changed")
	now := &tuple{items: a.pos}
	if l.changed != nil && isEqual(m, l.changed, now) {
		return false
	}
	l.changed = now
	return true
}

func (l *loopVar) callRecursively(m *machine, a args) Value {
	got := a.bindNames("LoopContext.__call__", 1, "iterable")
	if l.recurse == nil {
		failType("The loop must have the 'recursive' marker to be called recursively.")
	}
	return l.recurse(m, got[0], l.depth0+1)
}

// forCode is a compiled for loop.
type forCode struct {
	line      int
	filter    func(m *machine, outer *frame, v Value) iterator // nil without "if"
	filterUp  int
	assign    assignFunc
	loopSlot  int // slot of the variable loop; -1 when the body does not use it
	load      stmt
	body      []stmt
	slots     []int
	otherwise []stmt
	elseSlots []int
}

func (c *compiler) compileFor(n *forNode, s scope) stmt {
	checkLoopTarget(c, n)
	inner, otherwise := s.newInner(), s.newInner()
	code := &forCode{line: n.line, loopSlot: -1}
	extended := n.recursive || len(undeclaredNames(n.body, "loop")) > 0
	if extended {
		inner.addParameter("loop")
	}
	inner.visitTarget(n.target)
	inner.visitNodes(n.body)
	otherwise.visitNodes(n.otherwise)
	if n.test != nil {
		code.filter = c.compileLoopFilter(n, s)
	}
	iter := c.compileExpr(n.iter, s)
	if n.recursive {
		code.filterUp = 1
		inner = inner.withNewFrame()
		otherwise.layout = inner.layout
	}
	if extended {
		_, code.loopSlot = c.locateName("loop", n.line, inner)
	}
	code.assign = c.compileTarget(n.target, inner)
	inner.layout.loops++
	if inner.layout.loops > 20 {
		c.failSyntax(n.line, "too many statically nested blocks")
	}
	code.load = c.compileLoads(inner)
	code.body = c.compileBody(n.body, inner)
	code.slots = c.scopeSlots(inner)
	inner.layout.loops--
	if n.otherwise != nil {
		code.otherwise, code.elseSlots = c.compileScope(n.otherwise, otherwise)
	}
	if n.recursive {
		return code.compileRecursive(iter, inner.layout)
	}
	return func(m *machine, f *frame) flow {
		m.line = n.line
		return code.runLoop(m, f, iter(m, f), nil, 0)
	}
}

func checkLoopTarget(c *compiler, n node) {
	visitChildren(n, func(child node) {
		if name, is := child.(*nameNode); is && name.use == useStore && name.name == "loop" {
			c.failSyntax(name.line, "Can't assign to special loop variable in for-loop target")
		}
		checkLoopTarget(c, child)
	})
}

// compileLoopFilter compiles the condition of "for ... if", which gets a new
// frame.
func (c *compiler) compileLoopFilter(n *forNode, s scope) func(*machine, *frame, Value) iterator {
	test := s.newInner()
	test.visitTarget(n.target)
	test.visitNode(n.test)
	test = test.withNewFrame()
	load := c.compileLoads(test)
	put := c.compileTarget(n.target, test)
	keep := c.compileCondition(n.test, test)
	_, isTuple := n.target.(*tupleNode)
	in := test.layout
	return func(m *machine, outer *frame, v Value) iterator {
		f := newFrame(len(in.slots), outer)
		if load != nil {
			load(m, f)
		}
		from := m.newIterator(v)
		next := func() (Value, bool) {
			for {
				item, ok := from.next(m)
				if !ok {
					return nil, false
				}
				m.payStep()
				put(m, f, item)
				if !keep(m, f) {
					continue
				}
				if isTuple {
					item = &tuple{items: slices.Clone(m.unpackItems(item, len(n.target.(*tupleNode).items)))}
				}
				return item, true
			}
		}
		return newGenerator(next)
	}
}

// runLoop runs the body for each item, and then the else body if no iteration
// completed.
func (code *forCode) runLoop(m *machine, f *frame, items Value, recurse func(*machine, Value, int) string, depth int) flow {
	var from iterator
	list, isList := items.(*List)
	if code.filter != nil {
		from = code.filter(m, f.outerFrame(code.filterUp), items)
		items, isList = nil, false
	} else if !isList {
		from = m.newIterator(items)
	}
	var l *loopVar
	if code.loopSlot >= 0 {
		l = newLoop(items, from)
		l.recurse, l.depth0 = recurse, depth
		if isList {
			l.list.list = list
			l.from = &l.list
		}
	}
	var completed bool
	if l == nil && isList {
		completed = code.runListItems(m, f, list)
	} else {
		completed = code.runItems(m, f, from, l)
	}
	f.clearSlots(code.slots)
	if completed || code.otherwise == nil {
		return flowOn
	}
	end := m.runBody(code.otherwise, f)
	f.clearSlots(code.elseSlots)
	return end
}

// runItems runs the body for each item. It reports whether an iteration
// completed; otherwise the else body runs, even after break, as in jinja2.
func (code *forCode) runItems(m *machine, f *frame, from iterator, l *loopVar) (completed bool) {
	for {
		var item Value
		var ok bool
		if l != nil {
			item, ok = l.advanceItem(m)
		} else {
			item, ok = from.next(m)
		}
		if !ok {
			return completed
		}
		end := code.runBody(m, f, item, l)
		if end == flowBreak {
			return completed
		}
		completed = completed || end == flowOn
	}
}

// runListItems is runItems for a list without the variable loop, the most
// common case.
func (code *forCode) runListItems(m *machine, f *frame, list *List) (completed bool) {
	for i := 0; i < len(list.items); i++ {
		end := code.runBody(m, f, list.items[i], nil)
		if end == flowBreak {
			return completed
		}
		completed = completed || end == flowOn
	}
	return completed
}

func (code *forCode) runBody(m *machine, f *frame, item Value, l *loopVar) flow {
	m.payStep()
	code.assign(m, f, item)
	if l != nil {
		f.slots[code.loopSlot] = l
	}
	if code.load != nil {
		code.load(m, f)
	}
	return m.runBody(code.body, f)
}

// compileRecursive returns the statement of a recursive loop, which loop(...)
// can call.
func (code *forCode) compileRecursive(iter expr, in *frameLayout) stmt {
	return func(m *machine, outer *frame) flow {
		m.line = code.line
		var recurse func(m *machine, items Value, depth int) string
		recurse = func(m *machine, items Value, depth int) string {
			m.enterCall()
			f := newFrame(len(in.slots), outer)
			start := len(m.out)
			code.runLoop(m, f, items, recurse, depth)
			m.leaveCall()
			return m.takeOutput(start)
		}
		m.out = append(m.out, recurse(m, iter(m, outer), 0)...)
		return flowOn
	}
}
