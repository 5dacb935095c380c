package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// trafficPattern is a number of requests that each path gets in each round.
type trafficPattern struct {
	title       string
	body        string
	connections int // parallel connections
	calls       int // requests over all connections
}

var trafficPatterns = []trafficPattern{
	{"whole answers, 1 connection", askWhole, 1, 400},
	{"whole answers, 16 connections", askWhole, 16, 1600},
	{"streams of 64 pieces, 1 connection", askStream, 1, 80},
	{"streams of 64 pieces, 16 connections", askStream, 16, 320},
}

// trafficResult is the result of one traffic pattern on one path.
type trafficResult struct {
	took    []float64 // of every request, in milliseconds
	median  []float64 // of each round
	rate    []float64 // requests per second in each round
	cpuTime time.Duration
}

type trafficResults map[string]map[string]*trafficResult // by pattern and path

// measureTraffic measures all patterns on all paths, in random order in each round.
func (c *chatService) measureTraffic(rounds int) (trafficResults, error) {
	all := trafficResults{}
	for _, t := range trafficPatterns {
		all[t.title] = map[string]*trafficResult{}
		for _, w := range c.paths {
			all[t.title][w.name] = &trafficResult{}
			if err := new(trafficResult).measureRound(t, w); err != nil { // warm up: opens the proxies' connections
				return nil, err
			}
		}
	}
	for range rounds {
		for _, t := range trafficPatterns {
			for _, i := range rand.Perm(len(c.paths)) {
				w := c.paths[i]
				if err := all[t.title][w.name].measureRound(t, w); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", t.title, w.name, err)
				}
			}
		}
	}
	return all, nil
}

// measureRound adds one round to the result.
func (p *trafficResult) measureRound(t trafficPattern, w requestPath) error {
	took := make([][]float64, t.connections)
	errs := make([]error, t.connections)
	before, began := usedCPUTime(w.pid), time.Now()
	var group sync.WaitGroup
	for i := range t.connections {
		group.Go(func() { took[i], errs[i] = sendRequests(w, t.body, t.calls/t.connections) })
	}
	group.Wait()
	wall := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	all := slices.Concat(took...)
	p.took = append(p.took, all...)
	p.median = append(p.median, median(all))
	p.rate = append(p.rate, float64(len(all))/wall.Seconds())
	p.cpuTime += usedCPUTime(w.pid) - before
	return nil
}

// sendRequests sends requests one after the other over one connection, and returns their times in milliseconds.
func sendRequests(w requestPath, body string, calls int) ([]float64, error) {
	l, err := openConnection(w)
	if err != nil {
		return nil, err
	}
	defer l.conn.Close()
	took := make([]float64, 0, calls)
	for range calls {
		d, err := l.sendRequest(body)
		if err != nil {
			return nil, err
		}
		took = append(took, toMilliseconds(d))
	}
	return took, nil
}

// percentile99 returns the 99th percentile.
func percentile99(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)*99/100]
}
