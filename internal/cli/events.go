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
	"dstack/internal/human"
	"dstack/internal/loop"
)

// eventWaitSeconds is how long a request waits at the server for new events.
const eventWaitSeconds = 30

// eventsCommand is one `dstack events`.
type eventsCommand struct {
	*app
	since  string
	last   int
	follow bool
	json   bool

	client  *api.Client
	project string
	from    time.Time // the time of --since
	columns []int     // the widths of the printed columns; nil: nothing was printed
}

func newEventsCommand(a *app) *cobra.Command {
	w := &eventsCommand{app: a}
	c := &cobra.Command{
		Use:   "events RUN",
		Short: "Show the events of a run, also after it was deleted.",
		Example: "dstack events llama31\n" +
			"dstack events llama31 --since 1h -f -o json     # follow, one event per line",
		Args:              expectArgs(1, 1, "the name of a run"),
		RunE:              func(c *cobra.Command, args []string) error { return w.start(c, args[0]) },
		ValidArgsFunction: a.completeRuns,
	}
	w.addFlags(c)
	return c
}

func (w *eventsCommand) addFlags(c *cobra.Command) {
	c.Flags().BoolVarP(&w.follow, "follow", "f", false, "follow new events until Ctrl-C")
	c.Flags().StringVar(&w.since, "since", "", "since a `TIME`: 10m ago, or 2026-01-31T12:00:00Z")
	c.Flags().IntVarP(&w.last, "last", "n", 100, "the last `NUMBER` of events, at most 1000")
	addOutputFlag(c, &w.json)
	w.addProjectFlags(c)
}

// start shows the events of a run; of keys for callers if the name is empty.
func (w *eventsCommand) start(c *cobra.Command, name string) (err error) {
	if c.Flags().Changed("since") {
		if w.from, err = sinceWhen(w.since, time.Now()); err != nil {
			return err
		}
	}
	return w.run(c.Context(), name)
}

func (w *eventsCommand) run(ctx context.Context, name string) (err error) {
	if w.last < 1 || w.last > 1000 {
		return invalidInput("give a number from 1 to 1000", "--last: %d is out of range", w.last)
	}
	if w.client, w.project, err = w.connect(ctx); err != nil {
		return err
	}
	defer w.client.Close()
	request := api.EventsRequest{RunName: name, Limit: w.last}
	events, err := w.client.Events(ctx, w.project, request)
	if err != nil {
		return w.suggestRun(ctx, w.client, w.project, name, err)
	}
	recent := events[:0:0]
	for _, e := range events {
		request.After = max(request.After, e.ID)
		if !e.At.Before(w.from) {
			recent = append(recent, e)
		}
	}
	if err := w.printEvents(recent); err != nil {
		return err
	}
	if w.follow {
		return w.followEvents(ctx, request)
	}
	if len(recent) == 0 && !w.json {
		w.printInfo("%s no events%s", map[bool]string{true: "keys have", false: cleanLine(name) + " has"}[name == ""], map[bool]string{true: " since " + w.since}[w.since != ""])
	}
	return nil
}

// followEvents prints new events until Ctrl-C. It retries while the server cannot
// be reached, for at most maxServerSilence.
func (w *eventsCommand) followEvents(ctx context.Context, request api.EventsRequest) error {
	request.Limit, request.WaitSeconds = 1000, eventWaitSeconds
	silentSince := time.Time{}
	for {
		events, err := w.client.Events(ctx, w.project, request)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is the normal end
		case err == nil:
			silentSince = time.Time{}
		case dstack.KindOf(err) != dstack.Unavailable:
			return err
		case silentSince.IsZero():
			silentSince = time.Now()
			w.printInfo(" %s; trying again", cleanLine(err.Error()))
		case time.Since(silentSince) > maxServerSilence:
			return err
		}
		if err != nil {
			_ = loop.Sleep(ctx, reconnectDelay)
			continue
		}
		for _, e := range events {
			request.After = max(request.After, e.ID)
		}
		if err := w.printEvents(events); err != nil {
			return err
		}
	}
}

// printEvents prints events as a table or as JSON: one list or, with --follow,
// one event per line.
func (w *eventsCommand) printEvents(events []api.EventView) error {
	if w.json && !w.follow {
		return w.printJSON(orEmpty(events))
	}
	if !w.json {
		return w.printEventTable(events)
	}
	for _, e := range events {
		line, err := json.Marshal(e)
		if err == nil {
			_, err = w.out.Write(append(line, '\n'))
		}
		if err != nil {
			return fmt.Errorf("write an event: %w", err)
		}
	}
	return nil
}

// printEventTable prints events below the earlier ones. The header is printed
// once, and columns never become narrower.
func (w *eventsCommand) printEventTable(events []api.EventView) error {
	if len(events) == 0 && (w.columns != nil || !w.follow) {
		return nil
	}
	t := &table{head: []string{"TIME", "WHAT", "CHANGE", "WHY"}, wrapsLast: true, shrinkable: []int{2}}
	if t.minWidths = w.columns; w.columns == nil && w.follow {
		t.minWidths = []int{8, 11, 24}
	}
	folded := foldEvents(events)
	for _, e := range folded {
		t.rows = append(t.rows, []string{w.formatTime(e.At), eventSubject(e.EventView), eventChange(e.EventView), e.reason()})
	}
	t.style = func(row, column int) (textStyle, bool) {
		switch {
		case column == 0:
			return dim, true
		case column == 1 && folded[row].Kind == dstack.EventRolledBack:
			return red, true
		}
		return 0, false
	}
	lines := t.lines(w.out)
	if w.columns != nil {
		lines = lines[1:]
	}
	w.columns = t.layout(w.out.width()).widths[:3]
	if _, err := fmt.Fprintln(w.out, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("write the events: %w", err)
	}
	return nil
}

// formatTime returns the age of an event or, with --follow, its time of day:
// ages become wrong on lines that stay on the screen.
func (w *eventsCommand) formatTime(at time.Time) string {
	now := time.Now()
	switch {
	case !w.follow:
		return human.Age(now.Sub(at)) + " ago"
	case now.Sub(at) > 12*time.Hour:
		return at.Local().Format("Jan 02 15:04")
	}
	return at.Local().Format("15:04:05")
}

// eventSubject returns the replica or the kind of an event.
func eventSubject(e api.EventView) string {
	switch {
	case e.Replica != nil:
		return fmt.Sprintf("replica %d", *e.Replica) + inParentheses(e.Group)
	case e.Kind == dstack.EventReplica:
		return "replicas" + inParentheses(e.Group)
	}
	return cleanLine(strings.ReplaceAll(string(e.Kind), "_", " ")) + inParentheses(e.Group)
}

// inParentheses returns the name of a group after what belongs to it; "" without a group.
func inParentheses(group string) string {
	if group = cleanLine(group); group == "" {
		return ""
	}
	return " (" + group + ")"
}

// eventChange returns the old and the new value of an event, or its revision.
func eventChange(e api.EventView) string {
	from, to := cleanLine(e.From), cleanLine(e.To)
	switch {
	case from == "" && to == "" && e.Revision > 0:
		return fmt.Sprintf("revision %d", e.Revision)
	case from == "" && to == "":
		return "-"
	case from == "":
		return "→ " + to
	}
	return from + " → " + to
}

// eventReason returns the message of an event and the user that caused it.
func eventReason(e api.EventView) string {
	why := cleanLine(e.Message)
	if user := cleanLine(e.User); user != "" {
		why = strings.TrimPrefix(why+" · by "+user, " · ")
	}
	return orDash(why)
}
