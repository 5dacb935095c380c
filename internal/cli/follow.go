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

// reconnectPause is between two tries to go on reading.
const reconnectPause = 300 * time.Millisecond

// shortSilence is how long the server may be away while we only read what
// there is.
const shortSilence = 2 * time.Second

// logReader reads a run's output and picks it up again where the server went
// away: nothing is lost, nothing comes twice.
type logReader struct {
	client  *api.Client
	project string
	ask     api.FollowLogs
	notice  func(string) // what a person should know meanwhile
	pause   time.Duration
}

// lines yields output. An error is the last it yields.
func (l *logReader) lines(ctx context.Context) iter.Seq2[api.LogEntry, error] {
	return func(yield func(api.LogEntry, error) bool) {
		l.ask.After = map[dstack.AttemptID]time.Time{}
		var silentSince time.Time
		for {
			heard, left, fault := l.stream(ctx, yield)
			switch {
			case left:
				return
			case ctx.Err() != nil:
				yield(api.LogEntry{}, context.Cause(ctx))
				return
			case fault == nil:
				over, err := l.over(ctx)
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
				if l.ask.Follow && dstack.KindOf(fault) == dstack.Unavailable {
					l.notice(fault.Error() + "; trying again")
				}
			}
			if !l.again(fault, silentSince) {
				yield(api.LogEntry{}, fault)
				return
			}
			_ = loop.Sleep(ctx, l.pause)
		}
	}
}

// stream yields what one opened stream brings, without what was seen before.
// left: whoever listens has gone.
func (l *logReader) stream(ctx context.Context, yield func(api.LogEntry, error) bool) (heard, left bool, fault error) {
	seen := l.ask.After
	for entry, err := range l.client.Follow(ctx, l.project, l.ask) {
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

// over says that there is no more output to come.
func (l *logReader) over(ctx context.Context) (bool, error) {
	if !l.ask.Follow {
		return true, nil
	}
	view, err := l.client.View(ctx, l.project, api.RunViewRequest{RunName: l.ask.RunName})
	if dstack.KindOf(err) == dstack.NotFound {
		return true, nil // deleted meanwhile
	}
	return err == nil && view.Status.IsFinished(), err
}

// again says whether it is worth asking once more.
func (l *logReader) again(fault error, silentSince time.Time) bool {
	switch {
	case fault == nil:
		return true // the server ended the stream, the run goes on
	case dstack.KindOf(fault) != dstack.Unavailable:
		return false
	case !l.ask.Follow:
		return time.Since(silentSince) < shortSilence
	}
	return time.Since(silentSince) < silenceLimit
}

// heard is one line, or the error that ended them.
type heard struct {
	entry api.LogEntry
	err   error
}

// followRun shows a run's output and what becomes of it, until it is over.
func (a *staying) followRun(ctx context.Context, view api.RunView) error {
	ctx, cancel := context.WithCancel(ctx)
	reader := &logReader{client: a.client, project: a.project, pause: reconnectPause,
		ask:    api.FollowLogs{RunName: view.Name, Follow: true, Present: true},
		notice: func(text string) { a.say(" %s", cleanLine(text)) }}
	lines := make(chan heard)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer close(lines)
		for entry, err := range reader.lines(ctx) {
			select {
			case lines <- heard{entry, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-stopped }()
	looks, stop := watch(ctx, a.client, a.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID), After: view.Version})
	defer stop()
	return a.tell(ctx, view, lines, looks)
}

// tell prints lines as they come, and between them what happens to the run.
func (a *staying) tell(ctx context.Context, view api.RunView, lines <-chan heard, looks <-chan look) error {
	print := newLogPrinter(a.screen, logStyle{many: view.DesiredReplicas > 1})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case line, open := <-lines:
			if !open {
				return a.finale(ctx, view)
			}
			if line.err != nil {
				return line.err
			}
			if err := print.entry(line.entry); err != nil {
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
				a.say(" %s", a.err.paint(yellow, headline(l.view)))
			}
			view = l.view
		}
	}
}

// finale says how a run ended whose output is over.
func (a *staying) finale(ctx context.Context, view api.RunView) error {
	last, err := a.client.View(ctx, a.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID)})
	if dstack.KindOf(err) == dstack.NotFound {
		last, err = view, nil
	}
	if err != nil {
		return err
	}
	if last.Status == api.StatusFailed {
		return ended(last)
	}
	if last.Status != view.Status {
		a.say(" %s", headline(last)) // else it was said already
	}
	return nil
}
