package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func historyCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "history RUN",
		Short: "List a run's revisions, and what became of them.",
		Example: "dstack history llama31\n" +
			"dstack history llama31 -v     # each change, from what to what",
		Args: wants(1, 1, "the name of a run"),
		RunE: func(c *cobra.Command, args []string) error {
			client, project, err := a.remote(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			revisions, err := client.History(c.Context(), project, args[0])
			if err != nil {
				return a.orMeant(c.Context(), client, project, args[0], err)
			}
			if asJSON {
				return a.showJSON(revisions)
			}
			historyTable(revisions, a.verbose, time.Now()).write(a.out)
			return nil
		},
		ValidArgsFunction: a.completeRuns,
	}
	outputFlag(c, &asJSON)
	a.projectFlags(c)
	return c
}

func historyTable(revisions []api.RevisionView, verbose bool, now time.Time) *table {
	t := &table{head: []string{"REVISION", "STATUS", "AGE", "BY", "CHANGES"}, loose: []int{4, 3}}
	for _, r := range revisions {
		num := fmt.Sprint(r.Num)
		if r.Present {
			num += " *"
		}
		t.rows = append(t.rows, []string{num, revisionStatus(r), age(now.Sub(r.At)), orDash(r.User), revisionChanges(r)})
		if r.Reason != "" {
			t.rows = append(t.rows, []string{cleanLine(r.Reason)})
		}
		if verbose {
			for _, c := range r.Changes {
				t.rows = append(t.rows, []string{fmt.Sprintf("%s   %s  →  %s", cleanLine(c.Path), orNone(c.From), orNone(c.To))})
			}
		}
	}
	return t
}

// revisionStatus is what became of a revision, in one word.
func revisionStatus(r api.RevisionView) string {
	switch {
	case r.Present && r.Status == dstack.RevisionReady:
		return "serves"
	case r.Status == dstack.RevisionReady:
		return "served"
	case r.Status == dstack.RevisionPending && !r.Present:
		return "replaced" // before it was ready
	}
	return string(r.Status)
}

func revisionChanges(r api.RevisionView) string {
	var paths []string
	if r.Of > 0 {
		paths = append(paths, fmt.Sprintf("brings back %d", r.Of))
	}
	for _, c := range r.Changes {
		paths = append(paths, cleanLine(c.Path))
	}
	return orDash(strings.Join(paths, ", "))
}

// goingBack is one `dstack rollback`.
type goingBack struct {
	*app
	to      int
	yes     bool
	detach  bool
	timeout time.Duration
	json    bool
}

func rollbackCommand(a *app) *cobra.Command {
	g := &goingBack{app: a}
	c := &cobra.Command{
		Use:   "rollback RUN",
		Short: "Bring an earlier revision of a run back, as its next one.",
		Example: "dstack rollback llama31               # to the last that served before the present one\n" +
			"dstack rollback llama31 --to 3 -y",
		Args:              wants(1, 1, "the name of a run"),
		RunE:              func(c *cobra.Command, args []string) error { return g.run(c.Context(), args[0]) },
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().IntVar(&g.to, "to", 0, "the revision's `NUMBER`; see dstack history (the last that served)")
	c.Flags().BoolVarP(&g.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&g.detach, "detach", "d", false, "do not wait until it is ready")
	c.Flags().DurationVar(&g.timeout, "timeout", 10*time.Minute, "how long to wait for it to be ready")
	outputFlag(c, &g.json)
	a.projectFlags(c)
	return c
}

func (g *goingBack) run(ctx context.Context, name string) error {
	if g.to < 0 {
		return invalid("see: dstack history "+name, "--to: revisions begin with 1")
	}
	client, project, err := g.remote(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	revisions, err := client.History(ctx, project, name)
	if err != nil {
		return g.orMeant(ctx, client, project, name, err)
	}
	present, target := g.meant(revisions)
	if target > 0 && !g.yes {
		yes, err := g.confirm(ctx, fmt.Sprintf("Change %s from revision %d to what revision %d was?", name, present, target))
		if err != nil || !yes {
			return err
		}
	}
	began := time.Now()
	view, err := client.Rollback(ctx, project, api.RollbackRequest{RunName: name, To: g.to, Revision: present})
	if err != nil {
		return err
	}
	g.say(" %s goes back: revision %d is what %d was", cleanLine(name), view.Revision, target)
	if !g.detach {
		if view, err = g.waitReady(ctx, client, project, view, g.timeout); err != nil {
			return err
		}
	}
	switch {
	case g.json:
		return g.showJSON(view)
	case !g.detach:
		g.settle(view, time.Since(began))
	}
	return nil
}

// meant finds the present revision and the one to go back to; 0 where the
// server will say that there is none.
func (g *goingBack) meant(revisions []api.RevisionView) (present, target int) {
	for _, r := range revisions {
		if r.Present {
			present = r.Num
		}
	}
	for _, r := range revisions {
		if g.to > 0 && r.Num == g.to || g.to == 0 && r.Num < present && r.Status == dstack.RevisionReady {
			return present, r.Num
		}
	}
	return present, 0
}
