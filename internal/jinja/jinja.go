// Package jinja renders the chat templates that models are published with:
// Jinja2 as Hugging Face transformers sets it up, byte for byte as Python
// would, inside limits that a hostile template cannot leave.
//
// A template sees only the values that it is given. It cannot change them,
// reach a file, another template or a Go value, and it ends: steps, output,
// memory, depth and time are bounded.
package jinja

import (
	"context"
	"fmt"
	"time"
)

// Limits bound what a template may cost. A zero field means its default.
type Limits struct {
	Source  int           // bytes of source; 256 KiB
	Nesting int           // how deep expressions and blocks of the source nest; 200
	Steps   int           // statements, iterations and calls in a render; 1,000,000
	Output  int           // bytes of output, and of any one string; 8 MiB
	Memory  int           // bytes built in a render, all strings and lists together; 256 MiB
	Depth   int           // how deep macros call macros and values hold values; 200
	Time    time.Duration // wall clock of a render; 250 ms
}

func (l Limits) orDefaults() Limits {
	set := func(field *int, value int) {
		if *field <= 0 {
			*field = value
		}
	}
	set(&l.Source, 256<<10)
	set(&l.Nesting, 200)
	set(&l.Steps, 1_000_000)
	set(&l.Output, 8<<20)
	set(&l.Memory, 256<<20)
	set(&l.Depth, 200)
	if l.Time <= 0 {
		l.Time = 250 * time.Millisecond
	}
	return l
}

// The kinds of an Error.
const (
	KindSyntax  = "syntax"  // the template cannot be compiled
	KindRaise   = "raise"   // the template itself called raise_exception
	KindRuntime = "runtime" // Python would have raised
	KindLimit   = "limit"   // the template wanted more than Limits allow
)

// Error says what is wrong with a template, or with what it was given.
type Error struct {
	Kind    string
	Message string // of a runtime error with the name of Python's exception: "TypeError: ..."
	Line    int    // of the template, from 1
}

func (e *Error) Error() string {
	return fmt.Sprintf("chat template, line %d: %s", e.Line, e.Message)
}

// Template is a compiled template. It may render many times at once.
type Template struct {
	limits Limits
	names  []string // what it looks up in the variables, in the order of machine.vars
	slots  int
	body   []stmt
}

// Compile reads a template.
func Compile(source string, limits Limits) (t *Template, err error) {
	limits = limits.orDefaults()
	if len(source) > limits.Source {
		return nil, &Error{Kind: KindLimit, Message: fmt.Sprintf("the template has %d bytes; at most %d are allowed", len(source), limits.Source), Line: 1}
	}
	defer func() {
		if r := recover(); r != nil {
			e, ours := r.(*Error)
			if !ours {
				panic(r)
			}
			t, err = nil, e
		}
	}()
	return compileTemplate(parseTemplate(source, limits), limits), nil
}

// Render runs the template on variables; now is what strftime_now tells. It
// stops with an error of kind "limit" when ctx ends. A template can change the
// lists among the variables (list.pop): they are for one rendering.
func (t *Template) Render(ctx context.Context, vars *Dict, now time.Time) (out string, err error) {
	m := newMachine(ctx, t.limits, now)
	defer func() {
		if r := recover(); r != nil {
			e, ours := r.(*Error)
			if !ours {
				panic(r)
			}
			located := *e
			located.Line = m.line
			out, err = "", &located
		}
		m.release()
	}()
	for _, name := range t.names {
		m.vars = append(m.vars, lookUp(vars, name))
	}
	m.runBody(t.body, newFrame(t.slots, nil))
	m.checkLimits()
	return string(m.out), nil
}

// lookUp finds a name in the variables, then among the globals: nil when
// neither has it.
func lookUp(vars *Dict, name string) Value {
	if vars != nil {
		if v, ok := vars.Get(name); ok {
			return v
		}
	}
	return globals[name]
}
