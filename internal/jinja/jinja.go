// Package jinja renders chat templates: Jinja2 as Hugging Face transformers
// configures it. Its output equals Python's byte for byte, and limits bound
// what a hostile template can use.
//
// A template reads only the variables that Render receives. It cannot change
// dicts, read files, include other templates or call Go code. Steps, output,
// memory, depth and time of a render are bounded.
package jinja

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Limits bound the cost of a template. A zero field means its default.
type Limits struct {
	Source  int           // bytes of source; default 256 KiB
	Nesting int           // nesting of expressions and blocks in the source; default 200
	Steps   int           // statements, iterations and calls in a render; default 1,000,000
	Output  int           // bytes of output, and of any single string; default 8 MiB
	Memory  int           // bytes of all strings and lists built in a render; default 256 MiB
	Depth   int           // nesting of macro calls and of values; default 200
	Time    time.Duration // wall-clock time of a render; default 250 ms
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
	KindRuntime = "runtime" // an exception in Python
	KindLimit   = "limit"   // the template exceeds Limits
)

// Error reports that a template cannot be compiled or that a render failed.
type Error struct {
	Kind    string
	Message string // of a runtime error with the name of Python's exception: "TypeError: ..."
	Line    int    // line of the template, from 1
}

func (e *Error) Error() string {
	return fmt.Sprintf("chat template, line %d: %s", e.Line, e.Message)
}

// Template is a compiled template. It is safe for concurrent use.
type Template struct {
	limits Limits
	names  []string // variables that the template reads; machine.vars has the same order
	slots  int
	body   []stmt
}

// Compile compiles a template. Its error is an *Error of kind "syntax" or
// "limit".
func Compile(source string, limits Limits) (t *Template, err error) {
	limits = limits.orDefaults()
	if len(source) > limits.Source {
		message := fmt.Sprintf("the template has %d bytes; at most %d are allowed", len(source), limits.Source)
		return nil, &Error{Kind: KindLimit, Message: message, Line: 1}
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

// Render runs the template with vars. now is the time for strftime_now. A
// failed render returns an *Error; after the end of ctx its kind is "limit". A
// template can remove items from lists in vars (list.pop), so use each vars
// for one render only.
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

// Reads reports whether the template reads a variable.
func (t *Template) Reads(name string) bool { return slices.Contains(t.names, name) }

// lookUp returns the variable or global of that name, or nil.
func lookUp(vars *Dict, name string) Value {
	if vars != nil {
		if v, ok := vars.Get(name); ok {
			return v
		}
	}
	return globals[name]
}
