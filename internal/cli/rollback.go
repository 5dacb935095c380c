package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// rollbackCommand is one `dstack rollback`.
type rollbackCommand struct {
	runWatcher
	to  int
	yes bool
}

func newRollbackCommand(a *app) *cobra.Command {
	g := &rollbackCommand{runWatcher: runWatcher{app: a, skipLogs: true}}
	c := &cobra.Command{
		Use:   "rollback RUN",
		Short: "Roll a run back to an earlier revision.",
		Example: "dstack rollback llama31               # to the last revision that was ready\n" +
			"dstack rollback llama31 --to 3 -y",
		Args: expectArgs(1, 1, "the name of a run"),
		RunE: func(c *cobra.Command, args []string) error {
			if g.to < 0 || g.to == 0 && c.Flags().Changed("to") {
				return invalidInput("see: dstack history "+args[0], "--to: the first revision is 1")
			}
			if err := g.waitFlags.validate(); err != nil {
				return err
			}
			if g.waitFlags.timeout == 0 {
				g.waitFlags.timeout = defaultWaitTimeout
			}
			return g.run(c.Context(), args[0])
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().IntVar(&g.to, "to", 0, "the revision's `NUMBER`, see dstack history (the last that was ready)")
	c.Flags().BoolVarP(&g.yes, "yes", "y", false, "do not ask for confirmation")
	g.waitFlags.addTo(c, "10m")
	a.addProjectFlags(c)
	return c
}

func (g *rollbackCommand) run(ctx context.Context, name string) (err error) {
	if g.client, g.project, err = g.connect(ctx); err != nil {
		return err
	}
	defer g.client.Close()
	revisions, err := g.client.History(ctx, g.project, name)
	if err != nil {
		return g.suggestRun(ctx, g.client, g.project, name, err)
	}
	current, target := g.findTarget(revisions)
	if target > 0 {
		changes, secrets := splitSecrets(changesBetween(revisions, current, target))
		if len(changes)+len(secrets) == 0 {
			return g.endUnchanged(ctx, name, current, target)
		}
		if len(changes) > 0 {
			g.printRollback(name, revisions, current, target, changes)
		}
		if len(changes) > 0 && len(secrets) > 0 {
			g.printInfo(" %s a rollback keeps the present values of secrets: %s", g.err.paint(yellow, "note"), strings.Join(secrets, ", "))
		}
		if !g.yes && len(changes) > 0 { // the server refuses one that changes only secrets
			yes, err := g.confirm(ctx, fmt.Sprintf("Roll back to revision %d?", target))
			if err == nil && !yes {
				g.printInfo("nothing was changed")
			}
			if err != nil || !yes {
				return err
			}
		}
	}
	to := g.to
	if target > 0 {
		to = target // what was printed
	}
	view, err := g.client.Rollback(ctx, g.project, api.RollbackRequest{RunName: name, To: to, Revision: current})
	if err != nil {
		return err
	}
	if view.Revision == current {
		return g.endUnchanged(ctx, name, current, target)
	}
	g.printInfo(" %s rolls back: revision %d is a copy of revision %d", cleanLine(view.Name), view.Revision, target)
	return g.watchRun(ctx, view)
}

// findTarget returns the present revision and the one to roll back to. A target
// of 0 means that there is none; the server's error explains it.
func (g *rollbackCommand) findTarget(revisions []api.RevisionView) (current, target int) {
	for _, r := range revisions {
		if r.Current {
			current = r.Num
		}
	}
	for _, r := range revisions {
		switch {
		case g.to > 0 && r.Num == g.to && r.Num != current:
			return current, r.Num
		case g.to == 0 && r.Num < current && r.Status == dstack.RevisionReady:
			return current, r.Num
		}
	}
	return current, 0
}

// endUnchanged ends a rollback whose target equals the current revision. It waits
// for that revision if the flags ask for its readiness or its view.
func (g *rollbackCommand) endUnchanged(ctx context.Context, name string, current, target int) error {
	g.printInfo(" Nothing changes: revision %d of %s is the same as revision %d.", current, cleanLine(name), target)
	if g.waitFlags.wait == "" && !g.waitFlags.json {
		return nil
	}
	view, err := g.client.GetRunView(ctx, g.project, api.RunViewRequest{RunName: name})
	if err != nil {
		return err
	}
	return g.watchRun(ctx, view)
}

// printRollback prints what a rollback changes.
func (g *rollbackCommand) printRollback(
	name string, revisions []api.RevisionView, current, target int, changes []api.Change,
) {
	g.printInfo(" %s changes from revision %d back to revision %d", g.err.paint(bold, cleanLine(name)), current, target)
	g.printInfo("")
	g.printChangeList(changes)
	for _, r := range revisions {
		if r.Num == target && r.Status == dstack.RevisionFailed {
			g.printInfo(" %s revision %d failed: %s", g.err.paint(yellow, "note"), target, orDash(r.Reason))
		}
	}
	if combineStrategies(changes) == api.StrategyInPlace {
		g.printInfo(" Nothing is restarted.")
	} else { // the capacity of the machines is not known here
		g.printInfo(" If a machine has capacity for both, a new replica becomes ready before an old one stops.")
	}
}

// splitSecrets returns the changes of the configuration, and the names of secrets
// whose values changed.
func splitSecrets(changes []api.Change) (configuration []api.Change, secrets []string) {
	for _, c := range changes {
		if name, ok := strings.CutPrefix(c.Path, "secrets."); ok {
			secrets = append(secrets, cleanLine(name))
		} else {
			configuration = append(configuration, c)
		}
	}
	return configuration, secrets
}

// changesBetween combines the changes from one revision to another. Each revision
// lists its changes from the one before.
func changesBetween(revisions []api.RevisionView, from, to int) []api.Change {
	type combinedChange struct {
		api.Change
		secret bool // the values are hidden and cannot be compared
	}
	var all []combinedChange
	for _, r := range slices.Backward(revisions) {
		if r.Num <= min(from, to) || r.Num > max(from, to) {
			continue
		}
		for _, c := range r.Changes {
			at := slices.IndexFunc(all, func(other combinedChange) bool { return other.Path == c.Path })
			if at < 0 {
				at = len(all)
				all = append(all, combinedChange{Change: c})
			}
			all[at].To, all[at].secret = c.To, all[at].secret || c.From == c.To
			all[at].Strategy = combineStrategies([]api.Change{all[at].Change, c})
		}
	}
	var changes []api.Change
	for _, c := range all {
		if c.From == c.To && !c.secret {
			continue
		}
		if to < from {
			c.From, c.To = c.To, c.From
		}
		changes = append(changes, c.Change)
	}
	return changes
}
