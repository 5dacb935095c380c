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

// startWithoutNetwork starts a gateway without a listener, for synctest bubbles.
func startWithoutNetwork(t *testing.T, o gateway.Options, routes ...route.Route) (*gateway.Gateway, *fakeControlPlane) {
	t.Helper()
	p := &fakeControlPlane{}
	p.setRoutes(routes...)
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

// beginRequest serves a request, and returns a function that cancels it.
func beginRequest(t *testing.T, g *gateway.Gateway, url string) (cancelRequest func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // http.ErrAbortHandler
		w := newRecorder()
		g.ServeHTTP(w, w.request(url).WithContext(ctx))
	}()
	synctest.Wait()
	return func() { cancel(); <-done }
}

func TestReport_HeldRequestsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := publicRoute("open")
		open.Rules.Window = 30 * time.Second
		g, p := startWithoutNetwork(t, gateway.Options{Name: "east"}, open, publicRoute("idle"))
		time.Sleep(300 * time.Millisecond)
		_, before := p.lastReport()
		leaveFirst := beginRequest(t, g, "http://open.localhost/")
		c, n := p.lastReport()
		if got := c.Runs["run-open"]; n != before+1 || c.Gateway != "east" || c.TableVersion != 1 || len(c.Runs) != 1 ||
			got.Held != 1 || got.Requests != 1 || got.InFlight != 0 || got.Window != 30*time.Second || got.Watched != 300*time.Millisecond {
			t.Errorf("the first: %+v, report %d after %d", c, n, before)
		}
		leaveSecond := beginRequest(t, g, "http://open.localhost/")
		if _, again := p.lastReport(); again != n {
			t.Error("the second is reported at once, too")
		}
		time.Sleep(time.Second)
		c, _ = p.lastReport()
		if got := c.Runs["run-open"]; got.Held != 2 || got.Requests != 2 || got.Concurrency < 1.3 || got.Concurrency > 1.5 { // 0.7s of two after 0.3s of none
			t.Errorf("both: %+v", got)
		}
		leaveFirst()
		leaveSecond()
		time.Sleep(2 * time.Second)
		c, _ = p.lastReport()
		if got := c.Runs["run-open"]; got.Held != 0 || got.Requests != 2 {
			t.Errorf("after they left: %+v", got)
		}
		time.Sleep(31 * time.Second)
		if c, n = p.lastReport(); len(c.Runs) != 0 || n < 30 {
			t.Errorf("a window later: %+v, report %d", c, n)
		}
	})
}

func TestReport_LogsFailuresOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said logBuffer
		g, p := startWithoutNetwork(t, gateway.Options{Log: slog.New(slog.NewTextHandler(&said, nil))}, publicRoute("open"))
		p.mu.Lock()
		p.reportFail = errServerAway
		p.mu.Unlock()
		_, before := p.lastReport()
		time.Sleep(10*time.Second + time.Second/2)
		if _, n := p.lastReport(); n != before+10 || strings.Count(said.String(), errServerAway.Error()) != 1 {
			t.Errorf("%d reports in 10s, said:\n%s", n-before, said.String())
		}
		p.mu.Lock()
		p.reportFail, p.reportHang = nil, true
		p.mu.Unlock()
		_, before = p.lastReport()
		cancel := beginRequest(t, g, "http://open.localhost/") // it waits, whatever the server does
		if g.Load()["run-open"].Held != 1 {
			t.Error("it is not held")
		}
		time.Sleep(12 * time.Second)
		if _, n := p.lastReport(); n < before+2 || n > before+4 {
			t.Errorf("%d hanging reports in 12s", n-before)
		}
		cancel()
		p.mu.Lock()
		p.reportHang = false
		p.mu.Unlock()
		time.Sleep(10 * time.Second)
		if !strings.Contains(said.String(), "receives reports again") {
			t.Errorf("said:\n%s", said.String())
		}
	})
}

// A replica that left the table is reported until it has nothing in flight, and
// its streams go on.
func TestReport_DrainingReplica(t *testing.T) {
	next := make(chan string)
	old := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for piece := range next {
			io.WriteString(w, piece)
			http.NewResponseController(w).Flush()
		}
	})
	young := startReplica(t, 1, serveHello)
	r := startGateway(t, gateway.Limits{}, publicRoute("open", old))
	res, err := r.client.Do(r.newRequest("GET", "http://open.localhost/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	next <- "one "
	waitUntil(t, "a report of it", func() bool {
		c, _ := r.plane.lastReport()
		return c.TableVersion == 1 && c.Runs["run-open"].Replicas[old.Replica] == 1
	})
	panics := publicRoute("open", young)
	panics.PanicMode = true
	for i, table := range [][]route.Route{{panics}, {}} {
		r.plane.setRoutes(table...)
		version := uint64(2 + i)
		waitUntil(t, "a report by the new table", func() bool {
			c, _ := r.plane.lastReport()
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
	waitUntil(t, "a report without it", func() bool {
		c, _ := r.plane.lastReport()
		return len(c.Runs["run-open"].Replicas) == 0
	})
	waitUntil(t, "the run being forgotten", func() bool { return len(r.gateway.Load()) == 0 })
}

func TestReport_RemovedReplicaAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := startWithoutNetwork(t, gateway.Options{}, publicRoute("open", targetAt("10.0.0.1:80", 0), targetAt("10.0.0.2:80", 1)))
		time.Sleep(300 * time.Millisecond)
		_, before := p.lastReport()
		p.setRoutes(publicRoute("open", targetAt("10.0.0.1:80", 0), targetAt("10.0.0.2:80", 1), targetAt("10.0.0.3:80", 2)))
		synctest.Wait()
		if _, n := p.lastReport(); n != before {
			t.Error("another replica is reported at once")
		}
		p.setRoutes(publicRoute("open", targetAt("10.0.0.1:80", 0), targetAt("10.0.0.3:80", 2)))
		synctest.Wait()
		if c, n := p.lastReport(); n != before+1 || c.TableVersion != 3 {
			t.Errorf("a replica less is not: %d, %+v", n-before, c)
		}
	})
}

func TestReport_CountsDemand(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	ends := publicRoute("ends")
	ends.IsStopping = true
	r := startGateway(t, gateway.Limits{HoldTimeout: time.Millisecond}, publicRoute("open", up), serviceRoute("secret", up), ends, publicRoute("none"))
	for range 3 {
		r.get("http://open.localhost/")
	}
	for url, want := range map[string]int{"http://secret.localhost/": 401, "http://nothing.localhost/": 401, "http://ends.localhost/": 503, "http://none.localhost/": 503} {
		if got := r.get(url); got.StatusCode != want {
			t.Errorf("%s: %d %s", url, got.StatusCode, got.body)
		}
	}
	waitUntil(t, "a report", func() bool { c, _ := r.plane.lastReport(); return len(c.Runs) == 2 })
	c, _ := r.plane.lastReport()
	if c.Runs["run-open"].Requests != 3 || c.Runs["run-none"].Requests != 1 { // a request whose wait timed out is demand
		t.Errorf("%+v", c.Runs)
	}
}

// A request for a model of several runs counts once, for the run that is chosen.
func TestReport_ModelOfSeveralRuns(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	first, second := modelRoute("a", "org/m"), modelRoute("b", "org/m")
	second.Since = 2
	r := startGateway(t, gateway.Limits{}, first, second)
	done := make(chan response, 1)
	go func() { done <- r.sendChat(`{"model":"org/m"}`) }()
	counted := func(run dstack.RunID) func() bool {
		return func() bool {
			c, _ := r.plane.lastReport()
			return len(c.Runs) == 1 && c.Runs[run].Requests == 1
		}
	}
	waitUntil(t, "it waits at the first", counted("run-a"))
	second.Ready = []route.Target{up}
	r.plane.setRoutes(first, second)
	<-done
	// The first has been busy, and is reported for that.
	waitUntil(t, "it moved", func() bool {
		c, _ := r.plane.lastReport()
		return c.Runs["run-b"].Requests == 1 && c.Runs["run-a"].Requests == 0
	})
}
