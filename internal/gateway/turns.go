package gateway

import (
	"context"
	"net/http"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// renderWait is how long a request waits until its prompt is made.
const renderWait = 10 * time.Second

// renderSlots ration the work that keeps a processor busy. Only so much of it is
// done at once, and at most half of it for one run: a run whose prompts take
// long makes its own requests wait, not everybody's.
type renderSlots struct {
	all  chan struct{}
	each int           // for one run
	wait time.Duration // renderWait

	mu   sync.Mutex
	runs map[dstack.RunID]*runTurns
}

type runTurns struct {
	slots chan struct{}
	users int // who hold or want one
}

func newRenderSlots(n int) *renderSlots {
	n = max(2, n)
	return &renderSlots{all: make(chan struct{}, n), each: n / 2, wait: renderWait, runs: map[dstack.RunID]*runTurns{}}
}

// acquire waits for a turn, which the caller gives back. Too many before it are
// a *openai.Problem.
func (t *renderSlots) acquire(ctx context.Context, run dstack.RunID) (giveBack func(), err error) {
	wait, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	own := t.of(run)
	for i, slots := range []chan struct{}{own.slots, t.all} {
		select {
		case slots <- struct{}{}:
		case <-wait.Done():
			if i > 0 {
				<-own.slots
			}
			t.leave(run, own)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, &openai.Problem{Status: http.StatusTooManyRequests, Code: "overloaded",
				Message: "too many prompts are being made at the moment; try again"}
		}
	}
	return func() {
		<-t.all
		<-own.slots
		t.leave(run, own)
	}, nil
}

func (t *renderSlots) of(run dstack.RunID) *runTurns {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.runs[run]
	if own == nil {
		own = &runTurns{slots: make(chan struct{}, t.each)}
		t.runs[run] = own
	}
	own.users++
	return own
}

func (t *renderSlots) leave(run dstack.RunID, own *runTurns) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(t.runs, run)
	}
}
