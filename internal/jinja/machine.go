package jinja

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// machine is the state of one render: its output and its remaining budget.
type machine struct {
	limits   Limits
	ctx      context.Context
	now      time.Time
	deadline time.Time

	vars      []Value // values of Template.names; nil for a missing variable
	out       []byte  // output, followed by the text being captured
	line      int     // of the running statement
	depth     int     // of calls of macros and recursive loops
	steps     int     // left
	memory    int     // left
	ticksLeft int     // until the next check of the clock
	captured  Value   // text of a filter or set block, until it is used
}

// frame holds the variables of one activation: of the template, a macro, a
// recursive loop or a loop filter. A nil slot is a missing variable.
type frame struct {
	slots []Value
	outer *frame
}

// outerFrame returns the frame that is levels frames further out.
func (f *frame) outerFrame(levels int) *frame {
	for ; levels > 0; levels-- {
		f = f.outer
	}
	return f
}

// flow says how a statement ended.
type flow uint8

const (
	flowOn flow = iota
	flowBreak
	flowContinue
)

// clockInterval is the number of ticks between two checks of the clock.
const clockInterval = 256

// machinePool reuses machines for their output buffers.
var machinePool = sync.Pool{New: func() any { return &machine{out: make([]byte, 0, 4096)} }}

// maxKeptOutput is the largest output buffer that the pool keeps.
const maxKeptOutput = 256 << 10

func newMachine(ctx context.Context, limits Limits, now time.Time) *machine {
	m := machinePool.Get().(*machine)
	*m = machine{
		limits: limits, ctx: ctx, now: now,
		deadline: time.Now().Add(limits.Time),
		steps:    limits.Steps, memory: limits.Memory, ticksLeft: clockInterval,
		vars: m.vars[:0], out: m.out[:0], line: 1,
	}
	return m
}

// release returns the machine to the pool. Nothing may use it afterwards.
func (m *machine) release() {
	if cap(m.out) > maxKeptOutput {
		return
	}
	clear(m.vars)
	*m = machine{vars: m.vars[:0], out: m.out[:0]}
	machinePool.Put(m)
}

// newFrame returns a frame. A small frame takes a single allocation.
func newFrame(slots int, outer *frame) *frame {
	if slots > 8 {
		return &frame{make([]Value, slots), outer}
	}
	small := &struct {
		frame
		storage [8]Value
	}{}
	small.frame = frame{small.storage[:slots:slots], outer}
	return &small.frame
}

func (m *machine) runBody(body []stmt, f *frame) flow {
	for _, s := range body {
		if end := s(m, f); end != flowOn {
			return end
		}
	}
	return flowOn
}

// payStep charges for a statement, an iteration or a call.
func (m *machine) payStep() {
	m.steps--
	m.ticksLeft--
	if m.ticksLeft < 0 || m.steps < 0 {
		m.checkLimits()
	}
}

// payWork charges for an operation that reads n bytes or items.
func (m *machine) payWork(n int) {
	m.ticksLeft -= 1 + n>>5
	if m.ticksLeft < 0 {
		m.checkLimits()
	}
}

// payRune charges from time to time in a loop over a long text, where i is the
// index of the character. It bounds the time between two checks of the clock.
func (m *machine) payRune(i int) {
	if i&0x3ff == 0x3ff {
		m.payWork(1 << 15)
	}
}

// payMemory charges for n bytes of a text or list before they are allocated.
func (m *machine) payMemory(n int) {
	if n > m.limits.Output {
		failLimit("a text or list of more than %d bytes", m.limits.Output)
	}
	m.memory -= n
	m.ticksLeft -= n >> 6
	if m.ticksLeft < 0 || m.memory < 0 {
		m.checkLimits()
	}
}

// payItems charges for a list of n items.
func (m *machine) payItems(n int) {
	if n > m.limits.Output>>3 {
		failLimit("a list of more than %d items", m.limits.Output>>3)
	}
	m.payMemory(8 * n)
}

// payParts charges from time to time for a list that grows to an unknown
// length.
func (m *machine) payParts(n int) {
	if n&0xfff == 0xfff {
		m.payItems(n)
	}
}

// checkLimits ends a render that has used up its budget.
func (m *machine) checkLimits() {
	m.ticksLeft = clockInterval
	switch {
	case m.steps < 0:
		failLimit("more than %d steps", m.limits.Steps)
	case m.memory < 0:
		failLimit("more than %d bytes built", m.limits.Memory)
	case len(m.out) > m.limits.Output:
		failLimit("more than %d bytes of output", m.limits.Output)
	case m.ctx.Err() != nil:
		failLimit("the request ended: %v", context.Cause(m.ctx))
	case time.Now().After(m.deadline):
		failLimit("longer than %v", m.limits.Time)
	}
}

// checkOutput checks the output limit after an append. before is the length
// that the output had.
func (m *machine) checkOutput(before int) {
	n := len(m.out) - before
	m.ticksLeft -= n >> 6
	if m.ticksLeft < 0 || len(m.out) > m.limits.Output {
		m.checkLimits()
	}
}

// enterCall begins a nested call. The caller calls leaveCall afterwards,
// without defer.
func (m *machine) enterCall() {
	m.payStep()
	m.depth++
	if m.depth > m.limits.Depth {
		failLimit("calls more than %d deep", m.limits.Depth)
	}
}

func (m *machine) leaveCall() { m.depth-- }

// captureOutput runs a body and returns its output.
func (m *machine) captureOutput(body []stmt, f *frame) (string, flow) {
	start := len(m.out)
	end := m.runBody(body, f)
	return m.takeOutput(start), end
}

// takeOutput removes the output from start on and returns it.
func (m *machine) takeOutput(start int) string {
	m.payMemory(len(m.out) - start)
	text := string(m.out[start:])
	m.out = m.out[:start]
	return text
}

// checkNesting fails for values that are nested too deep.
func (m *machine) checkNesting(depth int) {
	if depth > m.limits.Depth {
		failLimit("values more than %d deep", m.limits.Depth)
	}
}

// failRuntime ends the render with the message that a Python exception of that
// class would have.
func failRuntime(class, format string, args ...any) {
	panic(&Error{Kind: KindRuntime, Message: class + ": " + fmt.Sprintf(format, args...)})
}

func failType(format string, args ...any)  { failRuntime("TypeError", format, args...) }
func failValue(format string, args ...any) { failRuntime("ValueError", format, args...) }

func failLimit(format string, args ...any) {
	panic(&Error{Kind: KindLimit, Message: "the template exceeds a limit: " + fmt.Sprintf(format, args...)})
}
