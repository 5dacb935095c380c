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
	// openFiles is for each of those at both of its ends, and more.
	openFiles = 4 * heldStreams
)

// settle is how long memory is given to come to rest.
const settle = 3 * time.Second

// holding is what one held stream takes of the memory of what stands between
// the client and the replica, in KiB, by the name of the way.
type holding struct {
	each    map[string]float64
	without string // why it is not measured; empty: it is
}

func (c *chat) held() (*holding, error) {
	var limit syscall.Rlimit // Go has raised it as far as it may
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	if limit.Cur < openFiles {
		return nil, notMeasured(fmt.Sprintf("it needs %d open files, and ulimit -n is %d", openFiles, limit.Cur))
	}
	took := map[string]float64{}
	for _, w := range c.ways {
		if w.pid == 0 {
			continue
		}
		one, err := w.held()
		if err != nil {
			return nil, fmt.Errorf("held streams, %s: %w", w.name, err)
		}
		took[w.name] = one
	}
	return &holding{each: took}, nil
}

// notMeasured is why.
type notMeasured string

func (n notMeasured) Error() string { return string(n) }

func (w way) held() (float64, error) {
	if _, err := many(w, askStream, 20); err != nil { // what is needed once is no part of it
		return 0, err
	}
	time.Sleep(settle)
	before, err := resident(w.pid)
	if err != nil {
		return 0, err
	}
	if before == 0 {
		return 0, notMeasured("there is no /proc")
	}
	lines, err := w.holdMany(heldStreams)
	defer func() {
		for _, l := range lines {
			_ = l.conn.Close() // it has served
		}
	}()
	if err != nil {
		return 0, err
	}
	time.Sleep(settle)
	after, err := resident(w.pid)
	return (after - before) / heldStreams, err
}

// holdMany opens streams, a few at a time.
func (w way) holdMany(n int) (lines []*line, err error) {
	const hands = 10
	each := make([][]*line, hands)
	errs := make([]error, hands)
	var group sync.WaitGroup
	for i := range hands {
		group.Go(func() {
			for range n / hands {
				l, err := dial(w)
				if err != nil {
					errs[i] = err
					return
				}
				each[i] = append(each[i], l)
				if errs[i] = l.hold(); errs[i] != nil {
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
