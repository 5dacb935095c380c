package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	fleetReplicas = 1000
	fleetMachines = 10
	fleetLimit    = 5 * time.Minute // then it has failed

	idleServices = 10
	idleEach     = 1000
	idleSettle   = 5 * time.Second
	idleWatch    = 20 * time.Second
)

// fleet is how many replicas a second become ready, from the submission of
// one service until the gateway knows all of them.
func (b *bench) fleet() (float64, error) {
	b.runs++
	dir := filepath.Join(b.dir, fmt.Sprintf("fleet-%d", b.runs))
	p, err := newPlane(dir, newMachines(fleetMachines, fleetReplicas/fleetMachines+5))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err = p.submit("fleet", fleetReplicas); err == nil {
		err = p.ready(fleetReplicas, fleetLimit)
	}
	took := time.Since(began)
	return fleetReplicas / took.Seconds(), errors.Join(err, p.stop(), os.RemoveAll(dir))
}

// idling is what ready replicas cost while nothing happens.
type idling struct {
	replicas int
	heap     float64 // KiB a replica, of what is in use
	rss      float64 // KiB a replica; 0: there is no /proc
	cpu      float64 // of one core, in percent
}

// idle makes many replicas ready, and watches.
func (b *bench) idle() (idling, error) {
	dir := filepath.Join(b.dir, "idle-fleet")
	seen := idling{replicas: idleServices * idleEach}
	p, err := newPlane(dir, newMachines(fleetMachines, seen.replicas/fleetMachines+5))
	if err != nil {
		return seen, err
	}
	heap, rss := memory()
	for i := range idleServices {
		if err == nil {
			err = p.submit(fmt.Sprintf("idle-%d", i), idleEach)
		}
	}
	if err == nil {
		err = p.ready(seen.replicas, 4*fleetLimit)
	}
	if err == nil {
		time.Sleep(idleSettle)
		heapNow, rssNow := memory()
		before, began := processorTime(), time.Now()
		time.Sleep(idleWatch)
		seen.cpu = 100 * float64(processorTime()-before) / float64(time.Since(began))
		seen.heap, seen.rss = (heapNow-heap)/float64(seen.replicas), (rssNow-rss)/float64(seen.replicas)
	}
	return seen, errors.Join(err, p.stop(), os.RemoveAll(dir))
}

// memory is the heap in use and the resident memory of this process, in KiB.
func memory() (heap, rss float64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss, _ = resident(os.Getpid()) // 0 is not reported
	return float64(m.HeapInuse+m.StackInuse) / 1024, rss
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // it fails for no process of one's own
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
