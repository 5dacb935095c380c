package cli

import (
	"context"
	"fmt"
	"iter"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

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
		seen := map[dstack.AttemptID]time.Time{}
		var silentSince time.Time
		for {
			var fault error
			cut := false
			for entry, err := range l.client.Follow(ctx, l.project, l.ask) {
				if err != nil {
					fault = err
					break
				}
				if cut = entry.Error != ""; !cut {
					silentSince = time.Time{}
					if !entry.Timestamp.After(seen[entry.Attempt]) {
						continue
					}
					seen[entry.Attempt] = entry.Timestamp
				}
				if !yield(entry, nil) {
					return
				}
			}
			if ctx.Err() != nil {
				yield(api.LogEntry{}, context.Cause(ctx))
				return
			}
			if fault == nil {
				if over, err := l.over(ctx); over && !cut {
					return
				} else if fault = err; fault == nil && !cut {
					silentSince = time.Time{}
				}
			}
			if silentSince.IsZero() {
				silentSince = time.Now()
				if fault != nil && l.ask.Follow && dstack.KindOf(fault) == dstack.Unavailable {
					l.notice(fault.Error() + "; trying again")
				}
			}
			if !l.again(fault, cut, silentSince) {
				if fault != nil {
					yield(api.LogEntry{}, fault)
				}
				return
			}
			l.ask.After = seen
			if !rest(ctx, l.pause) {
				yield(api.LogEntry{}, context.Cause(ctx))
				return
			}
		}
	}
}

// over says that there is no more output to come.
func (l *logReader) over(ctx context.Context) (bool, error) {
	if !l.ask.Follow {
		return true, nil
	}
	view, err := l.client.View(ctx, l.project, api.ViewRequest{RunName: l.ask.RunName})
	if dstack.KindOf(err) == dstack.NotFound {
		return true, nil // deleted meanwhile
	}
	return err == nil && view.Status.Finished(), err
}

// again says whether it is worth asking once more.
func (l *logReader) again(fault error, cut bool, silentSince time.Time) bool {
	limit := silenceLimit
	if !l.ask.Follow || (cut && fault == nil) {
		limit = 5 * time.Second
	}
	if fault != nil && dstack.KindOf(fault) != dstack.Unavailable {
		return false
	}
	return time.Since(silentSince) < limit
}

func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// heard is one line, or the error that ended them.
type heard struct {
	entry api.LogEntry
	err   error
}

// followRun shows a run's output and what becomes of it, until it is over.
func (a *applying) followRun(ctx context.Context, view api.View) error {
	ctx, cancel := context.WithCancel(ctx)
	reader := &logReader{client: a.client, project: a.project, pause: time.Second,
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
	looks, stop := watch(ctx, a.client, a.project, api.ViewRequest{RunName: view.Name, RunID: string(view.ID), After: view.Version})
	defer stop()
	return a.tell(ctx, view, lines, looks)
}

// tell prints lines as they come, and between them what happens to the run.
func (a *applying) tell(ctx context.Context, view api.View, lines <-chan heard, looks <-chan look) error {
	print := newLogPrinter(a.screen, logStyle{many: view.Wanted > 1})
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
func (a *applying) finale(ctx context.Context, view api.View) error {
	last, err := a.client.View(ctx, a.project, api.ViewRequest{RunName: view.Name, RunID: string(view.ID)})
	if dstack.KindOf(err) == dstack.NotFound {
		last, err = view, nil
	}
	if err != nil {
		return err
	}
	if last.Status == api.StatusFailed {
		return ended(last)
	}
	a.say(" %s", headline(last))
	return nil
}
