package gateway

import (
	"context"
	"net/http"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// maxRenderWait is how long a request waits until its prompt is rendered.
const maxRenderWait = 10 * time.Second

// renderSlots limit how many prompts are rendered at once, which keeps a
// processor busy: one run gets half of the slots at most, so that a run whose
// prompts take long delays only its own requests.
type renderSlots struct {
	all    chan struct{}
	perRun int
	wait   time.Duration // maxRenderWait

	mu   sync.Mutex
	runs map[dstack.RunID]*runSlots
}

type runSlots struct {
	slots chan struct{}
	users int // requests that hold a slot or wait for one
}

func newRenderSlots(n int) *renderSlots {
	n = max(2, n)
	return &renderSlots{
		all: make(chan struct{}, n), perRun: n / 2, wait: maxRenderWait, runs: map[dstack.RunID]*runSlots{},
	}
}

// acquire waits for a slot, which the caller releases. If that takes too long,
// the error is a *openai.Problem.
func (s *renderSlots) acquire(ctx context.Context, run dstack.RunID) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	own := s.joinRun(run)
	for i, slots := range []chan struct{}{own.slots, s.all} {
		select {
		case slots <- struct{}{}:
		case <-wait.Done():
			if i > 0 {
				<-own.slots
			}
			s.leaveRun(run, own)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, &openai.Problem{Status: http.StatusTooManyRequests, Code: "overloaded",
				Message: "too many prompts are being rendered at the moment; try again"}
		}
	}
	return func() {
		<-s.all
		<-own.slots
		s.leaveRun(run, own)
	}, nil
}

func (s *renderSlots) joinRun(run dstack.RunID) *runSlots {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.runs[run]
	if own == nil {
		own = &runSlots{slots: make(chan struct{}, s.perRun)}
		s.runs[run] = own
	}
	own.users++
	return own
}

func (s *renderSlots) leaveRun(run dstack.RunID, own *runSlots) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(s.runs, run)
	}
}
