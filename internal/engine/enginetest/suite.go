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
	// ListLeftovers names what is left of an attempt: processes, containers, folders.
	ListLeftovers func(t *testing.T, id dstack.AttemptID) []string
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
func Code(_ context.Context, spec dstack.AttemptSpec) (io.ReadCloser, error) {
	if spec.CodeHash != codeHash {
		return nil, fmt.Errorf("no code %q", spec.CodeHash)
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
	for _, c := range contractCases {
		t.Run(c.name, func(t *testing.T) {
			f := make(t)
			b := &harness{t: t, f: f, Engine: f.Open(t)}
			t.Cleanup(b.cleanUp)
			c.run(b)
		})
	}
}

// harness is one case at work.
type harness struct {
	t *testing.T
	f Fixture
	Engine
	mu      sync.Mutex
	started []dstack.AttemptID
}

// caseTimeout is far more than anything takes; a case that meets it has failed.
const caseTimeout = 30 * time.Second

func (h *harness) ctx() context.Context { return context.Background() }

func (h *harness) cleanUp() {
	for _, id := range h.started {
		if err := h.Remove(h.ctx(), id); err != nil {
			h.t.Errorf("remove at the end: %v", err)
		}
	}
	if err := h.Close(); err != nil {
		h.t.Errorf("close: %v", err)
	}
	for _, id := range h.started {
		if left := h.f.ListLeftovers(h.t, id); len(left) > 0 {
			h.t.Errorf("left after remove: %v", left)
		}
	}
}

func (h *harness) newSpec(script string, change ...func(*dstack.AttemptSpec)) dstack.AttemptSpec {
	h.t.Helper()
	port := freePort(h.t)
	o := dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Replica: "r", Run: "suite", Project: "main",
		Image: h.f.Image, Argv: []string{"/bin/sh", "-i", "-c", script}, Script: script,
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

func (h *harness) startAttempt(spec dstack.AttemptSpec) dstack.AttemptID {
	h.t.Helper()
	h.mu.Lock()
	h.started = append(h.started, spec.Attempt)
	h.mu.Unlock()
	if err := h.Start(h.ctx(), spec); err != nil {
		h.t.Fatalf("start: %v", err)
	}
	return spec.Attempt
}

func (h *harness) findReport(id dstack.AttemptID) dstack.Report {
	h.t.Helper()
	all, err := h.Running(h.ctx())
	if err != nil {
		h.t.Fatalf("running: %v", err)
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
	h.t.Fatalf("attempt %s is reported %d times: %+v", id, len(found), found)
	return dstack.Report{}
}

// waitForReport looks until the report of an attempt is as wanted.
func (h *harness) waitForReport(id dstack.AttemptID, what string, good func(dstack.Report) bool) dstack.Report {
	h.t.Helper()
	var last dstack.Report
	h.eventually(what, func() bool {
		if last = h.findReport(id); isOver(last) && !good(last) {
			h.t.Fatalf("it is over before it is %s: %+v\noutput: %q", what, last, h.outputSoFar(id))
		}
		return good(last)
	}, func() string { return fmt.Sprintf("%+v\noutput: %q", last, h.outputSoFar(id)) })
	return last
}

func (h *harness) eventually(what string, good func() bool, seen func() string) {
	h.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for late := time.After(caseTimeout); !good(); {
		select {
		case <-look.C:
		case <-late:
			h.t.Fatalf("not within %v: %s; last seen: %s", caseTimeout, what, seen())
		}
	}
}

func isReady(r dstack.Report) bool   { return r.State == dstack.AttemptRunning && r.Ready }
func isRunning(r dstack.Report) bool { return r.State == dstack.AttemptRunning }
func isExited(r dstack.Report) bool  { return r.State == dstack.AttemptExited }
func isOver(r dstack.Report) bool    { return r.State.IsOver() && r.State != dstack.AttemptAbsent }

// outputSoFar is all that an attempt has written until now.
func (h *harness) outputSoFar(id dstack.AttemptID) []string {
	ctx, cancel := context.WithTimeout(h.ctx(), 300*time.Millisecond)
	defer cancel()
	return lineTexts(h.readLogs(ctx, id, time.Time{}))
}

func (h *harness) readLogs(ctx context.Context, id dstack.AttemptID, since time.Time) []dstack.LogLine {
	var lines []dstack.LogLine
	for l, err := range h.Logs(ctx, id, since) {
		if err != nil {
			h.t.Errorf("logs: %v", err)
			break
		}
		lines = append(lines, l)
	}
	return lines
}

// readAllLogs is the whole output of an attempt that ends.
func (h *harness) readAllLogs(id dstack.AttemptID, since time.Time) []dstack.LogLine {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx(), caseTimeout)
	defer cancel()
	lines := h.readLogs(ctx, id, since)
	if ctx.Err() != nil {
		h.t.Fatalf("the output of an ended attempt does not end; got %q", lineTexts(lines))
	}
	return lines
}

// waitForLine waits until an attempt has written a line.
func (h *harness) waitForLine(id dstack.AttemptID, want string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx(), caseTimeout)
	defer cancel()
	var got []string
	for l, err := range h.Logs(ctx, id, time.Time{}) {
		if err != nil {
			h.t.Fatalf("logs: %v", err)
		}
		if string(l.Text) == want {
			return
		}
		got = append(got, string(l.Text))
	}
	h.t.Fatalf("no line %q, only %q; %+v", want, got, h.findReport(id))
}

func lineTexts(lines []dstack.LogLine) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, string(l.Text))
	}
	return out
}

func (h *harness) fetchIndex(address string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx(), caseTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/index.html", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		h.t.Fatalf("get: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

// reopen closes the engine and opens it anew, as a restarted server does.
func (h *harness) reopen() {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatalf("close: %v", err)
	}
	h.Engine = h.f.Open(h.t)
}

func (h *harness) stopAttempt(id dstack.AttemptID, grace time.Duration) {
	h.t.Helper()
	if err := h.Stop(h.ctx(), id, grace); err != nil {
		h.t.Fatalf("stop: %v", err)
	}
}

func (h *harness) expectLines(id dstack.AttemptID, want ...string) {
	h.t.Helper()
	got := lineTexts(h.readAllLogs(id, time.Time{}))
	for _, w := range want {
		if !slices.Contains(got, w) {
			h.t.Errorf("no line %q in %q", w, got)
		}
	}
}
