package cli

import (
	"context"
	"errors"
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
func watchViews(
	ctx context.Context, client *api.Client, project string, request api.RunViewRequest,
) (updates <-chan viewUpdate, stop func()) {
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
			if errors.Is(context.Cause(ctx), errWaitTimeout) {
				return view, w.timeoutError(view)
			}
			return view, context.Cause(ctx)
		case now := <-tick.C:
			if w.err.terminal {
				board.draw(now)
			}
		case update := <-updates:
			if update.err != nil {
				if dstack.KindOf(update.err) != dstack.Unavailable || time.Since(lastAnswer) > maxServerSilence {
					return view, update.err
				}
				board.showUnreachable(update.err, time.Now())
				continue
			}
			view, lastAnswer = update.view, time.Now()
			if isOver, err := w.isDone(view); isOver {
				board.printCrashes(time.Now())
				return view, err
			}
			board.update(view, time.Now())
		}
	}
}

// errWaitTimeout is the cause of a context whose wait has timed out.
var errWaitTimeout = &dstack.Error{Kind: dstack.Timeout, Message: "the timeout has passed"}
