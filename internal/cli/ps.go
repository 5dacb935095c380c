package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// watchInterval is the time between two requests for the watched list.
const watchInterval = 2 * time.Second

// psCommand is one `dstack ps`.
type psCommand struct {
	*app
	client  *api.Client
	project string
	names   []string
	all     bool
	watch   bool
	json    bool
}

func newPSCommand(a *app) *cobra.Command {
	l := &psCommand{app: a}
	c := &cobra.Command{
		Use:   "ps [RUN...]",
		Short: "List the active runs, or else the latest run.",
		Example: "dstack ps\n" +
			"dstack ps -a -o json     # finished runs too, for programs",
		RunE: func(c *cobra.Command, args []string) (err error) {
			l.names = args
			if l.client, l.project, err = a.connect(c.Context()); err != nil {
				return err
			}
			defer l.client.Close()
			if l.watch {
				return l.watchRuns(c.Context())
			}
			views, err := l.listRuns(c.Context())
			if err != nil {
				return err
			}
			return l.printRuns(c.Context(), views)
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&l.all, "all", "a", false, "include finished runs, at most 100")
	c.Flags().BoolVarP(&l.watch, "watch", "w", false, "update the list until Ctrl-C")
	addOutputFlag(c, &l.json)
	a.addProjectFlags(c)
	return c
}

// listRuns returns the named runs or, without names, the active runs. Without an
// active run it returns the latest one.
func (l *psCommand) listRuns(ctx context.Context) ([]api.RunView, error) {
	if len(l.names) > 0 {
		return l.findRuns(ctx)
	}
	if l.all {
		views, err := l.client.ListRunViews(ctx, api.ListRuns{ProjectName: &l.project})
		if err != nil || len(views) > 0 {
			return views, err
		}
	} else if views, err := l.client.ListActiveRunViews(ctx, l.project); err != nil || len(views) > 0 {
		return views, err
	}
	limit := 1
	views, err := l.client.ListRunViews(ctx, api.ListRuns{ProjectName: &l.project, Limit: &limit})
	if err == nil && len(views) == 0 {
		_, err = l.client.Project(ctx, l.project) // an error if there is no such project
	}
	return views[:min(1, len(views))], err
}

// explainScaling returns, with --verbose, why each run that scales has its number
// of replicas. Runs whose explanation cannot be had are left out.
func (l *psCommand) explainScaling(ctx context.Context, views []api.RunView) map[dstack.RunID][]string {
	if !l.verbose {
		return nil
	}
	all := map[dstack.RunID][]string{}
	for _, v := range views {
		if v.Min == v.Max || v.Status.IsFinished() {
			continue
		}
		if x, err := l.client.Explain(ctx, v.Project, v.Name); err == nil {
			all[v.ID] = numberReasons(v, x)
		}
	}
	l.addCosts(ctx, views, all)
	return all
}

// addCosts adds what the rented machines of runs have cost so far. It adds nothing if that cannot be had.
func (l *psCommand) addCosts(ctx context.Context, views []api.RunView, lines map[dstack.RunID][]string) {
	if len(views) == 0 {
		return
	}
	since := views[0].SubmittedAt
	for _, v := range views {
		if v.SubmittedAt.Before(since) {
			since = v.SubmittedAt
		}
	}
	costs, err := l.client.Costs(ctx, l.project, api.GetCosts{Since: &since})
	if err != nil {
		return
	}
	for _, line := range costs.Lines {
		if id := dstack.RunID(line.Run); id != "" {
			text := fmt.Sprintf("its rented machines cost %s so far", formatCost(line.Cost))
			if line.Machines > 0 {
				text += fmt.Sprintf(", and %s an hour now", formatPrice(line.PerHour))
			}
			lines[id] = append(lines[id], text)
		}
	}
}

// numberReasons returns why a run has its number of replicas; with groups, one line for each.
func numberReasons(v api.RunView, x api.Explanation) []string {
	if len(x.Groups) == 0 {
		return []string{fmt.Sprintf("%d desired: %s", v.DesiredReplicas, cleanLine(x.Decision.Reason))}
	}
	var lines []string
	for _, g := range x.Groups {
		lines = append(lines, fmt.Sprintf("group %s, %d desired: %s", cleanLine(g.Name), g.DesiredReplicas, cleanLine(g.Decision.Reason)))
	}
	return lines
}

// findRuns returns the named runs.
func (l *psCommand) findRuns(ctx context.Context) ([]api.RunView, error) {
	views := make([]api.RunView, 0, len(l.names))
	for _, name := range l.names {
		view, err := l.client.GetRunView(ctx, l.project, api.RunViewRequest{RunName: name})
		if err != nil {
			return nil, l.suggestRun(ctx, l.client, l.project, name, err)
		}
		views = append(views, view)
	}
	return views, nil
}

// suggestRun turns the error of an unknown run into one that suggests a name.
// Other errors pass unchanged.
func (a *app) suggestRun(ctx context.Context, client *api.Client, project, name string, err error) error {
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	if _, projectErr := client.Project(ctx, project); projectErr != nil {
		return projectErr // not the run but the project is unknown
	}
	known, listErr := client.ListRunViews(ctx, api.ListRuns{ProjectName: &project})
	if listErr != nil {
		return err
	}
	names := make([]string, 0, len(known))
	for _, v := range known {
		names = append(names, v.Name)
	}
	return &dstack.Error{Kind: dstack.NotFound, Cause: err,
		Message: fmt.Sprintf("there is no run `%s` in project %s", name, project),
		Hint:    didYouMean(name, names, "see: dstack ps -a")}
}

// printRuns prints the list once.
func (l *psCommand) printRuns(ctx context.Context, views []api.RunView) error {
	if l.json {
		if views == nil {
			views = []api.RunView{}
		}
		return l.printJSON(views)
	}
	if len(views) == 0 {
		l.printInfo("no runs in project %s; submit one: dstack apply -f service.dstack.yml", cleanLine(l.project))
		return nil
	}
	runsTable(views, l.explainScaling(ctx, views), l.verbose, time.Now()).writeTo(l.out)
	return nil
}

// watchRuns prints the list again whenever it changes, until Ctrl-C.
func (l *psCommand) watchRuns(ctx context.Context) error {
	region := liveRegion{to: l.out}
	var previous []byte
	silentSince := time.Time{}
	for {
		views, err := l.listRuns(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			silentSince = time.Time{}
			if err := l.redrawRuns(ctx, &region, &previous, views); err != nil {
				return err
			}
		case dstack.KindOf(err) != dstack.Unavailable:
			return err
		case silentSince.IsZero():
			silentSince = time.Now()
			region.clear()
			l.printInfo("%s; trying again", cleanLine(err.Error()))
		case time.Since(silentSince) > maxServerSilence:
			return err
		}
		if loop.Sleep(ctx, watchInterval) != nil {
			return nil
		}
	}
}

// redrawRuns redraws the list on a terminal. Elsewhere it prints the list if it
// has changed, as a table or as one JSON document per line.
func (l *psCommand) redrawRuns(ctx context.Context, region *liveRegion, previous *[]byte, views []api.RunView) error {
	if l.out.terminal && !l.json {
		lines := runsTable(views, l.explainScaling(ctx, views), l.verbose, time.Now()).lines(l.out)
		region.draw(append(lines, l.out.paint(dim, " Ctrl-C to quit")))
		return nil
	}
	now, err := json.Marshal(views)
	if err != nil {
		return fmt.Errorf("compare the list: %w", err)
	}
	if bytes.Equal(now, *previous) {
		return nil
	}
	*previous = now
	if l.json {
		_, err = l.out.Write(append(now, '\n'))
		return err
	}
	return l.printRuns(ctx, views)
}

// completeRuns completes the names of runs in a shell. It completes nothing if
// the server does not answer in time.
func (a *app) completeRuns(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeoutCause(c.Context(), 2*time.Second, errors.New("the shell waits"))
	defer cancel()
	client, project, err := a.newClient()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	views, err := client.ListRunViews(ctx, api.ListRuns{ProjectName: &project})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, v := range views {
		if !slices.Contains(args, v.Name) && !slices.Contains(names, v.Name) {
			names = append(names, v.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
