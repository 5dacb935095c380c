package cli

import (
	"context"
	"fmt"
	"iter"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// reconnectDelay is between two tries to go on reading.
const reconnectDelay = 300 * time.Millisecond

// maxReadSilence is how long the server may be away while we only read what
// there is.
const maxReadSilence = 2 * time.Second

// logReader reads a run's output and picks it up again where the server went
// away: nothing is lost, nothing comes twice.
type logReader struct {
	client     *api.Client
	project    string
	request    api.FollowLogs
	notify     func(string) // what a person should know meanwhile
	retryDelay time.Duration
}

// entries yields output. An error is the last it yields.
func (l *logReader) entries(ctx context.Context) iter.Seq2[api.LogEntry, error] {
	return func(yield func(api.LogEntry, error) bool) {
		l.request.After = map[dstack.AttemptID]time.Time{}
		var silentSince time.Time
		for {
			heard, left, fault := l.readStream(ctx, yield)
			switch {
			case left:
				return
			case ctx.Err() != nil:
				yield(api.LogEntry{}, context.Cause(ctx))
				return
			case fault == nil:
				over, err := l.hasEnded(ctx)
				if over {
					return
				}
				fault = err
			}
			if heard || fault == nil {
				silentSince = time.Time{}
			}
			if fault != nil && silentSince.IsZero() {
				silentSince = time.Now()
				if l.request.Follow && dstack.KindOf(fault) == dstack.Unavailable {
					l.notify(fault.Error() + "; trying again")
				}
			}
			if !l.mayRetry(fault, silentSince) {
				yield(api.LogEntry{}, fault)
				return
			}
			_ = loop.Sleep(ctx, l.retryDelay)
		}
	}
}

// readStream yields what one opened stream brings, without what was seen before.
// left: whoever listens has gone.
func (l *logReader) readStream(ctx context.Context, yield func(api.LogEntry, error) bool) (heard, left bool, fault error) {
	seen := l.request.After
	for entry, err := range l.client.Follow(ctx, l.project, l.request) {
		if err != nil {
			return heard, false, err
		}
		if entry.Error == "" {
			heard = true
			if !entry.Timestamp.After(seen[entry.Attempt]) {
				continue
			}
			seen[entry.Attempt] = entry.Timestamp
		}
		if !yield(entry, nil) {
			return heard, true, nil
		}
	}
	return heard, false, nil
}

// hasEnded says that there is no more output to come.
func (l *logReader) hasEnded(ctx context.Context) (bool, error) {
	if !l.request.Follow {
		return true, nil
	}
	view, err := l.client.View(ctx, l.project, api.RunViewRequest{RunName: l.request.RunName})
	if dstack.KindOf(err) == dstack.NotFound {
		return true, nil // deleted meanwhile
	}
	return err == nil && view.Status.IsFinished(), err
}

// mayRetry says whether it is worth asking once more.
func (l *logReader) mayRetry(fault error, silentSince time.Time) bool {
	switch {
	case fault == nil:
		return true // the server ended the stream, the run goes on
	case dstack.KindOf(fault) != dstack.Unavailable:
		return false
	case !l.request.Follow:
		return time.Since(silentSince) < maxReadSilence
	}
	return time.Since(silentSince) < maxServerSilence
}

// logEvent is one line, or the error that ended them.
type logEvent struct {
	entry api.LogEntry
	err   error
}

// followRun shows a run's output and what becomes of it, until it is over.
func (a *runWatcher) followRun(ctx context.Context, view api.RunView) error {
	ctx, cancel := context.WithCancel(ctx)
	reader := &logReader{client: a.client, project: a.project, retryDelay: reconnectDelay,
		request: api.FollowLogs{RunName: view.Name, Follow: true, Present: true},
		notify:  func(text string) { a.printInfo(" %s", cleanLine(text)) }}
	lines := make(chan logEvent)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer close(lines)
		for entry, err := range reader.entries(ctx) {
			select {
			case lines <- logEvent{entry, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-stopped }()
	looks, stop := watchViews(ctx, a.client, a.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID), After: view.Version})
	defer stop()
	return a.printUntilEnd(ctx, view, lines, looks)
}

// printUntilEnd prints lines as they come, and between them what happens to the run.
func (a *runWatcher) printUntilEnd(ctx context.Context, view api.RunView, lines <-chan logEvent, looks <-chan viewUpdate) error {
	print := newLogPrinter(a.screen, logStyle{showReplica: view.DesiredReplicas > 1})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case line, open := <-lines:
			if !open {
				return a.printOutcome(ctx, view)
			}
			if line.err != nil {
				return line.err
			}
			if err := print.printEntry(line.entry); err != nil {
				return err
			}
		case l := <-looks:
			if l.err != nil {
				continue // the lines' reader tells, and gives up in time
			}
			if l.view.Revision > view.Revision {
				return &dstack.Error{Kind: dstack.Conflict, Hint: "follow it: dstack logs " + view.Name + " -f",
					Message: fmt.Sprintf("revision %d of %s was replaced by revision %d", view.Revision, view.Name, l.view.Revision)}
			}
			if l.view.Status != view.Status {
				a.printInfo(" %s", a.err.paint(yellow, describeRun(l.view)))
			}
			view = l.view
		}
	}
}

// printOutcome says how a run ended whose output is over.
func (a *runWatcher) printOutcome(ctx context.Context, view api.RunView) error {
	last, err := a.client.View(ctx, a.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID)})
	if dstack.KindOf(err) == dstack.NotFound {
		last, err = view, nil
	}
	if err != nil {
		return err
	}
	if last.Status == api.StatusFailed {
		return endError(last)
	}
	if last.Status != view.Status {
		a.printInfo(" %s", describeRun(last)) // else it was said already
	}
	return nil
}
