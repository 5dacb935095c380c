package main

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

const (
	heldStreams = 1000
	// openFiles covers both ends of each stream, and more.
	openFiles = 4 * heldStreams
)

// settleTime is the wait before memory is measured.
const settleTime = 3 * time.Second

// heldMemory is the memory that one open stream takes in the proxy between client and replica, in KiB by the name of
// the path.
type heldMemory struct {
	kibPerStream map[string]float64
	notMeasured  string // why it is not measured; empty: it is measured
}

func (c *chatService) measureHeldStreams() (*heldMemory, error) {
	var limit syscall.Rlimit // Go has raised the soft limit already
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	if limit.Cur < openFiles {
		return nil, notMeasured(fmt.Sprintf("it needs %d open files, and ulimit -n is %d", openFiles, limit.Cur))
	}
	took := map[string]float64{}
	for _, w := range c.paths {
		if w.pid == 0 {
			continue
		}
		one, err := w.measureHeldStreams()
		if err != nil {
			return nil, fmt.Errorf("held streams, %s: %w", w.name, err)
		}
		took[w.name] = one
	}
	return &heldMemory{kibPerStream: took}, nil
}

// notMeasured is the reason why something is not measured.
type notMeasured string

func (n notMeasured) Error() string { return string(n) }

func (w requestPath) measureHeldStreams() (float64, error) {
	if _, err := sendRequests(w, askStream, 20); err != nil { // so that one-time allocations do not count
		return 0, err
	}
	time.Sleep(settleTime)
	before, err := residentMemory(w.pid)
	if err != nil {
		return 0, err
	}
	if before == 0 {
		return 0, notMeasured("there is no /proc")
	}
	lines, err := w.openStreams(heldStreams)
	defer func() {
		for _, l := range lines {
			_ = l.conn.Close() // no longer needed
		}
	}()
	if err != nil {
		return 0, err
	}
	time.Sleep(settleTime)
	after, err := residentMemory(w.pid)
	return (after - before) / heldStreams, err
}

// openStreams opens n streams, a few at a time.
func (w requestPath) openStreams(n int) (lines []*connection, err error) {
	const hands = 10
	each := make([][]*connection, hands)
	errs := make([]error, hands)
	var group sync.WaitGroup
	for i := range hands {
		group.Go(func() {
			for range n / hands {
				l, err := openConnection(w)
				if err != nil {
					errs[i] = err
					return
				}
				each[i] = append(each[i], l)
				if errs[i] = l.openStream(); errs[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	for _, some := range each {
		lines = append(lines, some...)
	}
	return lines, errors.Join(errs...)
}
