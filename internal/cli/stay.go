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

// afterFlags say what comes after a submission.
type afterFlags struct {
	detach  bool
	wait    string
	timeout time.Duration
	json    bool
}

// add adds the flags; byDefault says how long is waited without --timeout.
func (f *afterFlags) add(c *cobra.Command, byDefault string) {
	flags := c.Flags()
	flags.BoolVarP(&f.detach, "detach", "d", false, "return once it is submitted")
	flags.StringVar(&f.wait, "wait", "", "`ready`: return once it is ready")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for it to be ready ("+byDefault+")")
	outputFlag(c, &f.json)
}

// check refuses what does not go together, and sets how long is waited.
func (f *afterFlags) check() error {
	err := together(
		[]choice{{"--detach", f.detach}, {"--wait", f.wait != ""}},
		[]choice{{"--detach", f.detach}, {"--timeout", f.timeout != 0}},
	)
	switch {
	case err != nil:
		return err
	case f.wait != "" && f.wait != "ready":
		return invalid("write: --wait ready", "--wait: %q is nothing to wait for", f.wait)
	case f.timeout < 0:
		return invalid("write a time such as 10m", "--timeout: a time cannot be negative")
	case f.wait == "ready" && f.timeout == 0:
		f.timeout = usualWait
	}
	return nil
}

// usualWait is how long --wait waits.
const usualWait = 10 * time.Minute

// staying is what comes after a submission.
type staying struct {
	*app
	client  *api.Client
	project string
	after   afterFlags
	brief   bool // return once it is ready: nobody asked for its logs
}

// stay is what comes after the submission: nothing, waiting, or waiting and
// then the logs.
func (s *staying) stay(ctx context.Context, view api.RunView) error {
	if s.after.detach {
		if s.after.json {
			return s.showJSON(view)
		}
		s.say(" %s is submitted", view.Name)
		s.sayHowToReturn(view.Name)
		return nil
	}
	began, waited := time.Now(), time.Duration(0)
	settled, err := s.waitReady(ctx, view)
	if view.ReadyAt == nil || view.Status != api.StatusReady {
		waited = time.Since(began)
	}
	if s.after.json && settled.Name != "" {
		err = errors.Join(s.showJSON(settled), err)
	}
	if err != nil && ctx.Err() != nil {
		return s.leave(view.Name)
	}
	if err != nil || s.after.json {
		return err
	}
	s.settle(settled, waited)
	if s.brief || s.after.wait != "" || settled.Status == api.StatusSleeping {
		return nil
	}
	s.say(" Following its logs; Ctrl-C detaches, the service keeps running.")
	s.say("")
	if err := s.followRun(ctx, settled); err != nil {
		if ctx.Err() != nil {
			return s.leave(view.Name)
		}
		return err
	}
	return nil
}

// leave ends the watching, not the run. Who waited for it to be ready does
// not know that it is.
func (s *staying) leave(name string) error {
	s.say("detached; %s keeps running", name)
	s.sayHowToReturn(name)
	if s.after.wait != "" || s.after.json {
		return &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before " + name + " was ready"}
	}
	return nil
}

func (a *app) sayHowToReturn(name string) {
	a.say("  %s  dstack logs %s -f", a.err.paint(bold, "back"), name)
	a.say("  %s  dstack stop %s", a.err.paint(bold, "stop"), name)
}

// waitReady waits until this revision has been ready once.
func (s *staying) waitReady(ctx context.Context, view api.RunView) (api.RunView, error) {
	revision := view.Revision
	w := &waiting{app: s.app, client: s.client, project: s.project, limit: s.after.timeout}
	w.done = func(v api.RunView) (bool, error) { return settledAt(v, revision) }
	w.late = func(v api.RunView) error {
		late := &verdict{now: headline(v), err: &dstack.Error{Kind: dstack.Timeout,
			Message: fmt.Sprintf("%s was not ready within %s", v.Name, s.after.timeout),
			Hint:    fmt.Sprintf("it goes on: dstack logs %s -f\nor end it: dstack stop %s", v.Name, v.Name)}}
		late.take(v)
		return late
	}
	return w.until(ctx, view)
}

// settledAt says whether the wait for a revision of a run is over, and how.
func settledAt(v api.RunView, revision int) (bool, error) {
	switch {
	case v.RolledBack != nil && v.RolledBack.From == revision:
		return true, rolledBack(v)
	case v.Revision != revision: // a smaller one, too: ours and a later one were rolled back meanwhile
		return true, &dstack.Error{Kind: dstack.Conflict,
			Message: fmt.Sprintf("revision %d of %s was replaced by revision %d before it was ready", revision, v.Name, v.Revision),
			Hint:    "see: dstack history " + v.Name}
	case v.Status.IsFinished():
		return true, ended(v)
	case v.Status == api.StatusStopping && v.Ending != dstack.EndFailed && v.Ending != dstack.EndNoCapacity:
		return true, ended(v)
	}
	return arrived(v), nil
}

// arrived says that the present revision has served as wanted, or need not
// before a request comes. Once it has, fewer replicas than wanted are a matter
// of load, unless all that served have crashed.
func arrived(v api.RunView) bool {
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

// rolledBack is the story of a revision that did not become ready.
func rolledBack(v api.RunView) error {
	b := v.RolledBack
	story := &verdict{output: b.LastOutput, err: &dstack.Error{Kind: dstack.RolledBack,
		Message: fmt.Sprintf("revision %d of %s did not become ready, rolled back to %d", b.From, v.Name, b.To),
		Hint:    fmt.Sprintf("dstack events %s\ndstack logs %s", v.Name, v.Name)}}
	if why := cleanLine(b.Reason); why != "" && len(b.LastOutput) > 0 {
		story.why = []string{why + ":"}
	} else if why != "" {
		story.why = []string{why}
	}
	serving := max(v.Ready, v.Serving)
	switch {
	case v.Revision == b.To && serving > 0:
		story.now = fmt.Sprintf("revision %d serves, %d of %s", b.To, serving, human.Count(v.DesiredReplicas, "replica"))
	case v.Revision == b.To && v.Status == api.StatusSleeping:
		story.now = fmt.Sprintf("revision %d sleeps until a request comes", b.To)
	default:
		story.now = headline(v)
	}
	return story
}
