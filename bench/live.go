package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// measureLive measures how fast services follow their load, and the cost of many replicas.
func (b *benchmark) measureLive(rounds int) error {
	if err := b.startServers(); err != nil {
		return err
	}
	samples, err := b.runRounds(b.liveCases(), rounds)
	b.stopServers()
	if err != nil {
		return err
	}
	many, err := b.runRounds([]benchmarkCase{{"fleet", b.measureFleet}}, min(rounds, 5))
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	idle, err := b.measureIdleFleet()
	if err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	b.reportLive(samples, many["fleet"], idle)
	return nil
}

func (b *benchmark) liveCases() []benchmarkCase {
	all := []benchmarkCase{
		{"process floor", b.measureSpawn},
		{"process wake", func() (float64, error) { return b.measureWake("process", "HOST=127.0.0.1", b.workload) }},
		{"lag", b.measureScaleUpLag},
	}
	if b.dockerMissing == "" {
		all = append(all,
			benchmarkCase{"docker floor", b.measureDockerRun},
			benchmarkCase{"docker wake", func() (float64, error) {
				return b.measureWake("docker", "HOST=0.0.0.0", "/workload", "image: "+workloadImage)
			}},
		)
	}
	return all
}

// runRounds measures each case once to warm up, without keeping the result, and then once per round, in random order.
func (b *benchmark) runRounds(cases []benchmarkCase, rounds int) (map[string][]float64, error) {
	samples := map[string][]float64{}
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(cases)) {
			v, err := cases[i].measure()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", cases[i].name, err)
			}
			if round > 0 {
				samples[cases[i].name] = append(samples[cases[i].name], v)
			}
		}
	}
	return samples, nil
}

// reportLive prints medians, what waking adds in each round, and which goals are met.
func (b *benchmark) reportLive(samples map[string][]float64, fleet []float64, idle idleCost) {
	fmt.Printf("%-36s %10s %19s\n", "", "median", "min – max")
	row := func(title, unit string, s []float64) {
		if s != nil {
			fmt.Printf("%-36s %7.4g %-4s %7.4g – %-6.4g %s\n", title, median(s), unit, slices.Min(s), slices.Max(s), unit)
		}
	}
	row("process: started directly", "ms", samples["process floor"])
	row("process: a sleeping service", "ms", samples["process wake"])
	row("docker: docker run", "ms", samples["docker floor"])
	row("docker: a sleeping service", "ms", samples["docker wake"])
	row("lag of one more replica", "ms", samples["lag"])
	row(fmt.Sprintf("%d replicas, simulated", fleetReplicas), "/s", fleet)
	fmt.Printf("%-36s %7.1f KiB of heap and stacks, %.1f KiB of RSS, %.1f %% of a core\n",
		fmt.Sprintf("%d ready replicas, each and in all", idle.replicas), idle.heap, idle.rss, idle.cpu)
	fmt.Println()
	if b.dockerMissing != "" {
		fmt.Println("docker is not measured:", b.dockerMissing)
	}
	added := map[string]float64{}
	for _, engine := range []string{"process", "docker"} {
		if wake := samples[engine+" wake"]; wake != nil {
			each := subtractFloors(wake, samples[engine+" floor"])
			added[engine] = median(each)
			fmt.Printf("%-36s %5.1f ms   each round:", engine+": added by waking", median(each))
			for _, v := range each {
				fmt.Printf(" %.1f", v)
			}
			fmt.Println()
		}
	}
	fmt.Println()
	printMaximumGoal("waking a process adds 100 ms", added["process"], 100, "ms")
	if b.dockerMissing == "" {
		printMaximumGoal("waking a container adds 100 ms", added["docker"], 100, "ms")
	}
	printMaximumGoal("one more replica is created within 1 s", median(samples["lag"])/1000, 1, "s")
	printMinimumGoal("1000 replicas per second become ready", median(fleet), 1000, "/s")
	printMaximumGoal("an idle ready replica: 32 KiB of heap and stacks", idle.heap, 32, "KiB")
	if idle.rss > 0 {
		printMaximumGoal("an idle ready replica: 32 KiB of RSS", idle.rss, 32, "KiB")
	}
	printMaximumGoal("10 000 idle ready replicas: 10 % of a core", idle.cpu, 10, "%")
}

// printMinimumGoal prints whether a figure reaches a minimum.
func printMinimumGoal(what string, got, least float64, unit string) {
	verdict := "met"
	if got < least {
		verdict = "missed"
	}
	fmt.Printf("%-7s %s: %.3g of %.3g %s\n", verdict, what, got, least, unit)
}

func subtractFloors(ours, floor []float64) []float64 {
	out := make([]float64, len(ours))
	for i := range ours {
		out[i] = ours[i] - floor[i]
	}
	return out
}
