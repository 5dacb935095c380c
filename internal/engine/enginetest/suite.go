// Package enginetest is the contract of engine.Engine as a test, the same for
// every engine.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Fixture is an engine to be tested.
type Fixture struct {
	// Open opens an engine; opened again, it is a new server's on the same
	// state. The engine's code comes from Code, and Close is called.
	Open  func(t *testing.T) Engine
	Image string
	// Serve is a shell command that serves the files of its working folder by
	// HTTP, on $PORT, until it is ended.
	Serve string
	// Left names what is left of an attempt: processes, containers, folders.
	Left func(t *testing.T, id dstack.AttemptID) []string
	// KillKeeper kills what looks after an attempt; nil when nothing does.
	KillKeeper func(t *testing.T, id dstack.AttemptID)
}

// Engine is an engine that can be closed.
type Engine interface {
	engine.Engine
	Close() error
}

// The code that Code knows.
const codeHash = "code-of-enginetest"

// Code is the engine.Code of a fixture's engine.
func Code(_ context.Context, o dstack.AttemptSpec) (io.ReadCloser, error) {
	if o.CodeHash != codeHash {
		return nil, fmt.Errorf("no code %q", o.CodeHash)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range []struct {
		name string
		mode int64
		text string
	}{{"app/hello.txt", 0o644, "hello from the folder"}, {"run.sh", 0o755, "#!/bin/sh\necho run by $0"}} {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(&buf), w.Close()
}

// Run tests an engine. make is called for each case.
func Run(t *testing.T, make func(t *testing.T) Fixture) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := make(t)
			b := &bench{t: t, f: f, Engine: f.Open(t)}
			t.Cleanup(b.end)
			c.run(b)
		})
	}
}

// bench is one case at work.
type bench struct {
	t *testing.T
	f Fixture
	Engine
	mu      sync.Mutex
	started []dstack.AttemptID
}

// limit is far more than anything takes; a case that meets it has failed.
const limit = 30 * time.Second

func (b *bench) ctx() context.Context { return context.Background() }

func (b *bench) end() {
	for _, id := range b.started {
		if err := b.Remove(b.ctx(), id); err != nil {
			b.t.Errorf("remove at the end: %v", err)
		}
	}
	if err := b.Close(); err != nil {
		b.t.Errorf("close: %v", err)
	}
	for _, id := range b.started {
		if left := b.f.Left(b.t, id); len(left) > 0 {
			b.t.Errorf("left after remove: %v", left)
		}
	}
}

func (b *bench) order(script string, change ...func(*dstack.AttemptSpec)) dstack.AttemptSpec {
	b.t.Helper()
	port := freePort(b.t)
	o := dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Replica: "r", Run: "suite", Project: "main",
		Image: b.f.Image, Argv: []string{"/bin/sh", "-i", "-c", script}, Script: script,
		WorkingDir: ".", Port: port, StopGracePeriod: 5 * time.Second,
		Env: map[string]string{"PORT": strconv.Itoa(port), "DSTACK_RUN_NAME": "suite"},
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

var lastPort atomic.Int64

// freePort returns a port that nobody listens on, below those that systems
// hand out by themselves, and another one each time.
func freePort(t *testing.T) int {
	t.Helper()
	const lowest, count = 12000, 20000
	lastPort.CompareAndSwap(0, rand.Int64N(count)) // to stay clear of other tests
	for range count {
		port := int(lowest + lastPort.Add(1)%count)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func (b *bench) start(o dstack.AttemptSpec) dstack.AttemptID {
	b.t.Helper()
	b.mu.Lock()
	b.started = append(b.started, o.Attempt)
	b.mu.Unlock()
	if err := b.Start(b.ctx(), o); err != nil {
		b.t.Fatalf("start: %v", err)
	}
	return o.Attempt
}

func (b *bench) report(id dstack.AttemptID) dstack.Report {
	b.t.Helper()
	all, err := b.Running(b.ctx())
	if err != nil {
		b.t.Fatalf("running: %v", err)
	}
	var found []dstack.Report
	for _, r := range all {
		if r.Attempt == id {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return dstack.Report{Attempt: id, State: dstack.AttemptAbsent}
	case 1:
		return found[0]
	}
	b.t.Fatalf("attempt %s is reported %d times: %+v", id, len(found), found)
	return dstack.Report{}
}

// until looks until the report of an attempt is as wanted.
func (b *bench) until(id dstack.AttemptID, what string, good func(dstack.Report) bool) dstack.Report {
	b.t.Helper()
	var last dstack.Report
	b.eventually(what, func() bool {
		if last = b.report(id); over(last) && !good(last) {
			b.t.Fatalf("it is over before it is %s: %+v\noutput: %q", what, last, b.output(id))
		}
		return good(last)
	}, func() string { return fmt.Sprintf("%+v\noutput: %q", last, b.output(id)) })
	return last
}

func (b *bench) eventually(what string, good func() bool, seen func() string) {
	b.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for late := time.After(limit); !good(); {
		select {
		case <-look.C:
		case <-late:
			b.t.Fatalf("not within %v: %s; last seen: %s", limit, what, seen())
		}
	}
}

func ready(r dstack.Report) bool   { return r.State == dstack.AttemptRunning && r.Ready }
func running(r dstack.Report) bool { return r.State == dstack.AttemptRunning }
func exited(r dstack.Report) bool  { return r.State == dstack.AttemptExited }
func over(r dstack.Report) bool    { return r.State.IsOver() && r.State != dstack.AttemptAbsent }

// output is all that an attempt has written until now.
func (b *bench) output(id dstack.AttemptID) []string {
	ctx, cancel := context.WithTimeout(b.ctx(), 300*time.Millisecond)
	defer cancel()
	return texts(b.collect(ctx, id, time.Time{}))
}

func (b *bench) collect(ctx context.Context, id dstack.AttemptID, since time.Time) []dstack.LogLine {
	var lines []dstack.LogLine
	for l, err := range b.Logs(ctx, id, since) {
		if err != nil {
			b.t.Errorf("logs: %v", err)
			break
		}
		lines = append(lines, l)
	}
	return lines
}

// all is the whole output of an attempt that ends.
func (b *bench) all(id dstack.AttemptID, since time.Time) []dstack.LogLine {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx(), limit)
	defer cancel()
	lines := b.collect(ctx, id, since)
	if ctx.Err() != nil {
		b.t.Fatalf("the output of an ended attempt does not end; got %q", texts(lines))
	}
	return lines
}

// waitFor waits until an attempt has written a line.
func (b *bench) waitFor(id dstack.AttemptID, want string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx(), limit)
	defer cancel()
	var got []string
	for l, err := range b.Logs(ctx, id, time.Time{}) {
		if err != nil {
			b.t.Fatalf("logs: %v", err)
		}
		if string(l.Text) == want {
			return
		}
		got = append(got, string(l.Text))
	}
	b.t.Fatalf("no line %q, only %q; %+v", want, got, b.report(id))
}

func texts(lines []dstack.LogLine) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, string(l.Text))
	}
	return out
}

func (b *bench) get(address string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/index.html", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		b.t.Fatalf("get: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

// again closes the engine and opens it anew, as a restarted server does.
func (b *bench) again() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatalf("close: %v", err)
	}
	b.Engine = b.f.Open(b.t)
}

func (b *bench) stop(id dstack.AttemptID, grace time.Duration) {
	b.t.Helper()
	if err := b.Stop(b.ctx(), id, grace); err != nil {
		b.t.Fatalf("stop: %v", err)
	}
}

func (b *bench) wantLines(id dstack.AttemptID, want ...string) {
	b.t.Helper()
	got := texts(b.all(id, time.Time{}))
	for _, w := range want {
		if !slices.Contains(got, w) {
			b.t.Errorf("no line %q in %q", w, got)
		}
	}
}
