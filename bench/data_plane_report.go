package main

import (
	"fmt"
	"math"
	"slices"
)

// planeResult has the figures of one row: of every round, of every proxy.
type planeResult struct {
	row     planeRow
	proxies []*proxy
	rounds  [][]loadFigures
}

// The conditions under which a row is valid.
const (
	maxVariation  = 0.4 // of the direct rate: standard deviation in relation to the mean
	maxDifference = 0.1 // of the CPU of ours and ours again
)

func (r planeResult) column(name string, of func(loadFigures) float64) []float64 {
	i := slices.IndexFunc(r.proxies, func(p *proxy) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	all := make([]float64, len(r.rounds))
	for n, round := range r.rounds {
		all[n] = of(round[i])
	}
	return all
}

func cpuOf(f loadFigures) float64  { return f.cpu }
func rateOf(f loadFigures) float64 { return f.rate }
func p50Of(f loadFigures) float64  { return f.p50 }
func p99Of(f loadFigures) float64  { return f.p99 }

// check returns why the row is not valid, or an empty string.
func (r planeResult) check() string {
	if rates := r.column(direct, rateOf); rates != nil {
		sum, squares := 0.0, 0.0
		for _, v := range rates {
			sum, squares = sum+v, squares+v*v
		}
		mean := sum / float64(len(rates))
		if variation := math.Sqrt(squares/float64(len(rates))-mean*mean) / mean; variation > maxVariation {
			return fmt.Sprintf("the direct rate varies by %.0f %%", 100*variation)
		}
	}
	if again := r.column(oursAgain, cpuOf); again != nil && again[0] > 0 {
		null := median(divideByFloors(r.column(ours, cpuOf), again))
		if math.Abs(null-1) > maxDifference {
			return fmt.Sprintf("the same program differs from itself: %.2f times the CPU", null)
		}
	}
	return ""
}

func (r planeResult) report() {
	fmt.Printf("\n%s (load %.4s)\n", r.row.title, readLoadAverage())
	why := r.check()
	if why != "" {
		fmt.Println("INVALID:", why)
		return
	}
	fmt.Printf("  %-26s %12s %26s %11s %11s\n", "", r.row.unit+"s/s", "CPU µs a "+r.row.unit, r.row.times[0], r.row.times[1])
	for _, p := range r.proxies {
		cpu := r.column(p.name, cpuOf)
		text := ""
		if p.pid != 0 {
			text = fmt.Sprintf("%.1f (%.1f to %.1f)", median(cpu), slices.Min(cpu), slices.Max(cpu))
		}
		fmt.Printf("  %-26s %12.0f %26s %8.3f ms %8.3f ms", p.name, median(r.column(p.name, rateOf)), text,
			median(r.column(p.name, p50Of)), median(r.column(p.name, p99Of)))
		broken := 0.0
		for _, n := range r.column(p.name, func(f loadFigures) float64 { return float64(f.broken) }) {
			broken += n
		}
		if broken > 0 {
			fmt.Printf("   %.0f streams broke", broken)
		}
		fmt.Println()
	}
	for _, p := range r.proxies {
		if p.pid == 0 || p.name == ours {
			continue
		}
		fmt.Printf("  gateway / %-26s CPU %5.2f   rate %5.2f\n", p.name, median(r.ratios(p.name, cpuRatio)), median(r.ratios(p.name, rateRatio)))
	}
	for _, goal := range r.row.goals {
		ratios := r.ratios(goal.peer, goal.ratio)
		if ratios == nil {
			continue
		}
		title := fmt.Sprintf("%s: %s, in relation to %s", r.row.title, goal.what, goal.peer)
		if goal.isFloor {
			printMinimumGoal(title, median(ratios), goal.bound, "times")
		} else {
			printMaximumGoal(title, median(ratios), goal.bound, "times")
		}
	}
}

// ratios returns the ratio of every round; nil: the peer is not measured.
func (r planeResult) ratios(peer string, ratio func(ours, peer, direct loadFigures) float64) []float64 {
	at := func(name string) int {
		return slices.IndexFunc(r.proxies, func(p *proxy) bool { return p.name == name })
	}
	mine, theirs, floor := at(ours), at(peer), at(direct)
	if mine < 0 || theirs < 0 {
		return nil
	}
	all := make([]float64, len(r.rounds))
	for n, round := range r.rounds {
		var without loadFigures
		if floor >= 0 {
			without = round[floor]
		}
		all[n] = ratio(round[mine], round[theirs], without)
	}
	return all
}
