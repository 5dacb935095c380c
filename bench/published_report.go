package main

import (
	"fmt"
	"slices"
	"strings"
)

// publishedReport has everything that was measured beside the published releases.
type publishedReport struct {
	peers    []*peer
	requests map[requestKey]map[string]*requestResult
	commands map[string][]float64 // CPU in milliseconds, by name and command
	idle     map[string]idlePeer
	goals    []string // a line for each
}

// The goals.
const (
	minRequestRatio = 10.0  // of latency, CPU and rate
	minCommandRatio = 100.0 // of CPU
	minMemoryRatio  = 8.0   // of the newest release
)

// listOwners returns our first peer and the published ones: those whose commands and memory are measured.
func (r *publishedReport) listOwners() []*peer {
	return slices.DeleteFunc(slices.Clone(r.peers), func(p *peer) bool { return p.name == oursNewest })
}

// printRequests prints what was measured of one kind of request.
func (r *publishedReport) printRequests(key requestKey) {
	for _, p := range r.peers {
		q := r.requests[key][p.name]
		fmt.Printf("%-26s %4d runs %-15s p50 %9.3f ms   p99 %9.3f ms   CPU %9.3f ms %9.0f calls/s\n", key.title, key.runs, p.name,
			median(q.took), percentile99(q.took), median(q.cpu), median(q.rate))
	}
	for _, p := range r.peers {
		if p.rival == "" {
			continue
		}
		ours, theirs := r.requests[key][p.rival], r.requests[key][p.name]
		title := fmt.Sprintf("%s, %d runs: %s / ours", key.title, key.runs, p.name)
		latency, cpu := divideByFloors(theirs.median, ours.median), divideByFloors(theirs.cpu, ours.cpu)
		rate := divideByFloors(ours.rate, theirs.rate)
		fmt.Printf("%-52s p50 %6.1f   CPU %6.1f   calls/s %6.1f   CPU in each round: %s\n", title, median(latency), median(cpu),
			median(rate), formatRatios(cpu))
		r.addGoal(title, min(median(latency), median(cpu), median(rate)), minRequestRatio)
	}
}

// printCommands prints the CPU of the command lines.
func (r *publishedReport) printCommands() {
	owners := r.listOwners()
	fmt.Println()
	for _, args := range measuredCommands {
		command := strings.Join(args, " ")
		for _, p := range owners {
			s := r.commands[p.name+" "+command]
			fmt.Printf("%-36s %9.3f ms CPU %8.4g – %-6.4g ms\n", p.name+": dstack "+command, median(s), slices.Min(s), slices.Max(s))
		}
		for _, p := range owners[1:] {
			each := divideByFloors(r.commands[p.name+" "+command], r.commands[owners[0].name+" "+command])
			title := fmt.Sprintf("dstack %s: %s / ours", command, p.name)
			fmt.Printf("%-36s %9.1f   each round: %s\n", title, median(each), formatRatios(each))
			r.addGoal(title, median(each), minCommandRatio)
		}
	}
	fmt.Println()
}

// printIdle prints what idle servers cost, and then which goals are met.
func (r *publishedReport) printIdle() {
	owners := r.listOwners()
	fmt.Println()
	for _, p := range owners {
		i := r.idle[p.name]
		fmt.Printf("%-26s RSS %7.1f MB   PSS %7.1f MB   private %7.1f MB   CPU %6.3f %% of a core   %6.1f waits/s\n",
			p.name+": idle for a minute", i.rss, i.pss, i.private, i.cpu, i.wakes)
	}
	newest := owners[len(owners)-1].name
	r.addGoal("memory of an idle server: "+newest+" / ours", r.idle[newest].pss/r.idle[owners[0].name].pss, minMemoryRatio)
	fmt.Println()
	for _, goal := range r.goals {
		fmt.Println(goal)
	}
}

func formatRatios(values []float64) string {
	texts := make([]string, 0, len(values))
	for _, v := range values {
		texts = append(texts, fmt.Sprintf("%.1f", v))
	}
	return strings.Join(texts, " ")
}

func (r *publishedReport) addGoal(what string, got, least float64) {
	verdict := "met"
	if got < least {
		verdict = "missed"
	}
	r.goals = append(r.goals, fmt.Sprintf("%-7s %s: %.1f of at least %.4g", verdict, what, got, least))
}
