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

func TestObtain_WaitsForAReplica(t *testing.T) {
	up := replica(t, 0, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r := start(t, gateway.Limits{}, public("open"), public("other"), model("m", "org/m"))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			body := fmt.Sprint(`{"model":"org/m","n":`, i, `}`)
			req := r.ask("POST", "http://open.localhost/", strings.NewReader(body))
			if i%2 == 0 {
				req = r.ask("POST", "http://gateway.localhost/v1/completions", strings.NewReader(body), bearer(member)...)
			}
			if got := r.do(req); got.StatusCode != 200 || got.body != body {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		})
	}
	until(t, "20 held requests", func() bool {
		load := r.gateway.Load()
		return load["run-open"].Held == 10 && load["run-m"].Held == 10
	})
	r.plane.set(public("open"), public("other", up), model("m", "org/m")) // nothing for them
	r.plane.set(public("open", up), public("other", up), model("m", "org/m", up))
	all.Wait()
	if load := r.gateway.Load()["run-open"]; load.Held != 0 || load.Accepted != 10 {
		t.Errorf("load %+v", load)
	}
}

func TestObtain_WaitsForTheFirstTable(t *testing.T) {
	up := replica(t, 0, hello)
	r := start(t, gateway.Limits{})
	done := make(chan reply, 1)
	go func() { done <- r.get("http://open.localhost/x") }()
	until(t, "a held request", func() bool { return r.gateway.Load()[""].Held == 1 })
	r.plane.set(public("open", up))
	if got := <-done; got.body != "hello from /x" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestObtain_NotForEver(t *testing.T) {
	pulling := public("open")
	pulling.State = "pulling image 62%"
	r := start(t, gateway.Limits{HoldTimeout: 50 * time.Millisecond}, pulling, model("m", "org/m"))
	got := r.get("http://open.localhost/")
	if got.StatusCode != 503 || got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, `"kind":"unavailable","message":"open is not ready: pulling image 62%"`) {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
	page := r.get("http://open.localhost/", "Accept", "text/html")
	if !strings.Contains(page.body, `http-equiv="refresh"`) || !strings.Contains(page.body, "pulling image 62%") {
		t.Errorf("page %s", page.body)
	}
	got = r.do(r.ask("POST", "http://gateway.localhost/chat/completions", strings.NewReader(`{"model":"org/m"}`), bearer(member)...))
	if got.StatusCode != 503 || got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, `"code":"service_unavailable"`) {
		t.Errorf("model: %d %s", got.StatusCode, got.body)
	}

	none := start(t, gateway.Limits{HoldTimeout: 50 * time.Millisecond})
	if got := none.get("http://open.localhost/"); got.StatusCode != 503 || !strings.Contains(got.body, "no routes yet") {
		t.Errorf("without a table: %d %s", got.StatusCode, got.body)
	}
}

func TestObtain_Bounded(t *testing.T) {
	r := start(t, gateway.Limits{MaxHeld: 1}, public("open"))
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.client.Do(r.ask("GET", "http://open.localhost/", nil).WithContext(ctx))
		left <- err
	}()
	until(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
	got := r.get("http://open.localhost/")
	if got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" {
		t.Errorf("second of one: %d %s", got.StatusCode, got.body)
	}
	leave()
	if <-left == nil {
		t.Error("an answer for a client that left")
	}
	until(t, "the place of the one that left", func() bool { return r.gateway.Load()["run-open"].Held == 0 })
}

// TestObtain_WhatChangedWhileWaitingCounts: a held request goes by the table
// of the moment it leaves, not by that of the moment it came.
func TestObtain_WhatChangedWhileWaitingCounts(t *testing.T) {
	up := replica(t, 0, hello)
	wait := func(url string) (*rig, <-chan reply) {
		r := start(t, gateway.Limits{}, public("open"))
		done := make(chan reply, 1)
		go func() { done <- r.get(url) }()
		until(t, "a held request", func() bool { return r.gateway.Load()["run-open"].Held == 1 })
		return r, done
	}
	r, done := wait("http://open.localhost/")
	r.plane.set(service("open", up))
	if got := <-done; got.StatusCode != 401 {
		t.Errorf("a service that asks for a token now: %d", got.StatusCode)
	}
	r, done = wait("http://open.localhost/")
	r.plane.set(service("other", up))
	if got := <-done; got.StatusCode != 401 {
		t.Errorf("a service that is gone: %d", got.StatusCode)
	}
}

func TestObtain_StoppingSendsAway(t *testing.T) {
	p := &plane{}
	p.set(public("open"))
	g := gateway.New(gateway.Options{Control: p})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx, g.Tasks()...) }()
	until(t, "the table", func() bool { _, ok := g.Load()["run-open"]; return ok })
	w, done := newRecorder(), make(chan struct{})
	go func() { g.ServeHTTP(w, w.request("http://open.localhost/")); close(done) }()
	until(t, "a held request", func() bool { return g.Load()["run-open"].Held == 1 })
	stop()
	<-done
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestFollow_KeepsTheLastTableWhileTheServerIsAway(t *testing.T) {
	up := replica(t, 0, hello)
	r := start(t, gateway.Limits{}, public("open", up))
	if got := r.get("http://open.localhost/"); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	r.plane.failWith(errAway)
	until(t, "it being noticed", func() bool { return strings.Contains(r.log.String(), errAway.Error()) })
	if got := r.get("http://open.localhost/"); got.StatusCode != 200 {
		t.Errorf("with the server away: %d", got.StatusCode)
	}
	r.plane.failWith(nil)
	r.plane.set(public("fresh", up))
	until(t, "the new table", func() bool { _, ok := r.gateway.Load()["run-fresh"]; return ok })
}

func TestFollow_DoesNotSpin(t *testing.T) {
	r := start(t, gateway.Limits{}, public("open"))
	until(t, "the table", func() bool { _, ok := r.gateway.Load()["run-open"]; return ok })
	r.plane.failWith(errAway)
	time.Sleep(150 * time.Millisecond)
	r.plane.mu.Lock()
	defer r.plane.mu.Unlock()
	if r.plane.asked > 6 {
		t.Errorf("asked %d times in 150ms", r.plane.asked)
	}
}

// The API answers a submission a moment before the table has it.
func TestObtain_WaitsAMomentForNews(t *testing.T) {
	up := replica(t, 0, hello)
	r := start(t, gateway.Limits{}, service("other", up))
	done := make(chan reply, 1)
	go func() { done <- r.get("http://new.localhost/x", bearer(member)...) }()
	until(t, "a call that waits for news", func() bool { return r.gateway.Load()[""].Held == 1 })
	r.plane.set(service("other")) // no news for it
	r.plane.set(service("other"), service("new", up))
	if got := <-done; got.body != "hello from /x" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := r.get("http://never.localhost/", bearer(member)...); got.StatusCode != 404 {
		t.Errorf("what never comes: %d %s", got.StatusCode, got.body)
	}
	began := time.Now()
	if got := r.get("http://never.localhost/"); got.StatusCode != 401 || time.Since(began) > 200*time.Millisecond {
		t.Errorf("who may not know: %d after %s", got.StatusCode, time.Since(began))
	}
}
