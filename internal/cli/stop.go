package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// stopCommand is one `dstack stop`.
type stopCommand struct {
	*app
	abort  bool
	yes    bool
	detach bool
}

func newStopCommand(a *app) *cobra.Command {
	s := &stopCommand{app: a}
	c := &cobra.Command{
		Use:   "stop RUN...",
		Short: "Stop runs and wait until they have stopped.",
		Example: "dstack stop llama31\n" +
			"dstack stop llama31 whisper -y --abort     # at once, without finishing requests",
		Args:              expectArgs(1, -1, "the name of a run"),
		RunE:              func(c *cobra.Command, args []string) error { return s.run(c.Context(), args) },
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&s.abort, "abort", "x", false, "stop at once, without finishing requests")
	c.Flags().BoolVarP(&s.yes, "yes", "y", false, "do not ask for confirmation")
	c.Flags().BoolVarP(&s.detach, "detach", "d", false, "do not wait")
	a.addProjectFlags(c)
	return c
}

func (s *stopCommand) run(ctx context.Context, names []string) error {
	client, project, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	unfinished, err := s.findUnfinished(ctx, client, project, names)
	if err != nil || len(unfinished) == 0 {
		return err
	}
	names = names[:0:0]
	for _, v := range unfinished {
		names = append(names, v.Name)
	}
	if !s.yes {
		yes, err := s.confirm(ctx, "Stop "+strings.Join(names, ", ")+"?")
		if err != nil || !yes {
			return err
		}
	}
	if err := client.Stop(ctx, project, names, s.abort); err != nil {
		return err
	}
	for _, view := range unfinished {
		if s.detach {
			s.printInfo(" %s is stopping", view.Name)
			continue
		}
		if err := s.waitUntilStopped(ctx, client, project, view); err != nil {
			return err
		}
	}
	return nil
}

// findUnfinished looks up all named runs before the first one is stopped.
func (s *stopCommand) findUnfinished(
	ctx context.Context, client *api.Client, project string, names []string,
) ([]api.RunView, error) {
	var unfinished []api.RunView
	for _, name := range names {
		view, err := client.GetRunView(ctx, project, api.RunViewRequest{RunName: name})
		if err != nil {
			return nil, s.suggestRun(ctx, client, project, name, err)
		}
		if view.Status.IsFinished() {
			s.printInfo(" %s", describeRun(view))
			continue
		}
		unfinished = append(unfinished, view)
	}
	return unfinished, nil
}

// waitUntilStopped waits until a run has stopped. An interrupt ends the wait only.
func (s *stopCommand) waitUntilStopped(
	ctx context.Context, client *api.Client, project string, view api.RunView,
) error {
	// The view is older than the request to stop.
	view.Status, view.Reason = api.StatusStopping, ""
	w := &runWaiter{app: s.app, client: client, project: project,
		isDone: func(v api.RunView) (bool, error) { return v.Status.IsFinished(), nil }}
	last, err := w.waitUntilDone(ctx, view)
	switch {
	case ctx.Err() != nil:
		s.printInfo("detached; %s continues to stop", view.Name)
		s.printInfo("  %s  dstack ps %s", s.err.paint(bold, "look"), view.Name)
		return nil
	case dstack.KindOf(err) == dstack.NotFound && err != nil:
		return nil // stopped and deleted in the meantime
	case err != nil:
		return err
	}
	s.printInfo(" %s", fmt.Sprintf("%s is %s", s.err.paint(bold, view.Name), last.Status))
	return nil
}
