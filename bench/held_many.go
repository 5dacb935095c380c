package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// heldCounts are the numbers of streams that are held at once.
var heldCounts = []int{3000, 9000}

const heldGoal = 8 // KiB

// heldFigures are what one stream takes in a program, in KiB.
type heldFigures struct {
	pss   float64
	inUse float64 // heap and stacks that are in use, of a server of ours
}

// measureHeld measures the memory of streams that are held, of one program after the other, if the pattern matches.
func (d *dataPlane) measureHeld(pattern string) error {
	if match, err := regexp.MatchString(pattern, heldTitle); err != nil || !match {
		return err
	}
	var limit syscall.Rlimit // Go has raised the soft limit already
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	most := heldCounts[len(heldCounts)-1]
	if limit.Cur < uint64(2*most+500) {
		fmt.Printf("held streams are not measured: they need %d open files, and ulimit -n is %d\n", 2*most+500, limit.Cur)
		return nil
	}
	seen := map[string][]heldFigures{}
	fmt.Printf("\n%s, PSS of each (in brackets: heap and stacks in use, of ours)\n", heldTitle)
	for _, p := range d.proxies {
		if p.pid == 0 || p.name == nginxMemory || p.name == nginxAuthed {
			continue
		}
		var err error
		if seen[p.name], err = p.holdStreams(); err != nil {
			if p.metrics != "" {
				return fmt.Errorf("held streams, %s: %w", p.name, err)
			}
			delete(seen, p.name)
			fmt.Printf("  %-26s is not measured: %.200s\n", p.name, strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Printf("  %-26s", p.name)
		for i, f := range seen[p.name] {
			fmt.Printf("  %5d: %5.1f KiB", heldCounts[i], f.pss)
			if f.inUse > 0 {
				fmt.Printf(" (%.1f KiB)", f.inUse)
			}
		}
		fmt.Println()
	}
	for i, n := range heldCounts {
		printMaximumGoal(fmt.Sprintf("%d held streams: heap and stacks of each", n), seen[ours][i].inUse, heldGoal, "KiB")
		printMaximumGoal(fmt.Sprintf("%d held streams: PSS of each", n), seen[ours][i].pss, heldGoal, "KiB")
		if nginx := seen[nginxPlain]; nginx != nil {
			printMaximumGoal(fmt.Sprintf("%d held streams: PSS, in relation to nginx", n), seen[ours][i].pss/nginx[i].pss, 0.65, "times")
		}
	}
	return nil
}

// holdStreams opens more and more streams.
func (p *proxy) holdStreams() (all []heldFigures, err error) {
	if _, err := (streamLoad{streamClients, 20, time.Millisecond, 1}).run(p); err != nil { // so that one-time allocations do not count
		return nil, err
	}
	time.Sleep(settleTime)
	before, err := p.readMemory()
	if err != nil {
		return nil, err
	}
	var conns []*rawConnection
	defer func() {
		for _, c := range conns {
			_ = c.conn.Close() // no longer needed
		}
	}()
	for _, n := range heldCounts {
		more, err := p.openHeld(n - len(conns))
		conns = append(conns, more...)
		if err != nil {
			return nil, err
		}
		time.Sleep(settleTime)
		now, err := p.readMemory()
		if err != nil {
			return nil, err
		}
		all = append(all, heldFigures{(now.pss - before.pss) / float64(len(conns)), (now.inUse - before.inUse) / float64(len(conns))})
	}
	return all, nil
}

// openHeld opens streams, some at a time, and reads the first piece of each. It leaves out those that the program breaks, if they are few
// (see streamLimit).
func (p *proxy) openHeld(n int) ([]*rawConnection, error) {
	const openers = 10
	var mu sync.Mutex
	var conns []*rawConnection
	var failures []error
	var group sync.WaitGroup
	for opener := range openers {
		group.Go(func() {
			for range (n + opener) / openers {
				c, err := dialEndpoint(p.tokens, heldBody)
				if err == nil {
					c.in.Reset(c.conn)
					if _, err = c.begin(); err == nil {
						_, err = c.in.ReadSlice('{') // of the first piece
					}
				}
				mu.Lock()
				switch {
				case err != nil:
					failures = append(failures, err)
				case c != nil:
					conns = append(conns, c)
				}
				mu.Unlock()
				if err != nil && c != nil {
					_ = c.conn.Close() // it is broken
				}
			}
		})
	}
	group.Wait()
	if len(failures) > n/20 {
		return conns, errors.Join(failures...)
	}
	return conns, nil
}

// readMemory returns the memory of the program, in KiB; heap and stacks only of ours, after a collection of garbage.
func (p *proxy) readMemory() (f heldFigures, err error) {
	if p.metrics != "" {
		values, err := readMetrics(p.metrics)
		if err != nil {
			return f, err
		}
		f.inUse = (values["go_memstats_heap_inuse_bytes"] + values["go_memstats_stack_inuse_bytes"]) / 1024
	}
	f.pss, err = sumMemory(p.pid, "Pss:")
	return f, err
}

// readMetrics returns the metrics of a server that have no labels.
func readMetrics(address string) (map[string]float64, error) {
	text, err := getText("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); found && err == nil {
			all[name] = v
		}
	}
	return all, nil
}
