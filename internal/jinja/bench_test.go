package jinja

import (
	"testing"
)

// compiled is the corpus, ready to render.
func compiled(b *testing.B) (list []*Template, vars []*Dict) {
	root := corpus(b)
	for _, file := range templates(b, root) {
		if t, err := Compile(string(read(b, file)), Limits{}); err == nil {
			list = append(list, t)
		}
	}
	for _, c := range conversations(b, root) {
		vars = append(vars, c.vars(b))
	}
	return list, vars
}

// One operation renders one conversation with one template of the corpus;
// renders that fail, as in Python, count too.
func BenchmarkRender(b *testing.B) {
	list, vars := compiled(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		list[i%len(list)].Render(b.Context(), vars[i/len(list)%len(vars)], noon)
	}
}

// One operation compiles one template of the corpus.
func BenchmarkCompile(b *testing.B) {
	var sources []string
	for _, file := range templates(b, corpus(b)) {
		sources = append(sources, string(read(b, file)))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Compile(sources[i%len(sources)], Limits{})
	}
}

// One operation reads one conversation.
func BenchmarkFromJSON(b *testing.B) {
	all := conversations(b, corpus(b))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		FromJSON(all[i%len(all)].json)
	}
}

// Python renders what BenchmarkRender does: microseconds of one render, from
// templates that are compiled already. Renders that fail are left out on both
// sides here.
func BenchmarkAgainstPython(b *testing.B) {
	p := oracle(b)
	root := corpus(b)
	var ours, theirs, renders float64
	for _, c := range conversations(b, root) {
		vars := c.vars(b)
		for _, file := range templates(b, root) {
			source := string(read(b, file))
			a := p.ask(b, question{Template: source, Vars: c.json, Repeat: 3})
			if !a.OK {
				continue
			}
			t, err := Compile(source, Limits{})
			if err != nil {
				b.Fatal(err)
			}
			theirs += a.Microseconds
			t.Render(b.Context(), vars, noon)
			const repeat = 20
			ours += microseconds(func() {
				for range repeat {
					t.Render(b.Context(), vars, noon)
				}
			}) / repeat
			renders++
		}
	}
	for b.Loop() {
	}
	b.ReportMetric(ours/renders, "µs/render")
	b.ReportMetric(theirs/renders, "python-µs/render")
	b.ReportMetric(theirs/ours, "times-faster")
}
