package jinja

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slack is the extra time for the race detector and the garbage collector, on
// top of the limit of 250 ms.
const slack = 750 * time.Millisecond

// cpuTime returns the processor time of this process, which other processes on
// the machine do not affect.
func cpuTime(t *testing.T) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// bombs are templates that would use unlimited time or memory.
var bombs = map[string]string{
	"nested ranges":          `{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{{ c }}{% endfor %}{% endfor %}{% endfor %}`,
	"silent nested ranges":   `{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}`,
	"string times":           `{{ 'a' * 10**9 }}`,
	"times string":           `{{ 1000000000000 * 'a' }}`,
	"list times":             `{{ ([0] * 10**9)|length }}`,
	"doubled string":         `{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
	"doubled by ~":           `{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
	"doubled list":           `{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
	"many long strings":      `{% set ns = namespace(s=[]) %}{% for i in range(99999) %}{% set ns.s = ns.s + [('x' * 1000000) ~ i] %}{% endfor %}`,
	"macro calls itself":     `{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}`,
	"macro calls twice":      `{% macro f(x) %}{% if x %}{{ f(x - 1) }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(100) }}`,
	"caller calls caller":    `{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}`,
	"loop calls itself":      `{% set x = [[1]] %}{% for a in x recursive %}{{ loop(x) }}{% endfor %}`,
	"replace grows":          `{% set ns = namespace(s='aaaa') %}{% for i in range(99) %}{% set ns.s = ns.s|replace('a', 'aaaa') %}{% endfor %}`,
	"join grows":             `{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = (ns.s * 1000)|list|join(ns.s) %}{% endfor %}`,
	"repr of shared lists":   `{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}`,
	"json of shared lists":   `{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s|tojson }}`,
	"equal shared lists":     `{% set n = namespace(a=[1], b=[1]) %}{% for i in range(90) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}`,
	"hash of shared tuples":  `{% set n = namespace(a=(1,)) %}{% for i in range(90) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ {n.a: 1} }}`,
	"deep list":              `{% set n = namespace(a=[]) %}{% for i in range(9999) %}{% set n.a = [n.a] %}{% endfor %}{{ n.a }}`,
	"deep list as JSON":      `{% set n = namespace(a=[]) %}{% for i in range(9999) %}{% set n.a = [n.a] %}{% endfor %}{{ n.a|tojson }}`,
	"deep comparison":        `{% set n = namespace(a=[], b=[]) %}{% for i in range(9999) %}{% set n.a = [n.a] %}{% set n.b = [n.b] %}{% endfor %}{{ n.a == n.b }}{{ n.a < n.b }}`,
	"power":                  `{{ 9 ** (9 ** 9) }}`,
	"power by steps":         `{% set n = namespace(a=3) %}{% for i in range(9999) %}{% set n.a = n.a * n.a %}{% endfor %}`,
	"wide %d":                `{{ '%999999999d' % 1 }}`,
	"precise %f":             `{{ '%.999999999f' % 1.5 }}`,
	"wide format":            `{{ '{:999999999}'.format(1) }}`,
	"wide grouped format":    `{{ '{:0999999999,}'.format(1) }}`,
	"center":                 `{{ 'a'|center(999999999) }}`,
	"ljust":                  `{{ 'a'.ljust(999999999) }}`,
	"zfill":                  `{{ 'a'.zfill(999999999) }}`,
	"expandtabs":             `{{ ('\t' * 1000).expandtabs(999999999) }}`,
	"indent":                 `{{ ('\n' * 100000)|indent(99999) }}`,
	"indent by text":         `{{ ('\n' * 100000)|indent('x' * 99999) }}`,
	"json indent":            `{{ [[[[[1]]]]]|tojson(indent=99999999) }}`,
	"json indents":           `{{ range(9999)|list|tojson(indent=99999) }}`,
	"batch fill":             `{{ [1]|batch(999999999, 0)|list }}`,
	"slices":                 `{{ [1]|slice(999999999)|list|length }}`,
	"wordwrap":               `{% for i in range(9999) %}{% set x = ('a b-c' * 20000)|wordwrap(1) %}{% endfor %}`,
	"urlize":                 `{% for i in range(9999) %}{% set x = ('http://a.b(' * 20000)|urlize %}{% endfor %}`,
	"striptags":              `{% for i in range(9999) %}{% set x = ('<!--<' * 200000)|striptags %}{% endfor %}`,
	"sorting":                `{% for i in range(99999) %}{% set x = range(99999)|sort(reverse=true) %}{% endfor %}`,
	"unique":                 `{% for i in range(99999) %}{% set x = range(99999)|unique|list %}{% endfor %}`,
	"map over map":           `{% for i in range(99999) %}{% set x = range(99999)|map('string')|map('length')|sum %}{% endfor %}`,
	"membership":             `{% set x = range(99999)|list %}{% for i in range(99999) %}{% if -1 in x %}{% endif %}{% endfor %}`,
	"text search":            `{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% if 'ab' in x %}{% endif %}{% endfor %}`,
	"counting":               `{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% set n = x.count('a') %}{% endfor %}`,
	"character by character": `{% set x = 'é' * 1000000 %}{% for i in range(99999) %}{% set c = x[i] %}{% endfor %}`,
	"splitting":              `{% set x = 'a ' * 1000000 %}{% for i in range(99999) %}{% set c = x.split() %}{% endfor %}`,
	"growing dict":           `{% set n = namespace(d={}) %}{% for i in range(99999) %}{% set n.d = dict(n.d, **{i|string: 1}) %}{% endfor %}`,
	"strftime":               `{{ strftime_now('%A%B%c' * 1000000) }}`,
	"cross joins":            `{% set x = ['a' * 99999] * 999 %}{{ x|join(x|join) }}`,
	"xmlattr":                `{% for i in range(9999) %}{% set x = {'a': '<' * 1000000}|xmlattr %}{% endfor %}`,
	"formatting":             `{% set x = '%s' * 99999 %}{% for i in range(9999) %}{{ x|format(*range(99999)) }}{% endfor %}`,
	"casing":                 `{% set x = 'éA' * 999999 %}{% for i in range(9999) %}{% set y = x.title().upper()|title %}{% endfor %}`,
	"groupby":                `{% for i in range(9999) %}{% set y = range(9999)|map('string')|list|groupby('x', default='') %}{% endfor %}`,
	"strip":                  `{% set x = 'ab' * 999999 %}{% for i in range(9999) %}{% set y = x.strip('ba') %}{% endfor %}`,
	"truncate":               `{% set x = 'é ' * 999999 %}{% for i in range(9999) %}{% set y = x|truncate(999) %}{% endfor %}`,
	"wrapping a long word":   `{{ ('ab' * 1000000)|wordwrap(1) }}`,
	"wrapping many words":    `{{ ('ab cd ' * 300000)|wordwrap(1) }}`,
	"wrapping hyphens":       `{{ ('ab-' * 1000000)|wordwrap(3) }}`,
	"linking a long word":    `{{ ('http://' ~ 'a.' * 1000000)|urlize }}`,
	"linking brackets":       `{{ ('(' * 1000000 ~ ')' * 1000000)|urlize }}`,
	"stripping many":         `{% set c = 'abcdefgh' * 500000 %}{% for i in range(9999) %}{% set y = c.strip(c) %}{% endfor %}`,
	"equal long strings":     `{% set a = ['x' * 4000000] * 99999 %}{% set b = 'x' * 4000000 %}{% for i in range(9999) %}{% set y = a.count(b) %}{% endfor %}`,
	"long keys":              `{% set k = 'x' * 4000000 %}{% set d = {k: 1} %}{% for i in range(99999) %}{% set y = d['x' * 4000000] %}{% endfor %}`,
	"splitting a long one":   `{% for i in range(9999) %}{% set y = ('a ' * 4000000).split()|length %}{% endfor %}`,
	"splitting lines":        `{% for i in range(9999) %}{% set y = ('\n' * 8000000).splitlines()|length %}{% endfor %}`,
	"splitting from behind":  `{% for i in range(9999) %}{% set y = ('a ' * 4000000).rsplit(' ')|length %}{% endfor %}`,
	"urlencode":              `{% set x = 'é ' * 999999 %}{% for i in range(9999) %}{% set y = x|urlencode %}{% endfor %}`,
	"pop":                    `{% set x = range(99999)|list %}{% for i in range(99999) %}{% set y = x.pop(1) %}{% endfor %}{{ 1 / 0 }}`,
}

// TestBombsAreRefusedInTime checks that every bomb ends with an error of kind
// "limit" in time.
func TestBombsAreRefusedInTime(t *testing.T) {
	for name, source := range bombs {
		t.Run(name, func(t *testing.T) {
			began := cpuTime(t)
			_, err := renderTemplate(t, source, `{}`)
			took := cpuTime(t) - began
			var e *Error
			if !errors.As(err, &e) || e.Kind != KindLimit {
				t.Errorf("error is %v, after %v", err, took)
			}
			if took > 250*time.Millisecond+slack {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestNestedSourceIsRefused checks that Compile refuses deep nesting of any
// construct.
func TestNestedSourceIsRefused(t *testing.T) {
	for _, part := range []string{
		"(", "[", "{1:", "not ", "-", "f(", "x[", "x|f(", "1 if ", "1 if 1 else ", "1+(", "a.b(", "'a'~(", "{'a': ", "x is f(", "x[1:", "f(*", "f(a=",
	} {
		err := compileError(t, "{{ "+strings.Repeat(part, 50_000))
		if err.Kind != KindLimit && err.Kind != KindSyntax {
			t.Errorf("%s: %v", part, err)
		}
	}
	for _, part := range []string{"{% if x %}", "{% for x in y %}", "{% set x %}", "{% macro f() %}", "{% with %}", "{% filter upper %}", "{% call f() %}"} {
		err := compileError(t, strings.Repeat(part, 20_000))
		if err.Kind != KindLimit && err.Kind != KindSyntax {
			t.Errorf("%s: %v", part, err)
		}
	}
	for _, part := range []string{"+x", ".x", "|upper", "[0]", "*2", " and x", " or x", "()", " is odd", "**x", " if x"} {
		err := compileError(t, "{{ x"+strings.Repeat(part, 50_000)+" }}")
		if err.Kind != KindLimit && err.Kind != KindSyntax {
			t.Errorf("x%s...: %v", part, err)
		}
	}
	var names strings.Builder
	for i := range 10_000 {
		names.WriteString("{% set x" + formatDecimal(i) + " = 1 %}{% if x %}{% endif %}")
	}
	for _, source := range []string{strings.Repeat("x", 1<<20), names.String()[:250_000]} {
		if err := compileError(t, source); err.Kind != KindLimit && err.Kind != KindSyntax {
			t.Error(err)
		}
	}
}

func compileError(t *testing.T, source string) *Error {
	t.Helper()
	began := time.Now()
	_, err := Compile(source, Limits{})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v to compile %.40s", took, source)
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%.40s...: compiled", source)
	}
	return e
}

// TestLongSourceCompiles checks that long templates without nesting compile.
func TestLongSourceCompiles(t *testing.T) {
	for _, part := range []string{"x", "{{ x }}", "{% if x %}y{% endif %}", "{% set x = 1 %}", "{# x #}", "{% for x in y %}{% endfor %}", "{{ x ~ y }}\n"} {
		began := time.Now()
		if _, err := Compile(strings.Repeat(part, 200_000/len(part)), Limits{}); err != nil {
			t.Errorf("%s: %v", part, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: took %v", part, took)
		}
	}
}

// TestRenderEndsWithItsContext checks that the end of the context ends a
// render.
func TestRenderEndsWithItsContext(t *testing.T) {
	template, err := Compile(`{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}`, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("client closed"))
	_, err = template.Render(ctx, NewDict(), noon)
	if err == nil || !strings.Contains(err.Error(), "client closed") {
		t.Error(err)
	}
}

// TestLimitsAreKept checks limits that differ from the defaults.
func TestLimitsAreKept(t *testing.T) {
	for _, test := range []struct {
		name, source string
		limits       Limits
	}{
		{"source", "{{ 1 }} and more", Limits{Source: 10}},
		{"nesting", "{{ ((((1)))) }}", Limits{Nesting: 3}},
		{"steps", "{% for i in range(100) %}{{ i }}{% endfor %}", Limits{Steps: 50}},
		{"output", "{% for i in range(100) %}{{ i }}{% endfor %}", Limits{Output: 50}},
		{"memory", "{% for i in range(100) %}{% set x = 'abc' * 10 %}{% endfor %}", Limits{Memory: 100}},
		{"depth", "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(20) }}", Limits{Depth: 10}},
		{"time", "{% for i in range(99999) %}{{ 'a'|upper }}{% endfor %}", Limits{Time: time.Microsecond}},
	} {
		template, err := Compile(test.source, test.limits)
		if err == nil {
			_, err = template.Render(t.Context(), NewDict(), noon)
		}
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindLimit {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
