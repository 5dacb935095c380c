package main

import (
	"errors"
	"fmt"
)

// measure is all that is measured of the ways to a model. The memory comes
// first, while the server is fresh.
func (c *chat) measure(rounds int) (passages, *holding, error) {
	held, err := c.held()
	if why, is := errors.AsType[notMeasured](err); is {
		held, err = &holding{without: string(why)}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	all, err := c.send(rounds)
	return all, held, err
}

func (c *chat) report(all passages, held *holding) {
	fmt.Printf("%-36s %-8s %10s %10s %12s %14s\n", "a chat request", "", "p50", "p99", "calls/s", "CPU a call")
	for _, t := range traffics {
		for _, w := range c.ways {
			all[t.title][w.name].print(t.title, w)
		}
	}
	if c.nginx == nil {
		fmt.Println("nginx is not measured:", c.without)
	}
	fmt.Println()
	for _, t := range traffics {
		of := all[t.title]
		for _, floor := range c.ways {
			if floor.name == "gateway" {
				continue
			}
			title := fmt.Sprintf("%s: gateway / %s", t.title, floor.name)
			compare(title+", p50", of["gateway"].median, of[floor.name].median)
			if t.lines > 1 { // with one it is the same figure
				compare(title+", calls/s", of["gateway"].rate, of[floor.name].rate)
			}
		}
	}
	fmt.Println()
	held.report()
}

func (p *passage) print(title string, w way) {
	fmt.Printf("%-36s %-8s %7.3f ms %7.3f ms %10.0f/s", title, w.name, median(p.took), high(p.took), median(p.rate))
	if p.busy > 0 {
		fmt.Printf(" %11.0f µs", microseconds(p.busy)/float64(len(p.took)))
	}
	fmt.Println()
}

func compare(title string, ours, floor []float64) {
	each := ratios(ours, floor)
	fmt.Printf("%-64s %5.2f   each round:", title, median(each))
	for _, v := range each {
		fmt.Printf(" %.2f", v)
	}
	fmt.Println()
}

func (h *holding) report() {
	if h.without != "" {
		fmt.Println("held streams are not measured:", h.without)
		return
	}
	for _, name := range []string{"gateway", "nginx"} {
		if kib, is := h.each[name]; is {
			fmt.Printf("%-36s %7.1f KiB each of %d\n", "a held stream, "+name, kib, heldStreams)
		}
	}
	if nginx := h.each["nginx"]; nginx > 0 {
		fmt.Printf("%-36s %7.2f\n", "a held stream, gateway / nginx", h.each["gateway"]/nginx)
	}
}
