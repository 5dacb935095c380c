package jinja

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// machine is one render: what it has written and what it may still spend.
type machine struct {
	limits   Limits
	ctx      context.Context
	now      time.Time
	deadline time.Time

	vars      []Value // the template's names, looked up once; nil is missing
	out       []byte  // output, and on top of it whatever is being captured
	line      int     // of the statement that runs
	depth     int     // of macros and recursive loops
	steps     int     // left
	memory    int     // left
	ticksLeft int     // until the next look at the clock
	captured  Value   // what a filter or set block has captured, until it is used
}

// frame holds the variables of one activation: of the template, a macro, a
// recursive loop or a loop's filter. A nil slot is a missing variable.
type frame struct {
	slots []Value
	outer *frame
}

// outerFrame returns the frame that many functions further out.
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

// clockInterval between two looks at the clock.
const clockInterval = 256

// machinePool are kept for their output buffers.
var machinePool = sync.Pool{New: func() any { return &machine{out: make([]byte, 0, 4096)} }}

// maxKeptOutput is the largest buffer that is kept.
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

// release gives the machine back; nothing that it made may still use it.
func (m *machine) release() {
	if cap(m.out) > maxKeptOutput {
		return
	}
	clear(m.vars)
	*m = machine{vars: m.vars[:0], out: m.out[:0]}
	machinePool.Put(m)
}

// newFrame makes a frame; a small one is one piece of memory.
func newFrame(slots int, outer *frame) *frame {
	if slots > 8 {
		return &frame{make([]Value, slots), outer}
	}
	small := &struct {
		frame
		room [8]Value
	}{}
	small.frame = frame{small.room[:slots:slots], outer}
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

// payStep pays for a statement, an iteration or a call.
func (m *machine) payStep() {
	m.steps--
	m.ticksLeft--
	if m.ticksLeft < 0 || m.steps < 0 {
		m.checkLimits()
	}
}

// payWork pays for an operation that looks at n bytes or items.
func (m *machine) payWork(n int) {
	m.ticksLeft -= 1 + n>>5
	if m.ticksLeft < 0 {
		m.checkLimits()
	}
}

// payRune pays, now and then, in a loop over a long text whose i-th character it
// is at: the clock is looked at within the text, too.
func (m *machine) payRune(i int) {
	if i&0x3ff == 0x3ff {
		m.payWork(1 << 15)
	}
}

// payMemory pays for n bytes of new text or list, before they are built.
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

// payItems pays for a list of n items.
func (m *machine) payItems(n int) {
	if n > m.limits.Output>>3 {
		failLimit("a list of more than %d items", m.limits.Output>>3)
	}
	m.payMemory(8 * n)
}

// payParts pays, now and then, for a list that grows to an unknown length.
func (m *machine) payParts(n int) {
	if n&0xfff == 0xfff {
		m.payItems(n)
	}
}

// checkLimits ends a render that has spent too much.
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
		failLimit("the caller has gone: %v", context.Cause(m.ctx))
	case time.Now().After(m.deadline):
		failLimit("longer than %v", m.limits.Time)
	}
}

// checkOutput checks the output after something was appended to it.
func (m *machine) checkOutput(before int) {
	n := len(m.out) - before
	m.ticksLeft -= n >> 6
	if m.ticksLeft < 0 || len(m.out) > m.limits.Output {
		m.checkLimits()
	}
}

// enterCall goes one call deeper; the caller defers nothing and calls leave.
func (m *machine) enterCall() {
	m.payStep()
	m.depth++
	if m.depth > m.limits.Depth {
		failLimit("calls more than %d deep", m.limits.Depth)
	}
}

func (m *machine) leaveCall() { m.depth-- }

// captureOutput runs a body and takes what it wrote.
func (m *machine) captureOutput(body []stmt, f *frame) (string, flow) {
	start := len(m.out)
	end := m.runBody(body, f)
	return m.takeOutput(start), end
}

// takeOutput removes and returns the output from start on.
func (m *machine) takeOutput(start int) string {
	m.payMemory(len(m.out) - start)
	text := string(m.out[start:])
	m.out = m.out[:start]
	return text
}

// checkNesting refuses values that hold values too deep to be walked.
func (m *machine) checkNesting(depth int) {
	if depth > m.limits.Depth {
		failLimit("values more than %d deep", m.limits.Depth)
	}
}

// failRuntime stops the render as Python's exception of that class would.
func failRuntime(class, format string, args ...any) {
	panic(&Error{Kind: KindRuntime, Message: class + ": " + fmt.Sprintf(format, args...)})
}

func failType(format string, args ...any)  { failRuntime("TypeError", format, args...) }
func failValue(format string, args ...any) { failRuntime("ValueError", format, args...) }

func failLimit(format string, args ...any) {
	panic(&Error{Kind: KindLimit, Message: "the template costs too much: " + fmt.Sprintf(format, args...)})
}
