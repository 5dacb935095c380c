package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// measureLive is how services follow their load, and what many of them cost.
func (b *bench) measureLive(rounds int) error {
	if err := b.startServers(); err != nil {
		return err
	}
	samples, err := b.rounds(b.liveCases(), rounds)
	b.stopServers()
	if err != nil {
		return err
	}
	many, err := b.rounds([]measured{{"fleet", b.fleet}}, min(rounds, 5))
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	idle, err := b.idle()
	if err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	b.reportLive(samples, many["fleet"], idle)
	return nil
}

func (b *bench) liveCases() []measured {
	all := []measured{
		{"process floor", b.spawn},
		{"process wake", func() (float64, error) { return b.waking("process", "HOST=127.0.0.1", b.workload) }},
		{"lag", b.lag},
	}
	if b.docker == "" {
		all = append(all,
			measured{"docker floor", b.dockerRun},
			measured{"docker wake", func() (float64, error) { return b.waking("docker", "HOST=0.0.0.0", "/workload", "image: "+image) }},
		)
	}
	return all
}

// rounds measures each case once for nothing, since what is read for the first
// time is slow, and then once a round, in another order each time.
func (b *bench) rounds(cases []measured, rounds int) (map[string][]float64, error) {
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

// reportLive prints medians, what waking adds in each round, and the goals.
func (b *bench) reportLive(samples map[string][]float64, fleet []float64, idle idling) {
	fmt.Printf("%-36s %10s %19s\n", "", "median", "min – max")
	row := func(title, unit string, s []float64) {
		if s != nil {
			fmt.Printf("%-36s %7.4g %-4s %7.4g – %-6.4g %s\n", title, median(s), unit, slices.Min(s), slices.Max(s), unit)
		}
	}
	row("process: spawned by hand", "ms", samples["process floor"])
	row("process: a sleeping service", "ms", samples["process wake"])
	row("docker: docker run", "ms", samples["docker floor"])
	row("docker: a sleeping service", "ms", samples["docker wake"])
	row("lag of one more replica", "ms", samples["lag"])
	row(fmt.Sprintf("%d replicas, simulated", fleetReplicas), "/s", fleet)
	fmt.Printf("%-36s %7.1f KiB of heap and stacks, %.1f KiB of RSS, %.1f %% of a core\n",
		fmt.Sprintf("%d ready replicas, each and all", idle.replicas), idle.heap, idle.rss, idle.cpu)
	fmt.Println()
	if b.docker != "" {
		fmt.Println("docker is not measured:", b.docker)
	}
	added := map[string]float64{}
	for _, engine := range []string{"process", "docker"} {
		if wake := samples[engine+" wake"]; wake != nil {
			each := differences(wake, samples[engine+" floor"])
			added[engine] = median(each)
			fmt.Printf("%-36s %5.1f ms   each round:", engine+": added by waking", median(each))
			for _, v := range each {
				fmt.Printf(" %.1f", v)
			}
			fmt.Println()
		}
	}
	fmt.Println()
	goal("waking a process adds 100 ms", added["process"], 100, "ms")
	if b.docker == "" {
		goal("waking a container adds 100 ms", added["docker"], 100, "ms")
	}
	goal("one more replica is asked for within 1 s", median(samples["lag"])/1000, 1, "s")
	atLeast("1000 replicas a second become ready", median(fleet), 1000, "/s")
	goal("a ready replica at rest: 32 KiB of heap and stacks", idle.heap, 32, "KiB")
	if idle.rss > 0 {
		goal("a ready replica at rest: 32 KiB of RSS", idle.rss, 32, "KiB")
	}
	goal("10 000 ready replicas at rest: 10 % of a core", idle.cpu, 10, "%")
}

// atLeast is a goal of which more is better.
func atLeast(what string, got, least float64, unit string) {
	verdict := "met"
	if got < least {
		verdict = "missed"
	}
	fmt.Printf("%-7s %s: %.3g of %.3g %s\n", verdict, what, got, least, unit)
}

func differences(ours, floor []float64) []float64 {
	out := make([]float64, len(ours))
	for i := range ours {
		out[i] = ours[i] - floor[i]
	}
	return out
}
