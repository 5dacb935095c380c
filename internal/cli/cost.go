package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// costGroups are the values of --by.
var costGroups = []string{"run", "user", "backend", "fleet"}

// costCommand is one `dstack cost`.
type costCommand struct {
	*app
	by, since string
	json      bool
}

func newCostCommand(a *app) *cobra.Command {
	l := &costCommand{app: a}
	c := &cobra.Command{
		Use:   "cost",
		Short: "Show what the rented machines of a project cost.",
		Example: "dstack cost                        # today (UTC), by run\n" +
			"dstack cost --by user --since 7d",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			query, err := l.readQuery(time.Now())
			if err != nil {
				return err
			}
			client, project, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			costs, err := client.Costs(c.Context(), project, query)
			if err != nil {
				return err
			}
			return l.print(costs)
		},
	}
	c.Flags().StringVar(&l.by, "by", "run", "what costs are added up by: `run`, user, backend or fleet")
	c.Flags().StringVar(&l.since, "since", "", "a `TIME` ago, such as 7d, or a date; default: the beginning of the day (UTC)")
	addOutputFlag(c, &l.json)
	a.addProjectFlags(c)
	return c
}

// readQuery reads the flags.
func (l *costCommand) readQuery(now time.Time) (api.GetCosts, error) {
	query := api.GetCosts{By: l.by}
	if !slices.Contains(costGroups, l.by) {
		return query, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("--by: costs are not known by %q", l.by),
			Hint: "use one of: " + strings.Join(costGroups, ", ")}
	}
	if l.since == "" {
		return query, nil
	}
	at, err := sinceWhen(l.since, now)
	if err != nil {
		return query, err
	}
	query.Since = &at
	return query, nil
}

func (l *costCommand) print(costs api.Costs) error {
	if l.json {
		return l.printJSON(costs)
	}
	since := costs.Since.Format("2006-01-02 15:04 MST")
	if len(costs.Lines) == 0 {
		l.printInfo("no machine was rented in project %s since %s", cleanLine(costs.Project), since)
	} else {
		costsTable(costs).writeTo(l.out)
		l.printInfo("since %s; %s an hour now", since, formatPrice(costs.PerHour))
	}
	if b := costs.Budget; b != nil {
		l.printInfo("budget: %s a day; %s spent today, %s for the machines that run until midnight (UTC), %s left", formatCost(b.PerDay),
			formatCost(b.Spent), formatCost(b.Committed), formatCost(max(b.Left, 0)))
	}
	return nil
}

func costsTable(costs api.Costs) *table {
	t := &table{head: []string{strings.ToUpper(costs.By), "COST", "HOURS", "NOW", "MACHINES"}, shrinkable: []int{0}}
	for _, line := range costs.Lines {
		now := "-"
		if line.Machines > 0 {
			now = formatPrice(line.PerHour) + "/h"
		}
		t.rows = append(t.rows, []string{cleanLine(line.Name), formatCost(line.Cost), fmt.Sprintf("%.1f", line.Hours), now, fmt.Sprint(line.Machines)})
	}
	if len(costs.Lines) > 1 {
		t.rows = append(t.rows, []string{"total", formatCost(costs.Cost), "", formatPrice(costs.PerHour) + "/h", ""})
	}
	return t
}

// formatCost returns an amount of dollars: $0.00, $12.34.
func formatCost(dollars float64) string { return fmt.Sprintf("$%.2f", dollars) }
