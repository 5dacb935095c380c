package jinja

import (
	"fmt"
	"slices"
)

// The compiler turns each node of the syntax tree into one of these closures.
type (
	stmt       func(m *machine, f *frame) flow
	expr       func(m *machine, f *frame) Value
	textWriter func(m *machine, f *frame) // appends the text of an expression to the output
	condition  func(m *machine, f *frame) bool
)

// frameLayout assigns slots of a frame to variables. The template, each macro,
// each recursive loop and each loop filter has a frame.
type frameLayout struct {
	outer *frameLayout
	level int // of the scope that the frame belongs to; variables of lower levels are in outer frames
	slots []variableID
	loops int // that enclose the node being compiled, for break and continue
}

func (a *frameLayout) slotOf(v variableID) int {
	if i := slices.Index(a.slots, v); i >= 0 {
		return i
	}
	a.slots = append(a.slots, v)
	return len(a.slots) - 1
}

// scope is the context in which a node is compiled.
type scope struct {
	*symbolTable
	layout     *frameLayout
	lateErrors bool // inside an if, an unknown filter fails at run time only
}

func (s scope) newInner() scope {
	return scope{symbolTable: s.symbolTable.newInner(), layout: s.layout}
}

func (s scope) withLateErrors() scope {
	s.lateErrors = true
	return s
}

// withNewFrame returns the scope with a new frame layout.
func (s scope) withNewFrame() scope {
	s.layout = &frameLayout{outer: s.layout, level: s.level}
	return s
}

type compiler struct {
	names []string
	limit int
	line  int // of the statement being compiled
}

func compileTemplate(body []node, limits Limits) *Template {
	c := &compiler{limit: limits.Nesting * 3}
	for _, n := range body {
		c.checkDepth(n, 0)
	}
	root := scope{symbolTable: (*symbolTable)(nil).newInner()}.withNewFrame()
	root.visitNodes(body)
	stmts, _ := c.compileScope(body, root)
	return &Template{limits: limits, names: c.names, slots: len(root.layout.slots), body: stmts}
}

// checkDepth fails for expressions so deep that running them would overflow
// the stack.
func (c *compiler) checkDepth(n node, depth int) {
	if depth > c.limit {
		panic(&Error{Kind: KindLimit, Message: fmt.Sprintf("an expression is more than %d operations deep", c.limit), Line: c.line})
	}
	c.rememberLine(n)
	visitChildren(n, func(child node) { c.checkDepth(child, depth+1) })
}

// rememberLine stores the line of a statement for error messages.
func (c *compiler) rememberLine(n node) {
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

func (c *compiler) failSyntax(line int, format string, args ...any) {
	panic(&Error{Kind: KindSyntax, Message: fmt.Sprintf(format, args...), Line: line})
}

// contextIndex returns the index of a name in Template.names and adds the name
// when it is new.
func (c *compiler) contextIndex(name string) int {
	if i := slices.Index(c.names, name); i >= 0 {
		return i
	}
	c.names = append(c.names, name)
	return len(c.names) - 1
}

// locate returns how many frames further out a variable is, and its slot in
// that frame.
func (c *compiler) locate(v variableID, s scope) (up, slot int) {
	a := s.layout
	for v.level < a.level {
		a = a.outer
		up++
	}
	return up, a.slotOf(v)
}

func (c *compiler) locateName(name string, line int, s scope) (up, slot int) {
	v, ok := s.findName(name)
	if !ok {
		c.failSyntax(line, "Tried to resolve a name to a reference that was unknown to the frame ('%s')", name)
	}
	return c.locate(v, s)
}

// compileLoads compiles the initialization of a scope's variables; nil when
// there is nothing to initialize.
func (c *compiler) compileLoads(s scope) stmt {
	type move struct {
		slot, up, from int
	}
	var aliases, contexts []move
	var clear []int
	for _, l := range s.loads {
		_, slot := c.locate(l.variableID, s)
		switch l.load {
		case loadContext:
			contexts = append(contexts, move{slot: slot, from: c.contextIndex(l.name)})
		case loadAlias:
			up, from := c.locate(l.from, s)
			aliases = append(aliases, move{slot, up, from})
		case loadNothing:
			clear = append(clear, slot)
		case loadParameter:
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
			f.slots[a.slot] = f.outerFrame(a.up).slots[a.from]
		}
		for _, slot := range clear {
			f.slots[slot] = nil
		}
		return flowOn
	}
}

// scopeSlots returns the slots of a scope's variables, which are cleared when
// the scope ends.
func (c *compiler) scopeSlots(s scope) []int {
	var slots []int
	for _, l := range s.loads {
		_, slot := c.locate(l.variableID, s)
		slots = append(slots, slot)
	}
	return slots
}

func (f *frame) clearSlots(slots []int) {
	for _, slot := range slots {
		f.slots[slot] = nil
	}
}

func (c *compiler) compileBody(list []node, s scope) []stmt {
	out := make([]stmt, 0, len(list))
	for _, n := range list {
		if compiled := c.compileStatement(n, s); compiled != nil {
			out = append(out, compiled)
		}
	}
	return out
}

// compileScope compiles a body in a new scope. It returns the slots
// to clear after the body.
func (c *compiler) compileScope(list []node, s scope) (body []stmt, slots []int) {
	load := c.compileLoads(s)
	body = c.compileBody(list, s)
	if load != nil {
		body = slices.Insert(body, 0, load)
	}
	return body, c.scopeSlots(s)
}

func (c *compiler) compileStatement(n node, s scope) stmt {
	c.rememberLine(n)
	switch n := n.(type) {
	case *outputNode:
		return c.compileOutput(n, s)
	case *ifNode:
		return c.compileIf(n, s)
	case *forNode:
		return c.compileFor(n, s)
	case *assignNode:
		return c.compileAssign(n, s)
	case *assignBlockNode:
		return c.compileAssignBlock(n, s)
	case *macroNode:
		return c.compileMacroStatement(n, s)
	case *callBlockNode:
		return c.compileCallBlock(n, s)
	case *filterBlockNode:
		return c.compileFilterBlock(n, s)
	case *withNode:
		return c.compileWith(n, s)
	case *scopeNode:
		return c.compileAutoescape(n, s)
	case *jumpNode:
		return c.compileJump(n, s)
	}
	panic(fmt.Sprintf("jinja: no statement: %T", n))
}

func (c *compiler) compileOutput(n *outputNode, s scope) stmt {
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
		write := c.compileWriter(n.items[0], s)
		return func(m *machine, f *frame) flow {
			m.line = line
			m.payStep()
			before := len(m.out)
			write(m, f)
			m.checkOutput(before)
			return flowOn
		}
	}
	writes := make([]textWriter, len(n.items))
	for i, item := range n.items {
		writes[i] = c.compileWriter(item, s)
	}
	return func(m *machine, f *frame) flow {
		m.payStep()
		before := len(m.out)
		for i, write := range writes {
			m.line = lines[i]
			write(m, f)
		}
		m.checkOutput(before)
		return flowOn
	}
}

func (c *compiler) compileIf(n *ifNode, s scope) stmt {
	s = s.withLateErrors()
	type branch struct {
		line int
		test condition
		body []stmt
	}
	branches := []branch{{n.line, c.compileCondition(n.test, s), c.compileBody(n.body, s)}}
	for _, e := range n.elifs {
		branches = append(branches, branch{e.line, c.compileCondition(e.test, s), c.compileBody(e.body, s)})
	}
	otherwise := c.compileBody(n.otherwise, s)
	return func(m *machine, f *frame) flow {
		m.payStep()
		for i := range branches {
			b := &branches[i]
			m.line = b.line
			if b.test(m, f) {
				return m.runBody(b.body, f)
			}
		}
		return m.runBody(otherwise, f)
	}
}

func (c *compiler) compileJump(n *jumpNode, s scope) stmt {
	if s.layout.loops == 0 {
		message := "'break' outside loop"
		if n.flow == flowContinue {
			message = "'continue' not properly in loop"
		}
		c.failSyntax(n.line, "%s", message)
	}
	return func(*machine, *frame) flow { return n.flow }
}

func (c *compiler) compileFilterBlock(n *filterBlockNode, s scope) stmt {
	inner := s.newInner()
	inner.visitNodes(n.body)
	inner.visitNode(n.filter)
	body, slots := c.compileScope(n.body, inner)
	start := func(m *machine, f *frame) Value { return m.captured }
	apply := c.compileFilter(n.filter, inner, start)
	line := n.line
	return func(m *machine, f *frame) flow {
		m.payStep()
		text, end := m.captureOutput(body, f)
		if end != flowOn {
			return end
		}
		m.line = line
		m.captured = text
		m.writeText(apply(m, f))
		f.clearSlots(slots)
		return flowOn
	}
}

func (c *compiler) compileWith(n *withNode, s scope) stmt {
	inner := s.newInner()
	inner.visitNodes(n.targets)
	inner.visitNodes(n.body)
	load := c.compileLoads(inner)
	type binding struct {
		store assignFunc
		value expr
	}
	var bindings []binding
	for i, target := range n.targets {
		bindings = append(bindings, binding{c.compileTarget(target, inner), c.compileExpr(n.values[i], s)})
	}
	body := c.compileBody(n.body, inner)
	slots := c.scopeSlots(inner)
	line := n.line
	return func(m *machine, f *frame) flow {
		m.payStep()
		m.line = line
		if load != nil {
			load(m, f)
		}
		for _, b := range bindings {
			b.store(m, f, b.value(m, f))
		}
		end := m.runBody(body, f)
		f.clearSlots(slots)
		return end
	}
}

// compileAutoescape compiles {% autoescape false %}, which changes nothing.
// Only false is supported.
func (c *compiler) compileAutoescape(n *scopeNode, s scope) stmt {
	if v, ok := constantValue(n.option); !ok || isTruthy(nil, v) {
		c.failSyntax(c.line, "{%% autoescape %%} supports only false, because chat templates are not HTML")
	}
	inner := s.newInner()
	inner.visitNode(n.option)
	inner.visitNodes(n.body)
	body, slots := c.compileScope(n.body, inner)
	return func(m *machine, f *frame) flow {
		end := m.runBody(body, f)
		f.clearSlots(slots)
		return end
	}
}
