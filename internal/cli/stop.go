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
	all    bool
	abort  bool
	yes    bool
	detach bool
	json   bool
}

// runResult is an element of the JSON of `dstack stop` and `dstack delete`.
type runResult struct {
	Run    string `json:"run"`
	Status string `json:"status"` // an api.RunStatus, or statusDeleted
}

// statusDeleted is the status of a run that does not exist any more.
const statusDeleted = "deleted"

func newStopCommand(a *app) *cobra.Command {
	s := &stopCommand{app: a}
	c := &cobra.Command{
		Use:   "stop RUN... | --all",
		Short: "Stop runs and wait until they have stopped.",
		Example: "dstack stop llama31\n" +
			"dstack stop llama31 whisper -y --abort     # at once, without finishing requests",
		Args: func(c *cobra.Command, args []string) error {
			if s.all && len(args) > 0 {
				return invalidInput("leave out one of them", "--all stops every run of the project, and `%s` is one", args[0])
			}
			return expectArgs(map[bool]int{false: 1}[s.all], -1, "the name of a run, or --all")(c, args)
		},
		RunE:              func(c *cobra.Command, args []string) error { return s.run(c.Context(), args) },
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&s.all, "all", "a", false, "stop all runs of the project")
	c.Flags().BoolVarP(&s.abort, "abort", "x", false, "stop at once, without finishing requests")
	c.Flags().BoolVarP(&s.yes, "yes", "y", false, "do not ask for confirmation")
	c.Flags().BoolVarP(&s.detach, "detach", "d", false, "do not wait")
	addOutputFlag(c, &s.json)
	a.addProjectFlags(c)
	return c
}

func (s *stopCommand) run(ctx context.Context, names []string) error {
	client, project, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if s.all {
		if names, err = s.listActiveRuns(ctx, client, project); err != nil {
			return err
		}
	}
	views, unfinished, err := s.findRuns(ctx, client, project, names)
	if err != nil {
		return err
	}
	if len(unfinished) > 0 && !s.yes {
		yes, err := s.confirm(ctx, "Stop "+strings.Join(unfinished, ", ")+"?")
		if err != nil || !yes {
			return err
		}
	}
	if len(unfinished) > 0 {
		if err := client.Stop(ctx, project, unfinished, s.abort); err != nil {
			return err
		}
	}
	results := make([]runResult, 0, len(views))
	for _, view := range views {
		status := string(view.Status)
		if !view.Status.IsFinished() {
			if status, err = s.waitUntilStopped(ctx, client, project, view); err != nil {
				return err
			}
		}
		results = append(results, runResult{view.Name, status})
	}
	if s.json {
		return s.printJSON(results)
	}
	return nil
}

// listActiveRuns returns the names of the project's unfinished runs.
func (s *stopCommand) listActiveRuns(ctx context.Context, client *api.Client, project string) ([]string, error) {
	views, err := client.ListActiveRunViews(ctx, project)
	if err != nil {
		return nil, err
	}
	if len(views) == 0 {
		if _, err := client.Project(ctx, project); err != nil {
			return nil, err // there is no such project
		}
		s.printInfo(" no run of project %s is active", cleanLine(project))
	}
	names := make([]string, 0, len(views))
	for _, v := range views {
		names = append(names, v.Name)
	}
	return names, nil
}

// findRuns looks up all named runs before the first one is stopped. It returns
// their views, and the names of the unfinished ones.
func (s *stopCommand) findRuns(
	ctx context.Context, client *api.Client, project string, names []string,
) (views []api.RunView, unfinished []string, err error) {
	for _, name := range names {
		view, err := client.GetRunView(ctx, project, api.RunViewRequest{RunName: name})
		if err != nil {
			return nil, nil, s.suggestRun(ctx, client, project, name, err)
		}
		views = append(views, view)
		if view.Status.IsFinished() {
			s.printInfo(" %s", describeRun(view))
			continue
		}
		unfinished = append(unfinished, view.Name)
	}
	return views, unfinished, nil
}

// waitUntilStopped waits until a run has stopped, unless --detach is set, and
// returns its status. An interrupt ends the wait only.
func (s *stopCommand) waitUntilStopped(
	ctx context.Context, client *api.Client, project string, view api.RunView,
) (status string, err error) {
	if s.detach {
		s.printInfo(" %s is stopping", view.Name)
		return string(api.StatusStopping), nil
	}
	// The view is older than the request to stop.
	view.Status, view.Reason = api.StatusStopping, ""
	w := &runWaiter{app: s.app, client: client, project: project,
		isDone: func(v api.RunView) (bool, error) { return v.Status.IsFinished(), nil }}
	last, err := w.waitUntilDone(ctx, view)
	switch {
	case ctx.Err() != nil:
		s.printInfo("detached; %s continues to stop", view.Name)
		s.printInfo("  %s  dstack ps %s", s.err.paint(bold, "look"), view.Name)
		return string(api.StatusStopping), nil
	case dstack.KindOf(err) == dstack.NotFound && err != nil:
		return statusDeleted, nil // in the meantime
	case err != nil:
		return "", err
	}
	s.printInfo(" %s", fmt.Sprintf("%s is %s", s.err.paint(bold, view.Name), last.Status))
	return string(last.Status), nil
}
