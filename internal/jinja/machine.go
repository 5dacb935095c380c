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

	vars   []Value // the template's names, looked up once; nil is missing
	out    []byte  // output, and on top of it whatever is being captured
	line   int     // of the statement that runs
	depth  int     // of macros and recursive loops
	steps  int     // left
	memory int     // left
	tick   int     // until the next look at the clock
	taken  Value   // what a filter or set block has captured, until it is used
}

// frame holds the variables of one activation: of the template, a macro, a
// recursive loop or a loop's filter. A nil slot is a missing variable.
type frame struct {
	slots []Value
	outer *frame
}

// up returns the frame that many functions further out.
func (f *frame) up(levels int) *frame {
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

// ticks between two looks at the clock.
const ticks = 256

// machines are kept for their output buffers.
var machines = sync.Pool{New: func() any { return &machine{out: make([]byte, 0, 4096)} }}

// keepOutput is the largest buffer that is kept.
const keepOutput = 256 << 10

func newMachine(ctx context.Context, limits Limits, now time.Time) *machine {
	m := machines.Get().(*machine)
	*m = machine{
		limits: limits, ctx: ctx, now: now,
		deadline: time.Now().Add(limits.Time),
		steps:    limits.Steps, memory: limits.Memory, tick: ticks,
		vars: m.vars[:0], out: m.out[:0], line: 1,
	}
	return m
}

// free gives the machine back; nothing that it made may still use it.
func (m *machine) free() {
	if cap(m.out) > keepOutput {
		return
	}
	clear(m.vars)
	*m = machine{vars: m.vars[:0], out: m.out[:0]}
	machines.Put(m)
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

func (m *machine) run(body []stmt, f *frame) flow {
	for _, s := range body {
		if end := s(m, f); end != flowOn {
			return end
		}
	}
	return flowOn
}

// step pays for a statement, an iteration or a call.
func (m *machine) step() {
	m.steps--
	m.tick--
	if m.tick < 0 || m.steps < 0 {
		m.watch()
	}
}

// work pays for an operation that looks at n bytes or items.
func (m *machine) work(n int) {
	m.tick -= 1 + n>>5
	if m.tick < 0 {
		m.watch()
	}
}

// along pays, now and then, in a loop over a long text whose i-th character it
// is at: the clock is looked at within the text, too.
func (m *machine) along(i int) {
	if i&0x3ff == 0x3ff {
		m.work(1 << 15)
	}
}

// hold pays for n bytes of new text or list, before they are built.
func (m *machine) hold(n int) {
	if n > m.limits.Output {
		exceed("a text or list of more than %d bytes", m.limits.Output)
	}
	m.memory -= n
	m.tick -= n >> 6
	if m.tick < 0 || m.memory < 0 {
		m.watch()
	}
}

// holdItems pays for a list of n items.
func (m *machine) holdItems(n int) {
	if n > m.limits.Output>>3 {
		exceed("a list of more than %d items", m.limits.Output>>3)
	}
	m.hold(8 * n)
}

// parts pays, now and then, for a list that grows to an unknown length.
func (m *machine) parts(n int) {
	if n&0xfff == 0xfff {
		m.holdItems(n)
	}
}

// watch ends a render that has spent too much.
func (m *machine) watch() {
	m.tick = ticks
	switch {
	case m.steps < 0:
		exceed("more than %d steps", m.limits.Steps)
	case m.memory < 0:
		exceed("more than %d bytes built", m.limits.Memory)
	case len(m.out) > m.limits.Output:
		exceed("more than %d bytes of output", m.limits.Output)
	case m.ctx.Err() != nil:
		exceed("the caller has gone: %v", context.Cause(m.ctx))
	case time.Now().After(m.deadline):
		exceed("longer than %v", m.limits.Time)
	}
}

// written checks the output after something was appended to it.
func (m *machine) written(before int) {
	n := len(m.out) - before
	m.tick -= n >> 6
	if m.tick < 0 || len(m.out) > m.limits.Output {
		m.watch()
	}
}

// enter goes one call deeper; the caller defers nothing and calls leave.
func (m *machine) enter() {
	m.step()
	m.depth++
	if m.depth > m.limits.Depth {
		exceed("calls more than %d deep", m.limits.Depth)
	}
}

func (m *machine) leave() { m.depth-- }

// capture runs a body and takes what it wrote.
func (m *machine) capture(body []stmt, f *frame) (string, flow) {
	start := len(m.out)
	end := m.run(body, f)
	return m.take(start), end
}

// take removes and returns the output from start on.
func (m *machine) take(start int) string {
	m.hold(len(m.out) - start)
	text := string(m.out[start:])
	m.out = m.out[:start]
	return text
}

// nest refuses values that hold values too deep to be walked.
func (m *machine) nest(depth int) {
	if depth > m.limits.Depth {
		exceed("values more than %d deep", m.limits.Depth)
	}
}

// fail stops the render as Python's exception of that class would.
func fail(class, format string, args ...any) {
	panic(&Error{Kind: KindRuntime, Message: class + ": " + fmt.Sprintf(format, args...)})
}

func typeError(format string, args ...any)  { fail("TypeError", format, args...) }
func valueError(format string, args ...any) { fail("ValueError", format, args...) }

func exceed(format string, args ...any) {
	panic(&Error{Kind: KindLimit, Message: "the template costs too much: " + fmt.Sprintf(format, args...)})
}
