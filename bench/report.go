package main

import (
	"fmt"
	"slices"
)

// report prints medians, the ratios of each round, and the goals.
func (b *bench) report(samples map[string][]float64, memory float64) {
	fmt.Printf("%-36s %10s %19s\n", "", "median", "min – max")
	for _, line := range []struct{ name, title string }{
		{"process floor", "process: spawned by hand"},
		{"process", "process: dstack apply"},
		{"process folder", "process: with a folder of 6 MB"},
		{"docker floor", "docker: docker run"},
		{"docker", "docker: dstack apply"},
		{"read floor", "100 lines: read by the YAML library"},
		{"read", "100 lines: read and checked"},
		{"validate", "dstack validate, 1000 such files"},
		{"cli", "dstack --version, CPU"},
		{"docker cli", "docker --version, CPU"},
	} {
		if s := samples[line.name]; s != nil {
			fmt.Printf("%-36s %7.4g ms %8.4g – %-6.4g ms\n", line.title, median(s), slices.Min(s), slices.Max(s))
		}
	}
	if memory > 0 {
		fmt.Printf("%-36s %7.1f MB\n", "idle server", memory)
	}
	fmt.Println()
	if b.docker != "" {
		fmt.Println("docker is not measured:", b.docker)
	}
	for _, r := range []struct{ title, ours, floor string }{
		{"process apply / spawned by hand", "process", "process floor"},
		{"docker apply / docker run", "docker", "docker floor"},
		{"read and checked / read", "read", "read floor"},
		{"dstack --version / docker --version", "cli", "docker cli"},
	} {
		if samples[r.ours] != nil && samples[r.floor] != nil {
			each := ratios(samples[r.ours], samples[r.floor])
			fmt.Printf("%-36s %5.2f   each round:", r.title, median(each))
			for _, v := range each {
				fmt.Printf(" %.2f", v)
			}
			fmt.Println()
		}
	}
	fmt.Println()
	goal("a file of 100 lines: 0.3 ms", median(samples["read"]), 0.3, "ms")
	goal("dstack validate, 1000 such files: 1 s", median(samples["validate"])/1000, 1, "s")
	goal("process: 60 ms from apply to the first answer", median(samples["process"]), 60, "ms")
	if b.docker == "" {
		goal("docker: 1.3 times the floor and 100 ms", median(samples["docker"]), 1.3*median(samples["docker floor"])+100, "ms")
		goal("start of the CLI: 0.7 times docker's", median(samples["cli"]), 0.7*median(samples["docker cli"]), "ms")
	}
	if memory > 0 {
		goal("an idle server: 40 MB", memory, 40, "MB")
	}
}

func goal(what string, got, most float64, unit string) {
	verdict := "met"
	if got > most {
		verdict = "missed"
	}
	fmt.Printf("%-7s %s: %.3g of %.3g %s\n", verdict, what, got, most, unit)
}

func ratios(ours, floor []float64) []float64 {
	out := make([]float64, len(ours))
	for i := range ours {
		out[i] = ours[i] / floor[i]
	}
	return out
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
