package cli

import (
	"context"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// silenceLimit is how long the server may be away while we watch a run. A
// restart takes seconds.
const silenceLimit = 2 * time.Minute

// look is one answer of a watched run.
type look struct {
	view api.RunView
	err  error
}

// watch looks at a run until stop is called, which returns when the looking
// has ended.
func watch(ctx context.Context, client *api.Client, project string, ask api.RunViewRequest) (looks <-chan look, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan look)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for view, err := range client.Watch(ctx, project, ask) {
			select {
			case out <- look{view, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() {
		cancel()
		<-ended
	}
}

// waiting is a wait for a run to become something.
type waiting struct {
	*app
	client  *api.Client
	project string
	limit   time.Duration // 0: none
	// done says that the wait is over, with an error if it was in vain.
	done func(api.RunView) (bool, error)
	// late is the error when the limit passed.
	late func(api.RunView) error
}

// until waits, showing how things go. The last view is returned in any case.
func (w *waiting) until(ctx context.Context, view api.RunView) (api.RunView, error) {
	if over, err := w.done(view); over {
		return view, err
	}
	if w.limit > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, w.limit, errLate)
		defer cancel()
	}
	looks, stop := watch(ctx, w.client, w.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID)})
	defer stop()
	board := newBoard(w.screen, view, time.Now())
	defer board.clear()
	board.draw(time.Now())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			board.clear()
			if context.Cause(ctx) == errLate {
				return view, w.late(view)
			}
			return view, context.Cause(ctx)
		case now := <-tick.C:
			if w.err.terminal {
				board.draw(now)
			}
		case l := <-looks:
			if l.err != nil {
				if dstack.KindOf(l.err) != dstack.Unavailable || time.Since(heard) > silenceLimit {
					return view, l.err
				}
				board.silence(l.err, time.Now())
				continue
			}
			view, heard = l.view, time.Now()
			if over, err := w.done(view); over {
				board.tellCrashes(time.Now())
				return view, err
			}
			board.news(view, time.Now())
		}
	}
}

var errLate = &dstack.Error{Kind: dstack.Timeout, Message: "the time is over"}

// ended is the story of a run that is over, or about to be.
func ended(v api.RunView) error {
	story := &verdict{err: &dstack.Error{Kind: dstack.Conflict, Message: v.Name + " failed", Hint: "dstack logs " + v.Name}}
	if v.ReadyAt == nil {
		story.err.Message = v.Name + " did not become ready"
	}
	if v.Reason != "" {
		story.why = []string{v.Reason}
	}
	switch v.Ending {
	case dstack.EndStopped, dstack.EndAborted:
		story.err.Message, story.err.Hint = v.Name+" was stopped", "start it again: dstack apply"
		return story
	case dstack.EndNoCapacity:
		story.err.Kind = dstack.NoCapacity
		story.err.Hint = "ask for less, or let it wait for a machine: --retry"
	case dstack.EndNone, dstack.EndFailed:
	}
	story.take(v)
	return story
}

// take adds why replicas are not ready, and what the first of them said last.
func (s *verdict) take(v api.RunView) {
	for _, r := range v.Replicas {
		if r.Status == dstack.ReplicaReady || r.Reason == "" {
			continue
		}
		if len(s.why) == 0 || cleanLine(s.why[0]) != cleanLine(r.Reason) {
			s.why = append(s.why, sentence(r))
		}
		if s.output == nil {
			s.output = r.LastOutput
		}
	}
}
