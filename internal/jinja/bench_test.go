package jinja

import (
	"testing"

	"dstack/internal/jinja/jinjatest"
)

// compileCorpus returns the compiled templates and the variables of all
// conversations of the corpus.
func compileCorpus(b *testing.B) (list []*Template, vars []*Dict) {
	root := corpusDir(b)
	for _, file := range templateFiles(b, root) {
		if t, err := Compile(string(readFile(b, file)), Limits{}); err == nil {
			list = append(list, t)
		}
	}
	for _, c := range readConversations(b, root) {
		vars = append(vars, c.vars(b))
	}
	return list, vars
}

// BenchmarkRender renders one conversation with one template of the corpus per
// operation. It includes renders that fail as in Python.
func BenchmarkRender(b *testing.B) {
	list, vars := compileCorpus(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		list[i%len(list)].Render(b.Context(), vars[i/len(list)%len(vars)], noon)
	}
}

// BenchmarkCompile compiles one template of the corpus per operation.
func BenchmarkCompile(b *testing.B) {
	var sources []string
	for _, file := range templateFiles(b, corpusDir(b)) {
		sources = append(sources, string(readFile(b, file)))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Compile(sources[i%len(sources)], Limits{})
	}
}

// BenchmarkFromJSON decodes one conversation per operation.
func BenchmarkFromJSON(b *testing.B) {
	all := readConversations(b, corpusDir(b))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		FromJSON(all[i%len(all)].json)
	}
}

// BenchmarkAgainstPython compares the time of one render with Python's, both
// with compiled templates. It leaves out renders that fail.
func BenchmarkAgainstPython(b *testing.B) {
	p := jinjatest.Start(b)
	root := corpusDir(b)
	var ours, theirs, renders float64
	for _, c := range readConversations(b, root) {
		vars := c.vars(b)
		for _, file := range templateFiles(b, root) {
			source := string(readFile(b, file))
			a := p.Ask(b, jinjatest.Question{Template: source, Vars: c.json, Repeat: 3})
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
			ours += measureMicroseconds(func() {
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
