package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// fakeEngine is an engine in memory, with faults that tests set.
type fakeEngine struct {
	mu       sync.Mutex
	attempts map[dstack.AttemptID]*fakeAttempt
	started  []dstack.AttemptID // in order, each once
	twice    []string           // replicas of which two attempts ran at once
	silent   bool               // cannot be reached
	hangs    bool               // answers only when the context ends
	stubborn bool               // attempts ignore SIGTERM
	kept     map[dstack.VolumeID]dstack.Volume
	mounted  bool   // volumes cannot be deleted
	refuse   string // attempts cannot be started, for this reason
	// refuseAfter is how many attempts are started before refuse applies.
	refuseAfter int
}

type fakeAttempt struct {
	spec    dstack.AttemptSpec
	started time.Time
	ended   time.Time
	stopped bool
	code    int
	refused string
	shut    bool // the port is not open
	lines   []dstack.LogLine
	changed chan struct{}
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{attempts: map[dstack.AttemptID]*fakeAttempt{}}
}

var errSilent = errors.New("engine: connection refused")

func (e *fakeEngine) Start(_ context.Context, o dstack.AttemptSpec) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.silent {
		return errSilent
	}
	if e.attempts[o.Attempt] != nil {
		return nil
	}
	for id, a := range e.attempts {
		if a.spec.Replica == o.Replica && a.ended.IsZero() && a.refused == "" {
			e.twice = append(e.twice, fmt.Sprintf("%s and %s", id, o.Attempt))
		}
	}
	e.started = append(e.started, o.Attempt)
	a := &fakeAttempt{spec: o, started: time.Now(), changed: make(chan struct{})}
	if len(e.started) > e.refuseAfter {
		a.refused = e.refuse
	}
	e.attempts[o.Attempt] = a
	if a.refused == "" {
		a.print("hello from " + string(o.Attempt))
	}
	return nil
}

func (a *fakeAttempt) print(text string) {
	a.lines = append(a.lines, dstack.LogLine{At: time.Now().UTC().Truncate(time.Microsecond), Stream: "stdout", Text: []byte(text)})
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *fakeAttempt) end(code int) {
	a.ended, a.code = time.Now(), code
	close(a.changed)
	a.changed = make(chan struct{})
}

func (e *fakeEngine) Stop(_ context.Context, id dstack.AttemptID, grace time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.silent {
		return errSilent
	}
	if a := e.attempts[id]; a != nil && a.ended.IsZero() && (!e.stubborn || grace == 0) {
		a.stopped = true
		a.end(143)
	}
	return nil
}

func (e *fakeEngine) ListReports(ctx context.Context) ([]dstack.Report, error) {
	hangs := false
	if e.with(func(e *fakeEngine) { hangs = e.hangs }); hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.silent {
		return nil, errSilent
	}
	var reports []dstack.Report
	for id, a := range e.attempts {
		rep := dstack.Report{Attempt: id, StartedAt: a.started, At: time.Now()}
		switch {
		case a.refused != "":
			rep.State, rep.Error, rep.Permanent = dstack.AttemptRefused, a.refused, true
		case !a.ended.IsZero():
			rep.State, rep.ExitCode, rep.EndedAt = dstack.AttemptExited, a.code, a.ended
			rep.LastOutput = []string{"last words"}
		default:
			rep.State, rep.Ready = dstack.AttemptRunning, !a.shut
			rep.Address = fmt.Sprintf("127.0.0.1:%d", a.spec.Port)
		}
		reports = append(reports, rep)
	}
	return reports, nil
}

func (e *fakeEngine) Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		for sent := 0; ; {
			e.mu.Lock()
			a := e.attempts[id]
			if a == nil {
				e.mu.Unlock()
				return
			}
			lines, over, changed := slices.Clone(a.lines[sent:]), !a.ended.IsZero(), a.changed
			e.mu.Unlock()
			for _, l := range lines {
				sent++
				if l.At.After(since) && !yield(l, nil) {
					return
				}
			}
			if over {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}
}

func (e *fakeEngine) Remove(_ context.Context, id dstack.AttemptID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.silent {
		return errSilent
	}
	delete(e.attempts, id)
	return nil
}

// with calls f while no other call uses the engine.
func (e *fakeEngine) with(f func(*fakeEngine)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e)
}

func (e *fakeEngine) count() (n int) {
	e.with(func(e *fakeEngine) { n = len(e.attempts) })
	return n
}

// crash ends every running attempt with an exit code.
func (e *fakeEngine) crash(code int) {
	e.with(func(e *fakeEngine) {
		for _, a := range e.attempts {
			if a.ended.IsZero() && a.refused == "" {
				a.end(code)
			}
		}
	})
}
