package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The requests during the changes. They go to random services.
const (
	loadConnections = 4
	loadInterval    = 4 * time.Millisecond // of each connection
)

// routeResult is what was seen of route changes.
type routeResult struct {
	took   []float64 // until a request had the new replica, in milliseconds
	calls  int64
	errors atomic.Int64
	first  atomic.Pointer[error]
}

// changeRoutes changes the route of n services while requests are sent, one after the other.
func (m *manyRoutes) changeRoutes(n int) (*routeResult, error) {
	r := &routeResult{}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range loadConnections {
		load.Go(func() { r.sendLoad(m.gateway.port, stop) })
	}
	defer load.Wait()
	defer sync.OnceFunc(func() { close(stop) })()
	watch, err := openGatewayConnection(m.gateway.port)
	if err != nil {
		return nil, err
	}
	defer watch.conn.Close()
	at := make([]int, routeServices) // which replica each service has
	for i := range n {
		service := rand.IntN(routeServices)
		at[service] = 1 - at[service]
		to := m.replicas[at[service]]
		changed, err := m.move(service, to)
		if err != nil {
			return nil, err
		}
		for {
			name, err := watch.get(service)
			if err != nil {
				return nil, fmt.Errorf("change %d: %w", i, err)
			}
			if name == to.name {
				break
			}
			if time.Since(changed) > 20*time.Second {
				return nil, fmt.Errorf("web-%d still has the replica %q", service, name)
			}
		}
		r.took = append(r.took, toMilliseconds(time.Since(changed)))
	}
	return r, nil
}

// sendLoad sends requests until stop is closed.
func (r *routeResult) sendLoad(port int, stop <-chan struct{}) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	var c *gatewayConnection
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		var err error
		if c == nil {
			c, err = openGatewayConnection(port)
		}
		if err == nil {
			_, err = c.get(rand.IntN(routeServices))
		}
		atomic.AddInt64(&r.calls, 1)
		if err != nil {
			r.errors.Add(1)
			r.first.CompareAndSwap(nil, &err)
			c = nil
		}
	}
}

// gatewayConnection is an HTTP connection to a gateway process.
type gatewayConnection struct {
	conn net.Conn
	in   *bufio.Reader
}

func openGatewayConnection(port int) (*gatewayConnection, error) {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), callLimit)
	if err != nil {
		return nil, err
	}
	return &gatewayConnection{conn, bufio.NewReader(conn)}, nil
}

// get returns the response of a service.
func (c *gatewayConnection) get(service int) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c.conn, "GET / HTTP/1.1\r\nHost: web-%d.%s\r\n\r\n", service, gatewayDomain); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", res.Status, text)
	}
	return string(text), err
}

func (r *routeResult) report() {
	slices.Sort(r.took)
	p99 := percentile99(r.took)
	fmt.Printf("%d route changes with %d services, until a request has the new replica: median %.2f ms, 90th percentile %.2f ms, "+
		"99th percentile %.2f ms, longest %.2f ms\n",
		len(r.took), routeServices, median(r.took), r.took[len(r.took)*90/100], p99, r.took[len(r.took)-1])
	failed := ""
	if first := r.first.Load(); first != nil {
		failed = ": " + (*first).Error()
	}
	fmt.Printf("%d requests meanwhile, %d errors%s\n", r.calls, r.errors.Load(), failed)
	printMaximumGoal("errors during route changes", float64(r.errors.Load()), 0, "")
	printMaximumGoal("a route change takes effect, 99th percentile", p99, 5, "ms")
}

// gatewayStart is what was seen of the starts of a gateway process with what its folder has.
type gatewayStart struct {
	took     []float64 // until the first response, in milliseconds
	floor    []float64 // of a command that does nothing
	resident []float64 // in MB, as the next two
	private  []float64 // pages that no other process shares
	unshared []float64 // of these, those that are not from a file
}

// memorySettle is how long a process runs before its memory is measured.
const memorySettle = 3 * time.Second

// measureGatewayStart measures starts of a gateway process from its folder, while no server answers.
func (b *benchmark) measureGatewayStart(g gatewayProcess, rounds int) error {
	var seen gatewayStart
	for round := range rounds + 1 {
		began := time.Now()
		if _, err := runCommand(b.binary, "version"); err != nil {
			return err
		}
		floor := toMilliseconds(time.Since(began))
		again, took, err := g.startAgain()
		if err != nil {
			return err
		}
		time.Sleep(memorySettle)
		memory, err := readMemory(again.cmd.Process.Pid)
		if err := cmp.Or(err, again.stop()); err != nil {
			return err
		}
		if round == 0 {
			continue // the program and the folder are read from the disk
		}
		seen.floor, seen.took = append(seen.floor, floor), append(seen.took, toMilliseconds(took))
		seen.resident, seen.private = append(seen.resident, memory.resident), append(seen.private, memory.private)
		seen.unshared = append(seen.unshared, memory.anonymous)
	}
	fmt.Printf("%d starts of a gateway process with %d services from its folder, until the first response: median %.1f ms, %.1f to %.1f ms; "+
		"dstack version takes %.1f ms\n", rounds, routeServices, median(seen.took), slices.Min(seen.took), slices.Max(seen.took), median(seen.floor))
	fmt.Printf("its memory after %s: %.1f MB resident, of that %.1f MB private, of that %.1f MB not from a file\n",
		memorySettle, median(seen.resident), median(seen.private), median(seen.unshared))
	printMaximumGoal("a gateway process starts from its disk", median(seen.took), 30, "ms")
	printMaximumGoal("memory of a gateway process", median(seen.resident), 25, "MB")
	return nil
}
