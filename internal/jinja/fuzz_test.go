package jinja

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzRender checks that no source and no variables make Compile, Render or
// FromJSON panic or run without end, and that each error has a kind.
func FuzzRender(f *testing.F) {
	for i := range uint64(40) {
		g := &grammar{Rand: rand.New(rand.NewPCG(7, i))}
		f.Add(g.template(), contexts[i%uint64(len(contexts))])
	}
	for _, source := range bombs {
		f.Add(source, `{}`)
	}
	for _, c := range languageCases {
		f.Add(c.template, languageVars)
	}
	f.Fuzz(func(t *testing.T, source, vars string) {
		v, err := FromJSON([]byte(vars))
		dict, is := v.(*Dict)
		if err != nil || !is {
			dict = NewDict()
		}
		began := cpuTime(t)
		template, err := Compile(source, Limits{Steps: 20_000, Memory: 16 << 20, Output: 1 << 20})
		var out string
		if err == nil {
			out, err = template.Render(t.Context(), dict, noon)
		}
		if took := cpuTime(t) - began; took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Kind == "" || e.Message == "" && e.Kind != KindRaise || e.Line < 1) {
			t.Errorf("error %#v", err)
		}
		if !utf8.ValidString(out) {
			t.Errorf("output is not UTF-8: %q", out)
		}
	})
}
