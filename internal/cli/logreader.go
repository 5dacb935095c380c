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

// reconnectDelay is the time between two attempts to continue a stream.
const reconnectDelay = 300 * time.Millisecond

// maxReadSilence is how long logs without --follow waits for a server that
// cannot be reached.
const maxReadSilence = 2 * time.Second

// logReader reads the output of a run. It reconnects after the connection breaks,
// and continues with the line after the last one of each attempt.
type logReader struct {
	client     *api.Client
	project    string
	request    api.FollowLogs
	notify     func(string) // shows a message to the user
	retryDelay time.Duration
}

// entries yields the lines of output. An error is the last element.
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
				ended, err := l.hasEnded(ctx)
				if ended {
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

// readStream yields the new lines of one stream. heard: there was at least one
// line. left: the consumer stopped.
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

// hasEnded reports whether there is no further output to wait for.
func (l *logReader) hasEnded(ctx context.Context) (bool, error) {
	if !l.request.Follow {
		return true, nil
	}
	view, err := l.client.View(ctx, l.project, api.RunViewRequest{RunName: l.request.RunName})
	if dstack.KindOf(err) == dstack.NotFound {
		return true, nil // deleted in the meantime
	}
	return err == nil && view.Status.IsFinished(), err
}

// mayRetry reports whether another attempt may help.
func (l *logReader) mayRetry(fault error, silentSince time.Time) bool {
	switch {
	case fault == nil:
		return true // the server ended the stream, but the run goes on
	case dstack.KindOf(fault) != dstack.Unavailable:
		return false
	case !l.request.Follow:
		return time.Since(silentSince) < maxReadSilence
	}
	return time.Since(silentSince) < maxServerSilence
}

// logEvent is a line of output, or the error that ended the output.
type logEvent struct {
	entry api.LogEntry
	err   error
}

// followRun prints the output of a run and the changes of its status until it
// ends.
func (s *runWatcher) followRun(ctx context.Context, view api.RunView) error {
	ctx, cancel := context.WithCancel(ctx)
	reader := &logReader{client: s.client, project: s.project, retryDelay: reconnectDelay,
		request: api.FollowLogs{RunName: view.Name, Follow: true, Present: true},
		notify:  func(text string) { s.printInfo(" %s", cleanLine(text)) }}
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
	updates, stop := watchViews(ctx, s.client, s.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID), After: view.Version})
	defer stop()
	return s.printUntilEnd(ctx, view, lines, updates)
}

// printUntilEnd prints lines of output and, between them, changes of the status.
func (s *runWatcher) printUntilEnd(ctx context.Context, view api.RunView, lines <-chan logEvent, updates <-chan viewUpdate) error {
	print := newLogPrinter(s.screen, logStyle{showReplica: view.DesiredReplicas > 1})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case line, open := <-lines:
			if !open {
				return s.printOutcome(ctx, view)
			}
			if line.err != nil {
				return line.err
			}
			if err := print.printEntry(line.entry); err != nil {
				return err
			}
		case l := <-updates:
			if l.err != nil {
				continue // the reader of the output reports it
			}
			if l.view.Revision > view.Revision {
				return &dstack.Error{Kind: dstack.Conflict, Hint: "follow it: dstack logs " + view.Name + " -f",
					Message: fmt.Sprintf("revision %d of %s was replaced by revision %d", view.Revision, view.Name, l.view.Revision)}
			}
			if l.view.Status != view.Status {
				s.printInfo(" %s", s.err.paint(yellow, describeRun(l.view)))
			}
			view = l.view
		}
	}
}

// printOutcome prints how the run ended.
func (s *runWatcher) printOutcome(ctx context.Context, view api.RunView) error {
	last, err := s.client.View(ctx, s.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID)})
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
		s.printInfo(" %s", describeRun(last)) // otherwise it was printed already
	}
	return nil
}
