package main

import (
	"fmt"
	"slices"
)

// templateResults has the median cost of each template, for our engine and for Python's.
type templateResults struct {
	conversations int
	ours, theirs  map[string]templateCost
}

// minSpeedup is the goal for rendering, as a multiple of Python's speed.
const minSpeedup = 8

// report prints medians over the templates, and whether the goal is met.
func (r *templateResults) report() {
	pairs := 0
	for _, our := range r.ours {
		pairs += len(our.OK)
	}
	fmt.Printf("%d chat templates, %d conversations, the %d pairs that both render\n", len(r.ours), r.conversations, pairs)
	fmt.Printf("%-36s %10s %10s %13s %17s\n", "median over the templates", "ours", "jinja2", "times faster", "min – max")
	render := r.printLine("one render", templateCost.renderTime)
	r.printLine("one render, with reading its JSON", templateCost.readTime)
	r.printLine("compile", templateCost.compileTime)
	verdict := "met"
	if render < minSpeedup {
		verdict = "missed"
	}
	fmt.Printf("\n%-7s a render: %d times as fast as transformers: %.1f times\n", verdict, minSpeedup, render)
}

// printLine prints one figure and returns how many times faster our engine is.
func (r *templateResults) printLine(title string, of func(templateCost) float64) float64 {
	var ours, theirs []float64
	for name, our := range r.ours {
		if len(our.OK) > 0 { // a template that renders nothing takes no time
			ours, theirs = append(ours, of(our)), append(theirs, of(r.theirs[name]))
		}
	}
	times := divideByFloors(theirs, ours)
	fmt.Printf("%-36s %7.1f µs %7.1f µs %13.2f %8.2f – %.2f\n", title,
		median(ours), median(theirs), median(times), slices.Min(times), slices.Max(times))
	return median(times)
}
