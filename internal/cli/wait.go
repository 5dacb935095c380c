package cli

import (
	"context"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// maxServerSilence is how long the server may be unreachable while a run is
// watched. A restart takes seconds.
const maxServerSilence = 2 * time.Minute

// viewUpdate is a new view of a watched run, or an error.
type viewUpdate struct {
	view api.RunView
	err  error
}

// watchViews watches a run until stop is called. stop waits for the goroutine.
func watchViews(ctx context.Context, client *api.Client, project string, request api.RunViewRequest) (updates <-chan viewUpdate, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan viewUpdate)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for view, err := range client.Watch(ctx, project, request) {
			select {
			case out <- viewUpdate{view, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() {
		cancel()
		<-done
	}
}

// runWaiter waits until a run meets a condition.
type runWaiter struct {
	*app
	client  *api.Client
	project string
	timeout time.Duration // 0: none
	// isDone reports whether the wait is over, with an error if it failed.
	isDone func(api.RunView) (bool, error)
	// timeoutError returns the error after the timeout.
	timeoutError func(api.RunView) error
}

// waitUntilDone waits and shows the status of the run. It always returns the last
// view.
func (w *runWaiter) waitUntilDone(ctx context.Context, view api.RunView) (api.RunView, error) {
	if isOver, err := w.isDone(view); isOver {
		return view, err
	}
	if w.timeout > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, w.timeout, errWaitTimeout)
		defer cancel()
	}
	updates, stop := watchViews(ctx, w.client, w.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID)})
	defer stop()
	board := newStatusBoard(w.screen, view, time.Now())
	defer board.clear()
	board.draw(time.Now())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	lastAnswer := time.Now()
	for {
		select {
		case <-ctx.Done():
			board.clear()
			if context.Cause(ctx) == errWaitTimeout {
				return view, w.timeoutError(view)
			}
			return view, context.Cause(ctx)
		case now := <-tick.C:
			if w.err.terminal {
				board.draw(now)
			}
		case l := <-updates:
			if l.err != nil {
				if dstack.KindOf(l.err) != dstack.Unavailable || time.Since(lastAnswer) > maxServerSilence {
					return view, l.err
				}
				board.showUnreachable(l.err, time.Now())
				continue
			}
			view, lastAnswer = l.view, time.Now()
			if isOver, err := w.isDone(view); isOver {
				board.printCrashes(time.Now())
				return view, err
			}
			board.update(view, time.Now())
		}
	}
}

var errWaitTimeout = &dstack.Error{Kind: dstack.Timeout, Message: "the time is over"}

// endError returns the error of a run that has ended or is stopping.
func endError(v api.RunView) error {
	report := &failureReport{err: &dstack.Error{Kind: dstack.Conflict, Message: v.Name + " failed", Hint: "dstack logs " + v.Name}}
	if v.ReadyAt == nil {
		report.err.Message = v.Name + " did not become ready"
	}
	if v.Reason != "" {
		report.reasons = []string{v.Reason}
	}
	switch v.Ending {
	case dstack.EndStopped, dstack.EndAborted:
		report.err.Message, report.err.Hint = v.Name+" was stopped", "start it again: dstack apply"
		return report
	case dstack.EndNoCapacity:
		report.err.Kind = dstack.NoCapacity
		report.err.Hint = "ask for less, or let it wait for a machine: --retry"
	case dstack.EndNone, dstack.EndFailed:
	}
	report.addReplicas(v)
	return report
}

// addReplicas adds the reasons of the replicas that are not ready, and the output
// of the first of them that has any.
func (r *failureReport) addReplicas(v api.RunView) {
	for _, replica := range v.Replicas {
		if replica.Status == dstack.ReplicaReady || replica.Reason == "" {
			continue
		}
		if len(r.reasons) == 0 || cleanLine(r.reasons[0]) != cleanLine(replica.Reason) {
			r.reasons = append(r.reasons, describeReason(replica))
		}
		if r.output == nil {
			r.output = replica.LastOutput
		}
	}
}
