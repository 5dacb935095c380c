package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// requestPeriod is how long each server gets requests of one kind in each round.
const requestPeriod = time.Second

// measuredRequest is a kind of request with a number of parallel connections.
type measuredRequest struct {
	title       string
	operation   string
	body        func(*wireFormat) string
	connections int
}

func listBody(w *wireFormat) string { return w.list }
func planBody(w *wireFormat) string { return w.plan }

var measuredRequests = []measuredRequest{
	{"runs/list, 1 connection", listPath, listBody, 1},
	{"runs/list, 8 connections", listPath, listBody, 8},
	{"get_plan, 1 connection", runsPath + "get_plan", planBody, 1},
	{"get_plan, 8 connections", runsPath + "get_plan", planBody, 8},
}

// requestResult has the requests of one kind to one server. All but took have one value for each round.
type requestResult struct {
	took   []float64 // of every request, in milliseconds
	median []float64 // in milliseconds
	rate   []float64 // requests per second
	cpu    []float64 // of the server for one request, in milliseconds
}

// requestKey is a kind of request at a number of runs.
type requestKey struct {
	title string
	runs  int
}

// measureRequests measures all kinds of requests on all servers, in random order in each round.
func (r *publishedReport) measureRequests(peers []*peer, runs, rounds int) error {
	if r.requests == nil {
		r.requests = map[requestKey]map[string]*requestResult{}
	}
	for _, request := range measuredRequests {
		key := requestKey{request.title, runs}
		r.requests[key] = map[string]*requestResult{}
		for _, p := range peers {
			r.requests[key][p.name] = &requestResult{}
			if err := new(requestResult).measureRound(request, p, requestPeriod/4); err != nil { // warm up
				return err
			}
		}
		for range rounds {
			for _, i := range rand.Perm(len(peers)) {
				p := peers[i]
				if err := r.requests[key][p.name].measureRound(request, p, requestPeriod); err != nil {
					return fmt.Errorf("%s, %s: %w", request.title, p.name, err)
				}
			}
		}
		r.printRequests(key)
	}
	return nil
}

// measureRound sends requests for a period and adds one round to the result.
func (q *requestResult) measureRound(request measuredRequest, p *peer, period time.Duration) error {
	took := make([][]float64, request.connections)
	errs := make([]error, request.connections)
	path, body := p.pathTo(request.operation), request.body(p.wire)
	before, began := usedCPUTime(path.pid), time.Now()
	var group sync.WaitGroup
	for i := range request.connections {
		group.Go(func() { took[i], errs[i] = sendRequestsUntil(path, body, began.Add(period)) })
	}
	group.Wait()
	wall, used := time.Since(began), usedCPUTime(path.pid)-before
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var all []float64
	for _, some := range took {
		all = append(all, some...)
	}
	q.took = append(q.took, all...)
	q.median = append(q.median, median(all))
	q.rate = append(q.rate, float64(len(all))/wall.Seconds())
	q.cpu = append(q.cpu, toMilliseconds(used)/float64(len(all)))
	return nil
}

// sendRequestsUntil sends requests one after the other over one connection, at least one, until a time, and returns their
// times in milliseconds.
func sendRequestsUntil(path requestPath, body string, end time.Time) ([]float64, error) {
	l, err := openConnection(path)
	if err != nil {
		return nil, err
	}
	defer l.conn.Close()
	var took []float64
	for {
		d, err := l.sendRequest(body)
		if err != nil {
			return nil, err
		}
		took = append(took, toMilliseconds(d))
		if time.Now().After(end) {
			return took, nil
		}
	}
}

// idlePeer is what a server costs after a minute without requests.
type idlePeer struct {
	rss, pss float64 // in MB; shared pages count fully in rss, and in part in pss
	private  float64 // in MB, of pages that are not from a file: what the system cannot drop and read again
	cpu      float64 // of one core, in percent, over the minute
	wakes    float64 // per second: how often its threads began to wait
}

// measureIdlePeers starts all servers again, with the runs they have, sends each request once, and measures all servers
// in the same minute.
func measureIdlePeers(peers []*peer) (map[string]idlePeer, error) {
	for _, p := range peers {
		if err := p.start(); err != nil {
			return nil, err
		}
		_, err := p.call(listPath, p.wire.list)
		_, err2 := p.call(runsPath+"get_plan", p.wire.plan)
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
	}
	time.Sleep(idleSettle)
	before := map[string]idlePeer{}
	began := time.Now()
	for _, p := range peers {
		pid := p.cmd.Process.Pid
		before[p.name] = idlePeer{cpu: usedCPUTime(pid).Seconds(), wakes: countWaits(pid)}
	}
	time.Sleep(idleMinute)
	all, took := map[string]idlePeer{}, time.Since(began).Seconds()
	for _, p := range peers {
		pid := p.cmd.Process.Pid
		rss, err := residentMemory(pid)
		if err != nil {
			return nil, err
		}
		pss, err := sumMemory(pid, "Pss:")
		private, err2 := sumMemory(pid, "Anonymous:")
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		all[p.name] = idlePeer{rss: rss / 1024, pss: pss / 1024, private: private / 1024,
			cpu:   100 * (usedCPUTime(pid).Seconds() - before[p.name].cpu) / took,
			wakes: (countWaits(pid) - before[p.name].wakes) / took}
	}
	return all, nil
}

// sumMemory returns a line of /proc/PID/smaps_rollup for a process and its children, in KiB.
func sumMemory(pid int, line string) (float64, error) {
	sum := 0.0
	for _, one := range append(childProcesses(pid), pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", one))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\n"+line)
		kilobytes, err := strconv.ParseFloat(strings.Fields(rest + " ?")[0], 64)
		if err != nil {
			return 0, fmt.Errorf("process %d has no %s %w", one, line, err)
		}
		sum += kilobytes
	}
	return sum, nil
}

// countWaits returns how often the threads of a process have begun to wait.
func countWaits(pid int) float64 {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	sum := 0.0
	for _, thread := range threads {
		text, _ := os.ReadFile(thread) // a thread that has ended counts no more
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		n, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
		sum += n
	}
	return sum
}
