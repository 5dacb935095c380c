package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// stopping is one `dstack stop`.
type stopping struct {
	*app
	abort  bool
	yes    bool
	detach bool
}

func stopCommand(a *app) *cobra.Command {
	s := &stopping{app: a}
	c := &cobra.Command{
		Use:   "stop RUN...",
		Short: "Stop runs, and wait until nothing of them is left.",
		Example: "dstack stop llama31\n" +
			"dstack stop llama31 whisper -y --abort     # at once, without a chance to finish requests",
		Args:              wants(1, -1, "the name of a run"),
		RunE:              func(c *cobra.Command, args []string) error { return s.run(c.Context(), args) },
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&s.abort, "abort", "x", false, "at once: no time to finish")
	c.Flags().BoolVarP(&s.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&s.detach, "detach", "d", false, "do not wait")
	a.projectFlags(c)
	return c
}

func (s *stopping) run(ctx context.Context, names []string) error {
	client, project, err := s.remote(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	live, err := s.unfinished(ctx, client, project, names)
	if err != nil || len(live) == 0 {
		return err
	}
	names = names[:0:0]
	for _, v := range live {
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
	for _, view := range live {
		if s.detach {
			s.say(" %s is stopping", view.Name)
			continue
		}
		if err := s.await(ctx, client, project, view); err != nil {
			return err
		}
	}
	return nil
}

// unfinished looks all named runs up, before any is stopped.
func (s *stopping) unfinished(ctx context.Context, client *api.Client, project string, names []string) ([]api.RunView, error) {
	var live []api.RunView
	for _, name := range names {
		view, err := client.View(ctx, project, api.RunViewRequest{RunName: name})
		if err != nil {
			return nil, s.orMeant(ctx, client, project, name, err)
		}
		if view.Status.IsFinished() {
			s.say(" %s", headline(view))
			continue
		}
		live = append(live, view)
	}
	return live, nil
}

// await waits until a run has ended. An interrupt ends the waiting only.
func (s *stopping) await(ctx context.Context, client *api.Client, project string, view api.RunView) error {
	// It is told as it will be, not as it was before it was asked to stop.
	view.Status, view.Reason = api.StatusStopping, ""
	w := &waiting{app: s.app, client: client, project: project,
		done: func(v api.RunView) (bool, error) { return v.Status.IsFinished(), nil }}
	last, err := w.until(ctx, view)
	switch {
	case ctx.Err() != nil:
		s.say("detached; %s goes on stopping", view.Name)
		s.say("  %s  dstack ps %s", s.err.paint(bold, "look"), view.Name)
		return nil
	case dstack.KindOf(err) == dstack.NotFound && err != nil:
		return nil // stopped, and deleted meanwhile
	case err != nil:
		return err
	}
	s.say(" %s", fmt.Sprintf("%s is %s", s.err.paint(bold, view.Name), last.Status))
	return nil
}
