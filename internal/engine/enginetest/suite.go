// Package enginetest tests that an engine follows the contract of engine.Engine. All
// engines pass the same tests.
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

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Fixture describes an engine to be tested.
type Fixture struct {
	// Open opens the engine. Opened again, it has the same state, as for a restarted
	// server. The engine reads code with Code. The suite closes it.
	Open         func(t *testing.T) Engine
	Capabilities dstack.EngineCapabilities
	Image        string
	// Serve is a shell command that serves the files of its working folder by HTTP on
	// $PORT until it is stopped.
	Serve string
	// ServeLocally is like Serve, but accepts connections to 127.0.0.1 only.
	ServeLocally string
	// ReadsListeners says that reports have the sockets of attempts.
	ReadsListeners bool
	// ListLeftovers names what is left of an attempt: processes, containers, folders.
	ListLeftovers func(t *testing.T, id dstack.AttemptID) []string
	// RemoveVolume removes a volume at the end of a test. It is called only if
	// Capabilities has Mounts.
	RemoveVolume func(t *testing.T, name string)
	// KeepsNoVolumes says that volumes are not those of the machine: its backend has them.
	KeepsNoVolumes bool
	// Dialer reaches the endpoints of attempts; nil: directly.
	Dialer *dial.Dialer
	// IsParallel says that the cases run beside each other.
	IsParallel bool
	// Patience is how many times as long as with a local engine everything may take; 0: once.
	Patience int
	// KillKeeper kills the keeper of an attempt; nil: the engine has no keepers.
	KillKeeper func(t *testing.T, id dstack.AttemptID)
}

// Engine is an engine that can be closed.
type Engine interface {
	engine.Engine
	Close() error
}

// codeHash is the hash of the only code that Code has.
const codeHash = "code-of-enginetest"

// Code is the engine.CodeOpener of a fixture's engine.
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

// Run tests an engine. It calls newFixture for each case.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	for _, c := range slices.Concat(contractCases, commandCases) {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			if f.IsParallel {
				t.Parallel()
			}
			h := &harness{t: t, f: f, Engine: f.Open(t)}
			t.Cleanup(h.cleanUp)
			c.run(h)
		})
	}
}

// harness runs one case.
type harness struct {
	t *testing.T
	f Fixture
	Engine
	mu      sync.Mutex
	started []dstack.AttemptID
	volumes []string
	kept    []dstack.Volume // of engine.Volumes
}

// stretch returns how long something may take that takes at most d with a local engine.
func (h *harness) stretch(d time.Duration) time.Duration {
	return d * time.Duration(max(1, h.f.Patience))
}

// caseTimeout limits each wait. It is much longer than any wait should take.
const caseTimeout = 30 * time.Second

func (h *harness) ctx() context.Context { return context.Background() }

func (h *harness) cleanUp() {
	for _, id := range h.started {
		if err := h.Remove(h.ctx(), id); err != nil {
			h.t.Errorf("remove at the end of the case: %v", err)
		}
	}
	h.deleteKept(h.t, h.Engine)
	if err := h.Close(); err != nil {
		h.t.Errorf("close: %v", err)
	}
	for _, id := range h.started {
		if left := h.f.ListLeftovers(h.t, id); len(left) > 0 {
			h.t.Errorf("left after remove: %v", left)
		}
	}
	for _, name := range h.volumes {
		h.f.RemoveVolume(h.t, name)
	}
}

func (h *harness) newSpec(script string, change ...func(*dstack.AttemptSpec)) dstack.AttemptSpec {
	h.t.Helper()
	port := FindFreePort(h.t)
	spec := dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Replica: "r", Run: "suite", Project: "main",
		Image: h.f.Image, Argv: []string{"/bin/sh", "-i", "-c", script}, Script: script,
		WorkingDir: ".", Port: port, StopGracePeriod: 5 * time.Second,
		Env: map[string]string{"PORT": strconv.Itoa(port), "DSTACK_RUN_NAME": "suite"},
	}
	for _, f := range change {
		f(&spec)
	}
	return spec
}

var lastPort atomic.Int64

// FindFreePort returns a port that is not in use, and a different one for each call. The
// ports are below the range from which systems choose ports for connections.
func FindFreePort(t *testing.T) int {
	t.Helper()
	const minPort, portCount = 12000, 20000
	lastPort.CompareAndSwap(0, rand.Int64N(portCount)) // to avoid the ports of other tests
	for range portCount {
		port := int(minPort + lastPort.Add(1)%portCount)
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
	all, err := h.ListReports(h.ctx())
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

// waitForReport waits until accept returns true for the report of an attempt. The test
// fails if the attempt ends before that.
func (h *harness) waitForReport(id dstack.AttemptID, want string, accept func(dstack.Report) bool) dstack.Report {
	h.t.Helper()
	var last dstack.Report
	h.waitUntil(want, func() bool {
		if last = h.findReport(id); isOver(last) && !accept(last) {
			h.t.Fatalf("the attempt ended before it was %s: %+v\noutput: %q", want, last, h.outputSoFar(id))
		}
		return accept(last)
	}, func() string { return fmt.Sprintf("%+v\noutput: %q", last, h.outputSoFar(id)) })
	return last
}

// waitUntil polls until condition returns true. describe describes the last state for
// the error message.
func (h *harness) waitUntil(want string, condition func() bool, describe func() string) {
	h.t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for timeout := time.After(h.stretch(caseTimeout)); !condition(); {
		select {
		case <-poll.C:
		case <-timeout:
			h.t.Fatalf("not %s within %v; the last state is %s", want, h.stretch(caseTimeout), describe())
		}
	}
}

func isReady(r dstack.Report) bool   { return r.State == dstack.AttemptRunning && r.Ready }
func isRunning(r dstack.Report) bool { return r.State == dstack.AttemptRunning }
func isExited(r dstack.Report) bool  { return r.State == dstack.AttemptExited }
func isOver(r dstack.Report) bool    { return r.State.IsOver() && r.State != dstack.AttemptAbsent }

// outputSoFar returns the output that an attempt has written until now.
func (h *harness) outputSoFar(id dstack.AttemptID) []string {
	ctx, cancel := context.WithTimeout(h.ctx(), h.stretch(300*time.Millisecond))
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

// readAllLogs returns the whole output of an attempt that ends.
func (h *harness) readAllLogs(id dstack.AttemptID, since time.Time) []dstack.LogLine {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx(), h.stretch(caseTimeout))
	defer cancel()
	lines := h.readLogs(ctx, id, since)
	if ctx.Err() != nil {
		h.t.Fatalf("the output of an ended attempt does not end; got %q", lineTexts(lines))
	}
	return lines
}

// waitForLine waits until an attempt has written the line.
func (h *harness) waitForLine(id dstack.AttemptID, want string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx(), h.stretch(caseTimeout))
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
	h.t.Fatalf("no line %q in %q; the report is %+v", want, got, h.findReport(id))
}

func lineTexts(lines []dstack.LogLine) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, string(l.Text))
	}
	return out
}

func (h *harness) fetchIndex(r dstack.Report) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx(), h.stretch(caseTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dial.URLHost(r.Endpoint)+"/index.html", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	dialer := h.f.Dialer
	if dialer == nil {
		dialer = &dial.Dialer{}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
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

// reopen closes the engine and opens it again, as a restarted server does.
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
