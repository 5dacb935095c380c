package main

import (
	"fmt"
	"slices"
)

// reportStart prints medians, the ratios of each round, and which goals are met.
func (b *benchmark) reportStart(samples map[string][]float64, memory float64) {
	fmt.Printf("%-36s %10s %19s\n", "", "median", "min – max")
	for _, line := range []struct{ name, title string }{
		{"process floor", "process: started directly"},
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
	if b.dockerMissing != "" {
		fmt.Println("docker is not measured:", b.dockerMissing)
	}
	for _, r := range []struct{ title, ours, floor string }{
		{"process apply / started directly", "process", "process floor"},
		{"docker apply / docker run", "docker", "docker floor"},
		{"read and checked / read", "read", "read floor"},
		{"dstack --version / docker --version", "cli", "docker cli"},
	} {
		if samples[r.ours] != nil && samples[r.floor] != nil {
			each := divideByFloors(samples[r.ours], samples[r.floor])
			fmt.Printf("%-36s %5.2f   each round:", r.title, median(each))
			for _, v := range each {
				fmt.Printf(" %.2f", v)
			}
			fmt.Println()
		}
	}
	fmt.Println()
	printMaximumGoal("a file of 100 lines: 0.3 ms", median(samples["read"]), 0.3, "ms")
	printMaximumGoal("dstack validate, 1000 such files: 1 s", median(samples["validate"])/1000, 1, "s")
	printMaximumGoal("process: 60 ms from apply to the first response", median(samples["process"]), 60, "ms")
	if b.dockerMissing == "" {
		printMaximumGoal("docker: 1.3 times the floor and 100 ms", median(samples["docker"]), 1.3*median(samples["docker floor"])+100, "ms")
		printMaximumGoal("start of the CLI: 0.7 times docker's", median(samples["cli"]), 0.7*median(samples["docker cli"]), "ms")
	}
	if memory > 0 {
		printMaximumGoal("an idle server: 40 MB", memory, 40, "MB")
	}
}

func printMaximumGoal(what string, got, most float64, unit string) {
	verdict := "met"
	if got > most {
		verdict = "missed"
	}
	fmt.Printf("%-7s %s: %.3g of %.3g %s\n", verdict, what, got, most, unit)
}

func divideByFloors(ours, floor []float64) []float64 {
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
