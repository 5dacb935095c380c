package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// runWatcher waits for a submitted run and follows its output.
type runWatcher struct {
	*app
	client    *api.Client
	project   string
	waitFlags waitFlags
	skipLogs  bool // end when the run is ready
	upload    *uploadView
}

// watchRun waits for a run to become ready and then follows its output, as far as
// the flags ask for it.
func (s *runWatcher) watchRun(ctx context.Context, view api.RunView) error {
	if s.waitFlags.detach {
		if s.waitFlags.json {
			return s.printRunJSON(view)
		}
		s.printInfo(" %s is submitted", view.Name)
		s.printFollowUps(view.Name)
		return nil
	}
	began, waited := time.Now(), time.Duration(0)
	last, err := s.waitUntilReady(ctx, view)
	if view.ReadyAt == nil || view.Status != api.StatusReady {
		waited = time.Since(began)
	}
	if s.waitFlags.json && last.Name != "" {
		err = errors.Join(s.printRunJSON(last), err)
	}
	if err != nil && ctx.Err() != nil {
		return s.detach(view.Name)
	}
	if err != nil || s.waitFlags.json {
		return err
	}
	s.printReady(last, waited)
	if s.skipLogs || s.waitFlags.wait != "" || last.Status == api.StatusSleeping {
		return nil
	}
	s.printInfo(" Following its logs; Ctrl-C detaches, the service keeps running.")
	s.printInfo("")
	if err := s.followRun(ctx, last); err != nil {
		if ctx.Err() != nil {
			return s.detach(view.Name)
		}
		return err
	}
	return nil
}

// appliedRun is the JSON form of a run after `dstack apply`: with what was uploaded.
type appliedRun struct {
	api.RunView
	Upload *uploadView `json:"upload,omitempty"`
}

// printRunJSON prints a run and, after `dstack apply`, what was uploaded.
func (s *runWatcher) printRunJSON(view api.RunView) error {
	return s.printJSON(appliedRun{view, s.upload})
}

// detach ends the command; the run continues. If the user asked for readiness it
// returns an error, because the run may not be ready.
func (s *runWatcher) detach(name string) error {
	s.printInfo("detached; %s keeps running", name)
	s.printFollowUps(name)
	if s.waitFlags.wait != "" || s.waitFlags.json {
		return &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before " + name + " was ready"}
	}
	return nil
}

// printFollowUps prints the commands to follow and to stop a run.
func (a *app) printFollowUps(name string) {
	a.printInfo("  %s  dstack logs %s -f", a.err.paint(bold, "back"), name)
	a.printInfo("  %s  dstack stop %s", a.err.paint(bold, "stop"), name)
}

// waitUntilReady waits until the revision has become ready once.
func (s *runWatcher) waitUntilReady(ctx context.Context, view api.RunView) (api.RunView, error) {
	return s.waitForRevision(ctx, view, view.Revision)
}

// waitForRevision is waitUntilReady for a revision that may not be the present one any more.
func (s *runWatcher) waitForRevision(ctx context.Context, view api.RunView, revision int) (api.RunView, error) {
	w := &runWaiter{app: s.app, client: s.client, project: s.project, timeout: s.waitFlags.timeout}
	w.isDone = func(v api.RunView) (bool, error) { return waitOutcome(v, revision) }
	w.timeoutError = func(v api.RunView) error {
		report := &failureReport{state: describeRun(v), err: &dstack.Error{Kind: dstack.Timeout,
			Message: fmt.Sprintf("%s was not ready within %s", v.Name, s.waitFlags.timeout),
			Hint:    fmt.Sprintf("it continues: dstack logs %s -f\nor stop it: dstack stop %s", v.Name, v.Name)}}
		report.addReplicas(v)
		return report
	}
	return w.waitUntilDone(ctx, view)
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
		request: api.FollowLogs{RunName: view.Name, Follow: true, CurrentOnly: true},
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
	updates, stop := watchViews(ctx, s.client, s.project,
		api.RunViewRequest{RunName: view.Name, RunID: string(view.ID), After: view.Version})
	defer stop()
	return s.printUntilEnd(ctx, view, lines, updates)
}

// printUntilEnd prints lines of output and, between them, changes of the status.
func (s *runWatcher) printUntilEnd(
	ctx context.Context, view api.RunView, lines <-chan logEvent, updates <-chan viewUpdate,
) error {
	printer := newLogPrinter(s.screen, logStyle{showReplica: hasSeveralReplicas(view, true)})
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
			if err := printer.printEntry(line.entry); err != nil {
				return err
			}
		case update := <-updates:
			if update.err != nil {
				continue // the reader of the output reports it
			}
			if update.view.Revision > view.Revision {
				return &dstack.Error{Kind: dstack.Conflict, Hint: "follow it: dstack logs " + view.Name + " -f",
					Message: fmt.Sprintf("revision %d of %s was replaced by revision %d",
						view.Revision, view.Name, update.view.Revision)}
			}
			if update.view.Status != view.Status {
				s.printInfo(" %s", s.err.paint(yellow, describeRun(update.view)))
			}
			view = update.view
		}
	}
}

// printOutcome prints how the run ended.
func (s *runWatcher) printOutcome(ctx context.Context, view api.RunView) error {
	last, err := s.client.GetRunView(ctx, s.project, api.RunViewRequest{RunName: view.Name, RunID: string(view.ID)})
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
