package jinja

import (
	"fmt"
	"slices"
)

// A template is compiled to closures.
type (
	stmt func(m *machine, f *frame) flow
	expr func(m *machine, f *frame) Value
	sink func(m *machine, f *frame) // writes the text of an expression
	cond func(m *machine, f *frame) bool
)

// activation is what one frame will hold: the variables of the template, of
// a macro, of a recursive loop or of a loop's filter.
type activation struct {
	outer *activation
	level int // the lowest level of its own variables
	slots []variable
	loops int // open at this point, for break and continue
}

func (a *activation) slot(v variable) int {
	if i := slices.Index(a.slots, v); i >= 0 {
		return i
	}
	a.slots = append(a.slots, v)
	return len(a.slots) - 1
}

// scope is where a node is compiled.
type scope struct {
	*symbols
	in   *activation
	soft bool // inside an if: an unknown filter fails only when it is reached
}

func (s scope) inner() scope { return scope{symbols: s.symbols.inner(), in: s.in} }

func (s scope) softly() scope {
	s.soft = true
	return s
}

// activate begins a new activation at a scope's level.
func (s scope) activate() scope {
	s.in = &activation{outer: s.in, level: s.level}
	return s
}

type compiler struct {
	names []string
	limit int
	line  int // of the last statement
}

func compile(body []node, limits Limits) *Template {
	c := &compiler{limit: limits.Nesting * 3}
	for _, n := range body {
		c.measure(n, 0)
	}
	root := scope{symbols: (*symbols)(nil).inner()}.activate()
	root.seeAll(body)
	stmts, _ := c.scoped(body, root)
	return &Template{limits: limits, names: c.names, slots: len(root.in.slots), body: stmts}
}

// measure refuses what would nest calls too deep when it runs.
func (c *compiler) measure(n node, depth int) {
	if depth > c.limit {
		panic(&Error{Kind: KindLimit, Message: fmt.Sprintf("an expression is more than %d operations deep", c.limit), Line: c.line})
	}
	c.at(n)
	children(n, func(child node) { c.measure(child, depth+1) })
}

// at remembers the line of a statement.
func (c *compiler) at(n node) {
	switch n := n.(type) {
	case *outputNode:
		c.line = append(n.lines, c.line)[0]
	case *ifNode:
		c.line = n.line
	case *forNode:
		c.line = n.line
	case *assignNode:
		c.line = n.line
	case *nameNode:
		c.line = n.line
	}
}

func (c *compiler) fail(line int, format string, args ...any) {
	panic(&Error{Kind: KindSyntax, Message: fmt.Sprintf(format, args...), Line: line})
}

// context gives the place of a name among what the template looks up.
func (c *compiler) context(name string) int {
	if i := slices.Index(c.names, name); i >= 0 {
		return i
	}
	c.names = append(c.names, name)
	return len(c.names) - 1
}

// place finds a variable: how many frames out, and its slot there.
func (c *compiler) place(v variable, s scope) (up, slot int) {
	a := s.in
	for v.level < a.level {
		a = a.outer
		up++
	}
	return up, a.slot(v)
}

func (c *compiler) placeName(name string, line int, s scope) (up, slot int) {
	v, ok := s.find(name)
	if !ok {
		c.fail(line, "Tried to resolve a name to a reference that was unknown to the frame ('%s')", name)
	}
	return c.place(v, s)
}

// enter loads the variables of a scope when it is entered.
func (c *compiler) enter(s scope) stmt {
	type move struct {
		slot, up, from int
	}
	var aliases, contexts []move
	var clear []int
	for _, l := range s.loads {
		_, slot := c.place(l.variable, s)
		switch l.load {
		case loadContext:
			contexts = append(contexts, move{slot: slot, from: c.context(l.name)})
		case loadAlias:
			up, from := c.place(l.from, s)
			aliases = append(aliases, move{slot, up, from})
		case loadNothing:
			clear = append(clear, slot)
		}
	}
	if len(aliases)+len(contexts)+len(clear) == 0 {
		return nil
	}
	return func(m *machine, f *frame) flow {
		for _, c := range contexts {
			f.slots[c.slot] = m.vars[c.from]
		}
		for _, a := range aliases {
			f.slots[a.slot] = f.up(a.up).slots[a.from]
		}
		for _, slot := range clear {
			f.slots[slot] = nil
		}
		return flowOn
	}
}

// leave forgets the variables of a scope.
func (c *compiler) leave(s scope) []int {
	var slots []int
	for _, l := range s.loads {
		_, slot := c.place(l.variable, s)
		slots = append(slots, slot)
	}
	return slots
}

func (f *frame) forget(slots []int) {
	for _, slot := range slots {
		f.slots[slot] = nil
	}
}

func (c *compiler) body(list []node, s scope) []stmt {
	out := make([]stmt, 0, len(list))
	for _, n := range list {
		if compiled := c.statement(n, s); compiled != nil {
			out = append(out, compiled)
		}
	}
	return out
}

// scoped compiles a body that has names of its own.
func (c *compiler) scoped(list []node, s scope) (body []stmt, leave []int) {
	enter := c.enter(s)
	body = c.body(list, s)
	if enter != nil {
		body = slices.Insert(body, 0, enter)
	}
	return body, c.leave(s)
}

func (c *compiler) statement(n node, s scope) stmt {
	c.at(n)
	switch n := n.(type) {
	case *outputNode:
		return c.output(n, s)
	case *ifNode:
		return c.ifElse(n, s)
	case *forNode:
		return c.forLoop(n, s)
	case *assignNode:
		return c.assign(n, s)
	case *assignBlockNode:
		return c.assignBlock(n, s)
	case *macroNode:
		return c.macro(n, s)
	case *callBlockNode:
		return c.callBlock(n, s)
	case *filterBlockNode:
		return c.filterBlock(n, s)
	case *withNode:
		return c.with(n, s)
	case *scopeNode:
		return c.autoescape(n, s)
	case *jumpNode:
		return c.jump(n, s)
	}
	panic(fmt.Sprintf("jinja: no statement: %T", n))
}

func (c *compiler) output(n *outputNode, s scope) stmt {
	lines := n.lines
	if len(n.items) == 1 {
		line := n.lines[0]
		if data, is := n.items[0].(*dataNode); is {
			text := data.text
			return func(m *machine, f *frame) flow {
				m.out = append(m.out, text...)
				return flowOn
			}
		}
		write := c.sink(n.items[0], s)
		return func(m *machine, f *frame) flow {
			m.line = line
			m.step()
			before := len(m.out)
			write(m, f)
			m.written(before)
			return flowOn
		}
	}
	writes := make([]sink, len(n.items))
	for i, item := range n.items {
		writes[i] = c.sink(item, s)
	}
	return func(m *machine, f *frame) flow {
		m.step()
		before := len(m.out)
		for i, write := range writes {
			m.line = lines[i]
			write(m, f)
		}
		m.written(before)
		return flowOn
	}
}

func (c *compiler) ifElse(n *ifNode, s scope) stmt {
	s = s.softly()
	type branch struct {
		line int
		test cond
		body []stmt
	}
	branches := []branch{{n.line, c.cond(n.test, s), c.body(n.body, s)}}
	for _, e := range n.elifs {
		branches = append(branches, branch{e.line, c.cond(e.test, s), c.body(e.body, s)})
	}
	otherwise := c.body(n.otherwise, s)
	return func(m *machine, f *frame) flow {
		m.step()
		for i := range branches {
			b := &branches[i]
			m.line = b.line
			if b.test(m, f) {
				return m.run(b.body, f)
			}
		}
		return m.run(otherwise, f)
	}
}

func (c *compiler) jump(n *jumpNode, s scope) stmt {
	if s.in.loops == 0 {
		c.fail(n.line, "%s", map[flow]string{flowBreak: "'break' outside loop", flowContinue: "'continue' not properly in loop"}[n.flow])
	}
	return func(*machine, *frame) flow { return n.flow }
}

func (c *compiler) filterBlock(n *filterBlockNode, s scope) stmt {
	inner := s.inner()
	inner.seeAll(n.body)
	inner.see(n.filter)
	body, leave := c.scoped(n.body, inner)
	start := func(m *machine, f *frame) Value { return m.taken }
	apply := c.filterOf(n.filter, inner, start)
	line := n.line
	return func(m *machine, f *frame) flow {
		m.step()
		text, end := m.capture(body, f)
		if end != flowOn {
			return end
		}
		m.line = line
		m.taken = text
		m.writeText(apply(m, f))
		f.forget(leave)
		return flowOn
	}
}

func (c *compiler) with(n *withNode, s scope) stmt {
	inner := s.inner()
	inner.seeAll(n.targets)
	inner.seeAll(n.body)
	enter := c.enter(inner)
	type binding struct {
		store store
		value expr
	}
	var bindings []binding
	for i, target := range n.targets {
		bindings = append(bindings, binding{c.store(target, inner), c.expr(n.values[i], s)})
	}
	body := c.body(n.body, inner)
	leave := c.leave(inner)
	line := n.line
	return func(m *machine, f *frame) flow {
		m.step()
		m.line = line
		if enter != nil {
			enter(m, f)
		}
		for _, b := range bindings {
			b.store(m, f, b.value(m, f))
		}
		end := m.run(body, f)
		f.forget(leave)
		return end
	}
}

// autoescape passes {% autoescape false %} through: nothing is escaped here.
func (c *compiler) autoescape(n *scopeNode, s scope) stmt {
	if v, ok := constant(n.option); !ok || truth(nil, v) {
		c.fail(c.line, "{%% autoescape %%} can only be false: a chat template is no HTML")
	}
	inner := s.inner()
	inner.see(n.option)
	inner.seeAll(n.body)
	body, leave := c.scoped(n.body, inner)
	return func(m *machine, f *frame) flow {
		end := m.run(body, f)
		f.forget(leave)
		return end
	}
}
