package main

import (
	"errors"
	"fmt"
)

// measure measures all paths to the model. Memory comes first, before the server has served other requests.
func (c *chatService) measure(rounds int) (trafficResults, *heldMemory, error) {
	held, err := c.measureHeldStreams()
	if why, is := errors.AsType[notMeasured](err); is {
		held, err = &heldMemory{notMeasured: string(why)}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	all, err := c.measureTraffic(rounds)
	return all, held, err
}

func (c *chatService) report(all trafficResults, held *heldMemory) {
	fmt.Printf("%-36s %-8s %10s %10s %12s %14s\n", "a chat request", "", "p50", "p99", "calls/s", "CPU per call")
	for _, t := range trafficPatterns {
		for _, w := range c.paths {
			all[t.title][w.name].print(t.title, w)
		}
	}
	if c.nginx == nil {
		fmt.Println("nginx is not measured:", c.nginxMissing)
	}
	fmt.Println()
	for _, t := range trafficPatterns {
		of := all[t.title]
		for _, floor := range c.paths {
			if floor.name == "gateway" {
				continue
			}
			title := fmt.Sprintf("%s: gateway / %s", t.title, floor.name)
			printRatios(title+", p50", of["gateway"].median, of[floor.name].median)
			if t.connections > 1 { // with one connection, the rate follows from the latency
				printRatios(title+", calls/s", of["gateway"].rate, of[floor.name].rate)
			}
		}
	}
	fmt.Println()
	held.report()
}

func (p *trafficResult) print(title string, w requestPath) {
	fmt.Printf("%-36s %-8s %7.3f ms %7.3f ms %10.0f/s", title, w.name, median(p.took), percentile99(p.took), median(p.rate))
	if p.cpuTime > 0 {
		fmt.Printf(" %11.0f µs", toMicroseconds(p.cpuTime)/float64(len(p.took)))
	}
	fmt.Println()
}

func printRatios(title string, ours, floor []float64) {
	each := divideByFloors(ours, floor)
	fmt.Printf("%-64s %5.2f   each round:", title, median(each))
	for _, v := range each {
		fmt.Printf(" %.2f", v)
	}
	fmt.Println()
}

func (h *heldMemory) report() {
	if h.notMeasured != "" {
		fmt.Println("held streams are not measured:", h.notMeasured)
		return
	}
	for _, name := range []string{"gateway", "nginx"} {
		if kib, is := h.kibPerStream[name]; is {
			fmt.Printf("%-36s %7.1f KiB each of %d\n", "a held stream, "+name, kib, heldStreams)
		}
	}
	if nginx := h.kibPerStream["nginx"]; nginx > 0 {
		fmt.Printf("%-36s %7.2f\n", "a held stream, gateway / nginx", h.kibPerStream["gateway"]/nginx)
	}
}
