package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// eventPoll is how long the server waits for something to happen, in seconds.
const eventPoll = 30

// watchingEvents is one `dstack events`.
type watchingEvents struct {
	*app
	since  string
	last   int
	follow bool
	json   bool
}

func eventsCommand(a *app) *cobra.Command {
	w := &watchingEvents{app: a}
	c := &cobra.Command{
		Use:   "events RUN",
		Short: "Show what happened to a run and why, also after it has gone.",
		Example: "dstack events llama31\n" +
			"dstack events llama31 --since 1h -f -o json     # go on, one event a line",
		Args:              wants(1, 1, "the name of a run"),
		RunE:              func(c *cobra.Command, args []string) error { return w.run(c.Context(), args[0]) },
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&w.follow, "follow", "f", false, "go on, until Ctrl-C")
	c.Flags().StringVar(&w.since, "since", "", "only from a `TIME` on: 10m ago, or 2026-01-31T12:00:00Z")
	c.Flags().IntVarP(&w.last, "last", "n", 100, "the last `NUMBER` of them, 1000 at most")
	outputFlag(c, &w.json)
	a.projectFlags(c)
	return c
}

func (w *watchingEvents) run(ctx context.Context, name string) error {
	if w.last < 1 || w.last > 1000 {
		return invalid("give a number from 1 to 1000", "--last: %d events cannot be shown", w.last)
	}
	var from time.Time
	if w.since != "" {
		var err error
		if from, err = sinceWhen(w.since, time.Now()); err != nil {
			return err
		}
	}
	client, project, err := w.remote(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	ask := api.EventsRequest{RunName: name, Limit: w.last}
	events, err := client.Events(ctx, project, ask)
	if err != nil {
		return w.orMeant(ctx, client, project, name, err)
	}
	recent := events[:0:0]
	for _, e := range events {
		ask.After = max(ask.After, e.ID)
		if !e.At.Before(from) {
			recent = append(recent, e)
		}
	}
	if err := w.print(recent, true); err != nil || !w.follow {
		return err
	}
	ask.Limit, ask.WaitSeconds = 1000, eventPoll
	for {
		events, err := client.Events(ctx, project, ask)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		for _, e := range events {
			ask.After = max(ask.After, e.ID)
		}
		if err := w.print(events, false); err != nil {
			return err
		}
	}
}

// print shows events: as a table the first time, then line by line.
func (w *watchingEvents) print(events []api.EventView, first bool) error {
	if w.json && !w.follow {
		if events == nil {
			events = []api.EventView{}
		}
		return w.showJSON(events)
	}
	if w.json {
		for _, e := range events {
			line, err := json.Marshal(e)
			if err != nil {
				return fmt.Errorf("write an event: %w", err)
			}
			if _, err := w.out.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		return nil
	}
	if len(events) == 0 {
		return nil
	}
	t := &table{loose: []int{3, 2}}
	if first {
		t.head = []string{"TIME", "WHAT", "CHANGE", "WHY"}
	} else {
		t.head = []string{"", "", "", ""}
	}
	for _, e := range events {
		t.rows = append(t.rows, []string{e.At.Local().Format("Jan 02 15:04:05"), eventWhat(e), eventChange(e), eventWhy(e)})
	}
	lines := t.lines(w.out)
	if !first {
		lines = lines[1:]
	}
	_, err := fmt.Fprintln(w.out, strings.Join(lines, "\n"))
	return err
}

// eventWhat is what an event is about.
func eventWhat(e api.EventView) string {
	switch {
	case e.Replica != nil:
		return fmt.Sprintf("replica %d", *e.Replica)
	case e.Kind == dstack.EventReplica:
		return "replicas"
	case e.Kind == dstack.EventApplied, e.Kind == dstack.EventReady:
		return fmt.Sprintf("revision %d", e.Revision)
	case e.Kind == dstack.EventRolledBack:
		return "rolled back"
	}
	return cleanLine(string(e.Kind))
}

func eventChange(e api.EventView) string {
	switch {
	case e.From == "" && e.To == "":
		return "-"
	case e.From == "":
		return "→ " + cleanLine(e.To)
	}
	return cleanLine(e.From) + " → " + cleanLine(e.To)
}

func eventWhy(e api.EventView) string {
	why := cleanLine(e.Message)
	if e.User != "" {
		why = strings.TrimSpace(why + " · by " + cleanLine(e.User))
	}
	return orDash(why)
}

func explainCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain RUN",
		Short: "Say why a run has the replicas that it has, and when that may change.",
		Example: "dstack explain llama31\n" +
			"dstack explain llama31 -o json",
		Args: wants(1, 1, "the name of a run"),
		RunE: func(c *cobra.Command, args []string) error {
			client, project, err := a.remote(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			x, err := client.Explain(c.Context(), project, args[0])
			if err != nil {
				return a.orMeant(c.Context(), client, project, args[0], err)
			}
			if asJSON {
				return a.showJSON(x)
			}
			for _, line := range explained(x, time.Now()) {
				a.show("%s", line)
			}
			return nil
		},
		ValidArgsFunction: a.completeRuns,
	}
	outputFlag(c, &asJSON)
	a.projectFlags(c)
	return c
}

// explained is an explanation in words.
func explained(x api.Explanation, now time.Time) []string {
	if x.Status.Finished() {
		return []string{fmt.Sprintf("%s is %s, and wants no replica", cleanLine(x.RunName), x.Status)}
	}
	lines := []string{fmt.Sprintf("wants %s, has %d ready", count(x.Wanted, "replica"), x.Ready)}
	if why := cleanLine(x.Decision.Why); why != "" {
		lines = append(lines, "   "+why)
	}
	facts := []string{fmt.Sprintf("in flight %d", x.Load.InFlight), fmt.Sprintf("held %d", x.Load.Held)}
	if x.Min != x.Max {
		facts = append([]string{fmt.Sprintf("range %d..%d", x.Min, x.Max)}, facts...)
	}
	lines = append(lines, "   "+strings.Join(facts, " · "))
	if at := x.Decision.NextAt; !at.IsZero() {
		lines = append(lines, fmt.Sprintf("   could change at %s at the earliest, in %s", at.Local().Format("15:04:05"), elapsed(max(at.Sub(now), 0))))
	}
	for _, why := range x.Why {
		lines = append(lines, "   "+cleanLine(why))
	}
	return lines
}
