package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/loop"
)

// still is a gateway without a network, for tests in which time stands still.
func still(t *testing.T, o gateway.Options, routes ...route.Route) (*gateway.Gateway, *plane) {
	t.Helper()
	p := &plane{}
	p.set(routes...)
	o.Control = p
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := gateway.New(o)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, g.Tasks()...) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return g, p
}

// begin lets a request be served, and returns what ends it.
func begin(t *testing.T, g *gateway.Gateway, url string) (leave func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // it ends as a server expects
		w := newRecorder()
		g.ServeHTTP(w, w.request(url).WithContext(ctx))
	}()
	synctest.Wait()
	return func() { cancel(); <-done }
}

func TestReport_HeldRequestsAreToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := public("open")
		open.Rules.Window = 30 * time.Second
		g, p := still(t, gateway.Options{Name: "east"}, open, public("idle"))
		time.Sleep(300 * time.Millisecond)
		_, before := p.reported()
		leaveFirst := begin(t, g, "http://open.localhost/")
		c, n := p.reported()
		if got := c.Runs["run-open"]; n != before+1 || c.Gateway != "east" || c.TableVersion != 1 || len(c.Runs) != 1 ||
			got.Held != 1 || got.Requests != 1 || got.InFlight != 0 || got.Window != 30*time.Second || got.Watched != 300*time.Millisecond {
			t.Errorf("the first: %+v, report %d after %d", c, n, before)
		}
		leaveSecond := begin(t, g, "http://open.localhost/")
		if _, again := p.reported(); again != n {
			t.Error("the second is news, too")
		}
		time.Sleep(time.Second)
		c, _ = p.reported()
		if got := c.Runs["run-open"]; got.Held != 2 || got.Requests != 2 || got.Concurrency < 1.3 || got.Concurrency > 1.5 { // 0.7s of two after 0.3s of none
			t.Errorf("both: %+v", got)
		}
		leaveFirst()
		leaveSecond()
		time.Sleep(2 * time.Second)
		c, _ = p.reported()
		if got := c.Runs["run-open"]; got.Held != 0 || got.Requests != 2 {
			t.Errorf("after they left: %+v", got)
		}
		time.Sleep(31 * time.Second)
		if c, n = p.reported(); len(c.Runs) != 0 || n < 30 {
			t.Errorf("a window later: %+v, report %d", c, n)
		}
	})
}

func TestReport_FailuresAreSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lines
		g, p := still(t, gateway.Options{Log: slog.New(slog.NewTextHandler(&said, nil))}, public("open"))
		p.mu.Lock()
		p.reportFail = errAway
		p.mu.Unlock()
		_, before := p.reported()
		time.Sleep(10*time.Second + time.Second/2)
		if _, n := p.reported(); n != before+10 || strings.Count(said.String(), errAway.Error()) != 1 {
			t.Errorf("%d reports in 10s, said:\n%s", n-before, said.String())
		}
		p.mu.Lock()
		p.reportFail, p.reportHang = nil, true
		p.mu.Unlock()
		_, before = p.reported()
		leave := begin(t, g, "http://open.localhost/") // it is taken in, whatever the server does
		if g.Load()["run-open"].Held != 1 {
			t.Error("it is not held")
		}
		time.Sleep(12 * time.Second)
		if _, n := p.reported(); n < before+2 || n > before+4 {
			t.Errorf("%d hanging reports in 12s", n-before)
		}
		leave()
		p.mu.Lock()
		p.reportHang = false
		p.mu.Unlock()
		time.Sleep(10 * time.Second)
		if !strings.Contains(said.String(), "receives reports again") {
			t.Errorf("said:\n%s", said.String())
		}
	})
}

// A replica that was taken out of the table is told of until it has nothing
// in flight any more, and its streams go on.
func TestReport_DrainingReplica(t *testing.T) {
	next := make(chan string)
	old := replica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for piece := range next {
			io.WriteString(w, piece)
			http.NewResponseController(w).Flush()
		}
	})
	young := replica(t, 1, hello)
	r := start(t, gateway.Limits{}, public("open", old))
	res, err := r.client.Do(r.ask("GET", "http://open.localhost/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	next <- "one "
	until(t, "a report of it", func() bool {
		c, _ := r.plane.reported()
		return c.TableVersion == 1 && c.Runs["run-open"].Replicas[old.Replica] == 1
	})
	panics := public("open", young)
	panics.PanicMode = true
	for i, table := range [][]route.Route{{panics}, {}} {
		r.plane.set(table...)
		version := uint64(2 + i)
		until(t, "a report by the new table", func() bool {
			c, _ := r.plane.reported()
			return c.TableVersion == version && c.Runs["run-open"].Replicas[old.Replica] == 1
		})
		next <- "more "
	}
	if got := r.get("http://open.localhost/"); got.StatusCode != 401 {
		t.Errorf("a run that is gone: %d", got.StatusCode)
	}
	close(next)
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "one more more " {
		t.Errorf("%q, %v", body, err)
	}
	until(t, "a report without it", func() bool {
		c, _ := r.plane.reported()
		return len(c.Runs["run-open"].Replicas) == 0
	})
	until(t, "the run being forgotten", func() bool { return len(r.gateway.Load()) == 0 })
}

func TestReport_ANewTableWithoutAReplicaIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := still(t, gateway.Options{}, public("open", at("10.0.0.1:80", 0), at("10.0.0.2:80", 1)))
		time.Sleep(300 * time.Millisecond)
		_, before := p.reported()
		p.set(public("open", at("10.0.0.1:80", 0), at("10.0.0.2:80", 1), at("10.0.0.3:80", 2)))
		synctest.Wait()
		if _, n := p.reported(); n != before {
			t.Error("a replica more is news")
		}
		p.set(public("open", at("10.0.0.1:80", 0), at("10.0.0.3:80", 2)))
		synctest.Wait()
		if c, n := p.reported(); n != before+1 || c.TableVersion != 3 {
			t.Errorf("a replica less is not: %d, %+v", n-before, c)
		}
	})
}

func TestReport_WhatCounts(t *testing.T) {
	up := replica(t, 0, hello)
	ends := public("ends")
	ends.IsStopping = true
	r := start(t, gateway.Limits{HoldTimeout: time.Millisecond}, public("open", up), service("secret", up), ends, public("none"))
	for range 3 {
		r.get("http://open.localhost/")
	}
	for url, want := range map[string]int{"http://secret.localhost/": 401, "http://nothing.localhost/": 401, "http://ends.localhost/": 503, "http://none.localhost/": 503} {
		if got := r.get(url); got.StatusCode != want {
			t.Errorf("%s: %d %s", url, got.StatusCode, got.body)
		}
	}
	until(t, "a report", func() bool { c, _ := r.plane.reported(); return len(c.Runs) == 2 })
	c, _ := r.plane.reported()
	if c.Runs["run-open"].Requests != 3 || c.Runs["run-none"].Requests != 1 { // who was held for too long is demand
		t.Errorf("%+v", c.Runs)
	}
}

// A model of several runs counts where it is picked for, and once.
func TestReport_ModelOfSeveralRuns(t *testing.T) {
	up := replica(t, 0, hello)
	first, second := model("a", "org/m"), model("b", "org/m")
	second.Since = 2
	r := start(t, gateway.Limits{}, first, second)
	done := make(chan reply, 1)
	go func() { done <- r.chat(`{"model":"org/m"}`) }()
	counted := func(run dstack.RunID) func() bool {
		return func() bool {
			c, _ := r.plane.reported()
			return len(c.Runs) == 1 && c.Runs[run].Requests == 1
		}
	}
	until(t, "it waits at the first", counted("run-a"))
	second.Ready = []route.Target{up}
	r.plane.set(first, second)
	<-done
	// The first has been busy, and is told of for that.
	until(t, "it moved", func() bool {
		c, _ := r.plane.reported()
		return c.Runs["run-b"].Requests == 1 && c.Runs["run-a"].Requests == 0
	})
}
