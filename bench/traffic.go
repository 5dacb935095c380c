package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// traffic is what is sent every way in each round.
type traffic struct {
	title string
	body  string
	lines int // connections at a time
	calls int // on all of them together
}

var traffics = []traffic{
	{"whole answers, 1 connection", askWhole, 1, 400},
	{"whole answers, 16 connections", askWhole, 16, 1600},
	{"streams of 64 pieces, 1 connection", askStream, 1, 80},
	{"streams of 64 pieces, 16 connections", askStream, 16, 320},
}

// passage is how one traffic went one way: in each round, and all together.
type passage struct {
	took   []float64 // of every call, in milliseconds
	median []float64 // of each round
	rate   []float64 // calls a second in each round
	busy   time.Duration
}

type passages map[string]map[string]*passage // by traffic, by way

// send measures all traffics on all ways, in another order each round.
func (c *chat) send(rounds int) (passages, error) {
	all := passages{}
	for _, t := range traffics {
		all[t.title] = map[string]*passage{}
		for _, w := range c.ways {
			all[t.title][w.name] = &passage{}
			if err := new(passage).add(t, w); err != nil { // once for nothing: connections are opened
				return nil, err
			}
		}
	}
	for range rounds {
		for _, t := range traffics {
			for _, i := range rand.Perm(len(c.ways)) {
				w := c.ways[i]
				if err := all[t.title][w.name].add(t, w); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", t.title, w.name, err)
				}
			}
		}
	}
	return all, nil
}

// add is one round.
func (p *passage) add(t traffic, w way) error {
	took := make([][]float64, t.lines)
	errs := make([]error, t.lines)
	before, began := busy(w.pid), time.Now()
	var group sync.WaitGroup
	for i := range t.lines {
		group.Go(func() { took[i], errs[i] = many(w, t.body, t.calls/t.lines) })
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
	p.busy += busy(w.pid) - before
	return nil
}

// many calls one after the other on one connection.
func many(w way, body string, calls int) ([]float64, error) {
	l, err := dial(w)
	if err != nil {
		return nil, err
	}
	defer l.conn.Close()
	took := make([]float64, 0, calls)
	for range calls {
		d, err := l.call(body)
		if err != nil {
			return nil, err
		}
		took = append(took, milliseconds(d))
	}
	return took, nil
}

// high is what all but one in a hundred stay below.
func high(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)*99/100]
}
