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

	control "dstack/internal/server"
)

const (
	fleetReplicas = 1000
	fleetMachines = 10
	fleetLimit    = 5 * time.Minute // after this the measurement fails

	idleServices = 10
	idleEach     = 1000
	idleSettle   = 5 * time.Second
	idleWatch    = 20 * time.Second
)

// measureFleet returns how many replicas become ready per second, from the submission of one service until the route
// table has all its replicas.
func (b *benchmark) measureFleet() (float64, error) {
	b.runs++
	dir := filepath.Join(b.dir, fmt.Sprintf("fleet-%d", b.runs))
	p, err := newControlPlane(dir, newMachines(fleetMachines, fleetReplicas/fleetMachines+5), control.LinkOptions{}, "")
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err = p.submitService("fleet", fleetReplicas); err == nil {
		err = p.waitUntilReady(fleetReplicas, fleetLimit)
	}
	took := time.Since(began)
	return fleetReplicas / took.Seconds(), errors.Join(err, p.stop(), os.RemoveAll(dir))
}

// idleCost is the cost of ready replicas while nothing happens.
type idleCost struct {
	replicas int
	heap     float64 // KiB per replica, heap and stacks in use
	rss      float64 // KiB per replica; 0: there is no /proc
	cpu      float64 // of one core, in percent
}

// measureIdleFleet makes many replicas ready and then measures their cost.
func (b *benchmark) measureIdleFleet() (idleCost, error) {
	dir := filepath.Join(b.dir, "idle-fleet")
	seen := idleCost{replicas: idleServices * idleEach}
	p, err := newControlPlane(dir, newMachines(fleetMachines, seen.replicas/fleetMachines+5), control.LinkOptions{}, "")
	if err != nil {
		return seen, err
	}
	heap, rss := processMemory()
	for i := range idleServices {
		if err == nil {
			err = p.submitService(fmt.Sprintf("idle-%d", i), idleEach)
		}
	}
	if err == nil {
		err = p.waitUntilReady(seen.replicas, 4*fleetLimit)
	}
	if err == nil {
		time.Sleep(idleSettle)
		heapNow, rssNow := processMemory()
		before, began := processorTime(), time.Now()
		time.Sleep(idleWatch)
		seen.cpu = 100 * float64(processorTime()-before) / float64(time.Since(began))
		seen.heap, seen.rss = (heapNow-heap)/float64(seen.replicas), (rssNow-rss)/float64(seen.replicas)
	}
	return seen, errors.Join(err, p.stop(), os.RemoveAll(dir))
}

// processMemory returns the memory in use by Go and the resident memory of this process, in KiB.
func processMemory() (heap, rss float64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss, _ = residentMemory(os.Getpid()) // an error leaves 0, which is not reported
	return float64(m.HeapInuse+m.StackInuse) / 1024, rss
}

// processorTime returns the CPU time that this process has used.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // it cannot fail for the own process
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
