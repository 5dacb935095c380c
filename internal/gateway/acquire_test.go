package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/gateway"
	"dstack/internal/loop"
)

func TestAcquire_WaitsForAReplica(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r := startGateway(t, gateway.Limits{}, publicRoute("open"), publicRoute("other"), modelRoute("m", "org/m"))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			body := fmt.Sprint(`{"model":"org/m","n":`, i, `}`)
			req := r.newRequest("POST", "http://open.localhost/", strings.NewReader(body))
			if i%2 == 0 {
				req = r.newRequest("POST", "http://gateway.localhost/v1/completions", strings.NewReader(body), withToken(member)...)
			}
			if got := r.do(req); got.StatusCode != 200 || got.body != body {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		})
	}
	waitUntil(t, "20 held requests", func() bool {
		load := r.gateway.Load()
		return load["run-open"].Held == 10 && load["run-m"].Held == 10
	})
	r.plane.setRoutes(publicRoute("open"), publicRoute("other", up), modelRoute("m", "org/m")) // no replica of theirs
	r.plane.setRoutes(publicRoute("open", up), publicRoute("other", up), modelRoute("m", "org/m", up))
	all.Wait()
	if load := r.gateway.Load()["run-open"]; load.Held != 0 || load.Accepted != 10 {
		t.Errorf("load %+v", load)
	}
}

func TestAcquire_WaitsForTheFirstTable(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{})
	done := make(chan response, 1)
	go func() { done <- r.get("http://open.localhost/x") }()
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()[""].Held == 1 })
	r.plane.setRoutes(publicRoute("open", up))
	if got := <-done; got.body != "hello from /x" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestAcquire_WaitTimesOut(t *testing.T) {
	pulling := publicRoute("open")
	pulling.State = "pulling image 62%"
	r := startGateway(t, gateway.Limits{HoldTimeout: 50 * time.Millisecond}, pulling, modelRoute("m", "org/m"))
	got := r.get("http://open.localhost/")
	if got.StatusCode != 503 || got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, `"kind":"unavailable","message":"open is not ready: pulling image 62%"`) {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
	page := r.get("http://open.localhost/", "Accept", "text/html")
	if !strings.Contains(page.body, `http-equiv="refresh"`) || !strings.Contains(page.body, "pulling image 62%") {
		t.Errorf("page %s", page.body)
	}
	got = r.do(r.newRequest("POST", "http://gateway.localhost/chat/completions", strings.NewReader(`{"model":"org/m"}`), withToken(member)...))
	if got.StatusCode != 503 || got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, `"code":"service_unavailable"`) {
		t.Errorf("model: %d %s", got.StatusCode, got.body)
	}

	none := startGateway(t, gateway.Limits{HoldTimeout: 50 * time.Millisecond})
	if got := none.get("http://open.localhost/"); got.StatusCode != 503 || !strings.Contains(got.body, "no routes yet") {
		t.Errorf("without a table: %d %s", got.StatusCode, got.body)
	}
}

func TestAcquire_QueueIsBounded(t *testing.T) {
	r := startGateway(t, gateway.Limits{MaxHeld: 1}, publicRoute("open"))
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.client.Do(r.newRequest("GET", "http://open.localhost/", nil).WithContext(ctx))
		left <- err
	}()
	waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	got := r.get("http://open.localhost/")
	if got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" {
		t.Errorf("second of one: %d %s", got.StatusCode, got.body)
	}
	cancel()
	if <-left == nil {
		t.Error("an answer for a client that left")
	}
	waitUntil(t, "the wait of the disconnected client ends", func() bool { return r.gateway.Load()["run-open"].Held == 0 })
}

// A held request follows the table of the moment when its wait ends, not that of
// its arrival.
func TestAcquire_FollowsNewTablesWhileWaiting(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	wait := func(url string) (*testGateway, <-chan response) {
		r := startGateway(t, gateway.Limits{}, publicRoute("open"))
		done := make(chan response, 1)
		go func() { done <- r.get(url) }()
		waitUntil(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
		return r, done
	}
	r, done := wait("http://open.localhost/")
	r.plane.setRoutes(serviceRoute("open", up))
	if got := <-done; got.StatusCode != 401 {
		t.Errorf("a service that asks for a token now: %d", got.StatusCode)
	}
	r, done = wait("http://open.localhost/")
	r.plane.setRoutes(serviceRoute("other", up))
	if got := <-done; got.StatusCode != 401 {
		t.Errorf("a service that is gone: %d", got.StatusCode)
	}
}

func TestAcquire_StoppingRefusesWaiting(t *testing.T) {
	p := &fakeControlPlane{}
	p.setRoutes(publicRoute("open"))
	g := gateway.New(gateway.Options{Control: p})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx, g.Tasks()...) }()
	waitUntil(t, "the table", func() bool { _, ok := g.Load()["run-open"]; return ok })
	w, done := newRecorder(), make(chan struct{})
	go func() { g.ServeHTTP(w, w.request("http://open.localhost/")); close(done) }()
	waitUntil(t, "a held request", func() bool { return g.Load()["run-open"].Held == 1 })
	stop()
	<-done
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestFollowTable_KeepsTheLastWhileTheServerFails(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, publicRoute("open", up))
	if got := r.get("http://open.localhost/"); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	r.plane.failWith(errServerAway)
	waitUntil(t, "it being noticed", func() bool { return strings.Contains(r.log.String(), errServerAway.Error()) })
	if got := r.get("http://open.localhost/"); got.StatusCode != 200 {
		t.Errorf("with the server away: %d", got.StatusCode)
	}
	r.plane.failWith(nil)
	r.plane.setRoutes(publicRoute("fresh", up))
	waitUntil(t, "the new table", func() bool { _, ok := r.gateway.Load()["run-fresh"]; return ok })
}

func TestFollowTable_DoesNotSpin(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, publicRoute("open"))
	waitUntil(t, "the table", func() bool { _, ok := r.gateway.Load()["run-open"]; return ok })
	r.plane.failWith(errServerAway)
	time.Sleep(150 * time.Millisecond)
	r.plane.mu.Lock()
	defer r.plane.mu.Unlock()
	if r.plane.tableCalls > 6 {
		t.Errorf("asked %d times in 150ms", r.plane.tableCalls)
	}
}

// The API answers a submission a moment before the table has it.
func TestAcquire_WaitsForANewerTable(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	r := startGateway(t, gateway.Limits{}, serviceRoute("other", up))
	done := make(chan response, 1)
	go func() { done <- r.get("http://new.localhost/x", withToken(member)...) }()
	waitUntil(t, "a call that waits for a table", func() bool { return r.gateway.Load()[""].Held == 1 })
	r.plane.setRoutes(serviceRoute("other")) // without the run
	r.plane.setRoutes(serviceRoute("other"), serviceRoute("new", up))
	if got := <-done; got.body != "hello from /x" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := r.get("http://never.localhost/", withToken(member)...); got.StatusCode != 404 {
		t.Errorf("what never comes: %d %s", got.StatusCode, got.body)
	}
	began := time.Now()
	if got := r.get("http://never.localhost/"); got.StatusCode != 401 || time.Since(began) > 200*time.Millisecond {
		t.Errorf("without access: %d after %s", got.StatusCode, time.Since(began))
	}
}
