package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// waitFlags are the flags that say what a command does after it has submitted a
// run.
type waitFlags struct {
	detach  bool
	wait    string
	timeout time.Duration
	json    bool
}

// addTo adds the flags to a command. byDefault describes the default of --timeout.
func (f *waitFlags) addTo(c *cobra.Command, byDefault string) {
	flags := c.Flags()
	flags.BoolVarP(&f.detach, "detach", "d", false, "return when the run is submitted")
	flags.StringVar(&f.wait, "wait", "", "`ready`: return when the run is ready")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for readiness ("+byDefault+")")
	addOutputFlag(c, &f.json)
}

// validate returns an error for flags that exclude each other, and sets the
// default of --timeout.
func (f *waitFlags) validate() error {
	err := checkExclusive(
		[]exclusiveFlag{{"--detach", f.detach}, {"--wait", f.wait != ""}},
		[]exclusiveFlag{{"--detach", f.detach}, {"--timeout", f.timeout != 0}},
	)
	switch {
	case err != nil:
		return err
	case f.wait != "" && f.wait != "ready":
		return invalidInput("write: --wait ready", "--wait: %q is not a status to wait for", f.wait)
	case f.timeout < 0:
		return invalidInput("write a duration such as 10m", "--timeout: a duration cannot be negative")
	case f.wait == "ready" && f.timeout == 0:
		f.timeout = defaultWaitTimeout
	}
	return nil
}

// defaultWaitTimeout is the default of --timeout with --wait.
const defaultWaitTimeout = 10 * time.Minute

// runWatcher waits for a submitted run and follows its output.
type runWatcher struct {
	*app
	client    *api.Client
	project   string
	waitFlags waitFlags
	skipLogs  bool // end when the run is ready
}

// watchRun waits for a run to become ready and then follows its output, as far as
// the flags ask for it.
func (s *runWatcher) watchRun(ctx context.Context, view api.RunView) error {
	if s.waitFlags.detach {
		if s.waitFlags.json {
			return s.printJSON(view)
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
		err = errors.Join(s.printJSON(last), err)
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
	revision := view.Revision
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

// waitOutcome reports whether the wait for a revision is over, with an error if
// the revision will not become ready.
func waitOutcome(v api.RunView, revision int) (bool, error) {
	switch {
	case v.RolledBack != nil && v.RolledBack.From == revision:
		return true, rollbackError(v)
	case v.Revision != revision: // also a lower one: this revision and a later one were rolled back
		return true, &dstack.Error{Kind: dstack.Conflict,
			Message: fmt.Sprintf("revision %d of %s was replaced by revision %d before it was ready", revision, v.Name, v.Revision),
			Hint:    "see: dstack history " + v.Name}
	case v.Status.IsFinished():
		return true, endError(v)
	case v.Status == api.StatusStopping && v.Ending != dstack.EndFailed && v.Ending != dstack.EndNoCapacity:
		return true, endError(v)
	}
	return hasBecomeReady(v), nil
}

// hasBecomeReady reports whether the present revision has become ready or sleeps.
// A revision that was ready once may be degraded: it needs the minimum of its
// replicas.
func hasBecomeReady(v api.RunView) bool {
	switch v.Status {
	case api.StatusSleeping:
		return true
	case api.StatusReady, api.StatusDegraded, api.StatusStarting, api.StatusWaiting:
		return v.ReadyAt != nil && v.Ready >= max(v.Min, 1)
	case api.StatusUpdating, api.StatusFailing, api.StatusStopping, api.StatusStopped, api.StatusFailed:
		return false
	}
	return false
}

// rollbackError returns the error of a revision that was rolled back.
func rollbackError(v api.RunView) error {
	rollback := v.RolledBack
	report := &failureReport{output: rollback.LastOutput, err: &dstack.Error{Kind: dstack.RolledBack,
		Message: fmt.Sprintf("revision %d of %s did not become ready, rolled back to %d", rollback.From, v.Name, rollback.To),
		Hint:    fmt.Sprintf("dstack events %s\ndstack logs %s", v.Name, v.Name)}}
	if why := cleanLine(rollback.Reason); why != "" && len(rollback.LastOutput) > 0 {
		report.reasons = []string{why + ":"}
	} else if why != "" {
		report.reasons = []string{why}
	}
	serving := max(v.Ready, v.Serving)
	switch {
	case v.Revision == rollback.To && serving > 0:
		report.state = fmt.Sprintf("revision %d serves, %d of %s", rollback.To, serving, human.Count(v.DesiredReplicas, "replica"))
	case v.Revision == rollback.To && v.Status == api.StatusSleeping:
		report.state = fmt.Sprintf("revision %d sleeps until a request comes", rollback.To)
	default:
		report.state = describeRun(v)
	}
	return report
}
