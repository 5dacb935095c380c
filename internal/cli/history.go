package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

func newHistoryCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "history RUN",
		Short: "List the revisions of a run and their outcomes.",
		Example: "dstack history llama31\n" +
			"dstack history llama31 -v     # with the values that changed",
	}
	addRunQuery(a, c, (*api.Client).History, func(revisions []api.RevisionView, asJSON bool) error {
		if asJSON {
			return a.printJSON(orEmpty(revisions))
		}
		historyTable(revisions, a.verbose, time.Now()).writeTo(a.out)
		return nil
	})
	return c
}

// addRunQuery makes a command send one request about one run and print the
// answer.
func addRunQuery[T any](a *app, c *cobra.Command,
	request func(client *api.Client, ctx context.Context, project, run string) (T, error),
	print func(answer T, asJSON bool) error,
) {
	var asJSON bool
	c.Args = expectArgs(1, 1, "the name of a run")
	c.ValidArgsFunction = a.completeRuns
	c.RunE = func(c *cobra.Command, args []string) error {
		client, project, err := a.connect(c.Context())
		if err != nil {
			return err
		}
		defer client.Close()
		answer, err := request(client, c.Context(), project, args[0])
		if err != nil {
			return a.suggestRun(c.Context(), client, project, args[0], err)
		}
		return print(answer, asJSON)
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
}

func historyTable(revisions []api.RevisionView, verbose bool, now time.Time) *table {
	t := &table{head: []string{"REVISION", "STATUS", "AGE", "BY", "CHANGES"}, wrapsLast: true, shrinkable: []int{3}}
	for _, r := range revisions {
		num := fmt.Sprint(r.Num)
		if r.Current {
			num += " *"
		}
		t.rows = append(t.rows, []string{
			num, revisionStatus(r), human.Age(now.Sub(r.At)), orDash(r.User), revisionChanges(r)})
		if why := cleanLine(r.Reason); why != "" {
			t.rows = append(t.rows, []string{why})
		}
		if verbose {
			for _, line := range formatChanges(r.Changes) {
				t.rows = append(t.rows, []string{"  " + line})
			}
		}
	}
	t.style = func(row, column int) (textStyle, bool) {
		if column != 1 {
			return 0, false
		}
		switch t.rows[row][1] {
		case "serves":
			return green, true
		case string(dstack.RevisionFailed):
			return red, true
		case string(dstack.RevisionPending):
			return yellow, true
		}
		return dim, true
	}
	return t
}

// revisionStatus returns the outcome of a revision in one word.
func revisionStatus(r api.RevisionView) string {
	switch r.Status {
	case dstack.RevisionReady:
		if r.Current {
			return "serves"
		}
		return "served"
	case dstack.RevisionPending:
		if !r.Current {
			return "replaced" // before it became ready
		}
		if r.Reason != "" {
			return "stopped" // with its run
		}
		return string(r.Status)
	case dstack.RevisionFailed:
		return string(r.Status)
	}
	return cleanLine(string(r.Status))
}

func revisionChanges(r api.RevisionView) string {
	var parts []string
	if r.Restores > 0 {
		parts = append(parts, fmt.Sprintf("rollback to %d", r.Restores))
	}
	for _, c := range r.Changes {
		parts = append(parts, cleanLine(c.Path))
	}
	return orDash(strings.Join(parts, ", "))
}
