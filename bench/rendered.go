package main

import (
	"fmt"
	"slices"
)

// rendered is both sides' costs of each template, the median of all rounds.
type rendered struct {
	conversations int
	ours, theirs  map[string]cost
}

// timesFaster is the goal for one render.
const timesFaster = 8

// report prints medians over the templates, and what of the goal was met.
func (r *rendered) report() {
	pairs := 0
	for _, our := range r.ours {
		pairs += len(our.OK)
	}
	fmt.Printf("%d chat templates, %d conversations, the %d pairs that both render\n", len(r.ours), r.conversations, pairs)
	fmt.Printf("%-36s %10s %10s %13s %17s\n", "median over the templates", "ours", "jinja2", "times faster", "min – max")
	render := r.line("one render", cost.rendering)
	r.line("one render, with reading its JSON", cost.reading)
	r.line("compile", cost.compiling)
	verdict := "met"
	if render < timesFaster {
		verdict = "missed"
	}
	fmt.Printf("\n%-7s a render: %d times as fast as python3-jinja2: %.1f times\n", verdict, timesFaster, render)
}

// line prints one figure, and returns how many times faster ours is.
func (r *rendered) line(title string, of func(cost) float64) float64 {
	var ours, theirs []float64
	for name, our := range r.ours {
		if len(our.OK) > 0 { // one that renders nothing takes no time for it
			ours, theirs = append(ours, of(our)), append(theirs, of(r.theirs[name]))
		}
	}
	times := ratios(theirs, ours)
	fmt.Printf("%-36s %7.1f µs %7.1f µs %13.2f %8.2f – %.2f\n", title,
		median(ours), median(theirs), median(times), slices.Min(times), slices.Max(times))
	return median(times)
}
