package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// psInterval is how often the watched list is asked for.
const psInterval = 2 * time.Second

// listing is one `dstack ps`.
type listing struct {
	*app
	client  *api.Client
	project string
	names   []string
	all     bool
	watch   bool
	json    bool
}

func psCommand(a *app) *cobra.Command {
	l := &listing{app: a}
	c := &cobra.Command{
		Use:   "ps [RUN...]",
		Short: "List runs: those that are active, or else the latest.",
		Example: "dstack ps\n" +
			"dstack ps -a -o json     # ended ones too, for programs",
		RunE: func(c *cobra.Command, args []string) (err error) {
			l.names = args
			if l.client, l.project, err = a.remote(c.Context()); err != nil {
				return err
			}
			defer l.client.Close()
			if l.watch {
				return l.keepShowing(c.Context())
			}
			views, err := l.views(c.Context())
			if err != nil {
				return err
			}
			return l.print(c.Context(), views)
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&l.all, "all", "a", false, "ended ones too, 100 at most")
	c.Flags().BoolVarP(&l.watch, "watch", "w", false, "go on showing, until Ctrl-C")
	outputFlag(c, &l.json)
	a.projectFlags(c)
	return c
}

// views are the runs that were asked for.
func (l *listing) views(ctx context.Context) ([]api.View, error) {
	if len(l.names) > 0 {
		return l.named(ctx)
	}
	ask := api.ListRuns{ProjectName: &l.project, OnlyActive: !l.all}
	views, err := l.client.Views(ctx, ask)
	if err != nil || len(views) > 0 {
		return views, err
	}
	one := 1
	ask.OnlyActive, ask.Limit = false, &one
	views, err = l.client.Views(ctx, ask)
	if err == nil && len(views) == 0 {
		_, err = l.client.Project(ctx, l.project) // or is there none of that name?
	}
	return views[:min(1, len(views))], err
}

// why is, with -v, why each run that scales has as many replicas as it has. It
// is help for people: where it cannot be had, the list is shown without it.
func (l *listing) why(ctx context.Context, views []api.View) map[dstack.RunID]string {
	if !l.verbose {
		return nil
	}
	all := map[dstack.RunID]string{}
	for _, v := range views {
		if v.Min == v.Max || v.Status.Finished() {
			continue
		}
		if x, err := l.client.Explain(ctx, v.Project, v.Name); err == nil {
			all[v.ID] = cleanLine(x.Decision.Why)
		}
	}
	return all
}

func (l *listing) named(ctx context.Context) ([]api.View, error) {
	views := make([]api.View, 0, len(l.names))
	for _, name := range l.names {
		view, err := l.client.View(ctx, l.project, api.ViewRequest{RunName: name})
		if err != nil {
			return nil, l.orMeant(ctx, l.client, l.project, name, err)
		}
		views = append(views, view)
	}
	return views, nil
}

// orMeant adds to the error about an unknown run which one was meant.
func (a *app) orMeant(ctx context.Context, client *api.Client, project, name string, err error) error {
	if dstack.KindOf(err) != dstack.NotFound {
		return err
	}
	if _, unknownProject := client.Project(ctx, project); unknownProject != nil {
		return unknownProject // it is the project that is missing
	}
	known, listErr := client.Views(ctx, api.ListRuns{ProjectName: &project})
	if listErr != nil {
		return err
	}
	names := make([]string, 0, len(known))
	for _, v := range known {
		names = append(names, v.Name)
	}
	return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no run `%s` in project %s", name, project),
		Hint: didYouMean(name, names, "see: dstack ps -a"), Cause: err}
}

func (l *listing) print(ctx context.Context, views []api.View) error {
	if l.json {
		if views == nil {
			views = []api.View{}
		}
		return l.showJSON(views)
	}
	if len(views) == 0 {
		l.say("no runs in project %s; submit one: dstack apply -f service.dstack.yml", cleanLine(l.project))
		return nil
	}
	runsTable(views, l.why(ctx, views), l.verbose, time.Now()).write(l.out)
	return nil
}

// keepShowing shows the list anew whenever it changes.
func (l *listing) keepShowing(ctx context.Context) error {
	tick := time.NewTicker(psInterval)
	defer tick.Stop()
	up := block{to: l.out}
	var before []byte
	silentSince := time.Time{}
	for {
		views, err := l.views(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			silentSince = time.Time{}
			if err := l.redraw(ctx, &up, &before, views); err != nil {
				return err
			}
		case dstack.KindOf(err) != dstack.Unavailable:
			return err
		case silentSince.IsZero():
			silentSince = time.Now()
			up.clear()
			l.say("%s; trying again", cleanLine(err.Error()))
		case time.Since(silentSince) > silenceLimit:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// redraw replaces the list on a terminal; elsewhere it writes another one
// when something but the time has changed, in JSON one document a line.
func (l *listing) redraw(ctx context.Context, up *block, before *[]byte, views []api.View) error {
	if l.out.terminal && !l.json {
		lines := runsTable(views, l.why(ctx, views), l.verbose, time.Now()).lines(l.out)
		up.draw(append(lines, l.out.paint(dim, " Ctrl-C ends this")))
		return nil
	}
	now, err := json.Marshal(views)
	if err != nil {
		return fmt.Errorf("compare the list: %w", err)
	}
	if bytes.Equal(now, *before) {
		return nil
	}
	*before = now
	if l.json {
		_, err = l.out.Write(append(now, '\n'))
		return err
	}
	return l.print(ctx, views)
}

// runsTable is the list for people.
func runsTable(views []api.View, why map[dstack.RunID]string, verbose bool, now time.Time) *table {
	t := &table{head: []string{"NAME", "STATUS", "REPLICAS", "URL", "AGE"}, loose: []int{3, 0}}
	if verbose {
		t.head = append(t.head, "MACHINE", "RESOURCES", "PRICE", "RESTARTS")
		t.loose = []int{6, 5, 3}
	}
	for _, v := range views {
		t.rows = append(t.rows, runRow(v, len(t.head), now))
		if verbose {
			for _, r := range v.Replicas {
				t.rows = append(t.rows, replicaRow(r, now))
			}
			if line := numbersLine(v); line != "" {
				t.rows = append(t.rows, []string{line})
			}
			if line := why[v.ID]; line != "" {
				t.rows = append(t.rows, []string{"  " + line})
			}
		}
		for _, line := range troubles(v, verbose, now) {
			t.rows = append(t.rows, []string{line})
		}
	}
	t.tint = func(row, column int) (paint, bool) {
		if column != 1 {
			return 0, false
		}
		return statusPaint(t.rows[row][1])
	}
	return t
}

func runRow(v api.View, columns int, now time.Time) []string {
	replicas := "-"
	if !v.Status.Finished() {
		replicas = fmt.Sprintf("%d of %d", v.Ready, v.Wanted)
		if v.Min != v.Max {
			replicas = fmt.Sprintf("%d of %d..%d", v.Ready, v.Min, v.Max)
		}
	}
	row := []string{cleanLine(v.Name), string(v.Status), replicas, cleanLine(v.URL), age(now.Sub(v.SubmittedAt))}
	for len(row) < columns {
		row = append(row, "")
	}
	return row
}

func replicaRow(r api.ReplicaView, now time.Time) []string {
	return []string{
		fmt.Sprintf("  replica %d", r.Num), string(r.Status), "", "", age(now.Sub(r.Since)),
		orDash(r.Backend + " " + r.Instance), orDash(r.Resources), dollars(r.Price), fmt.Sprint(r.Restarts),
	}
}

// numbersLine is what a run does and did; empty: nothing.
func numbersLine(v api.View) string {
	n := v.Numbers
	if n == nil || v.Status.Finished() {
		return ""
	}
	said := []string{count(int(n.Requests), "request"), fmt.Sprintf("%d in flight", n.InFlight)}
	if n.Held > 0 {
		said = append(said, fmt.Sprintf("%d held", n.Held))
	}
	if v.Model != nil {
		if n.FirstToken != nil {
			said = append(said, "first token after "+brief(*n.FirstToken))
		}
		said = append(said, fmt.Sprintf("tokens %s in, %s out", many(n.TokensIn), many(n.TokensOut)))
	}
	return "  " + strings.Join(said, " · ")
}

// brief is a time in seconds, in few letters: 210ms, 1.4s.
func brief(seconds float64) string {
	if seconds < 1 {
		return fmt.Sprintf("%.0fms", seconds*1000)
	}
	return fmt.Sprintf("%.1fs", seconds)
}

// many is a number in few letters: 950, 1.2k, 3.4M.
func many(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0fk", float64(n)/1e3)
	case n >= 1e3:
		return fmt.Sprintf("%.1fk", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

func orDash(text string) string {
	if text = cleanLine(text); text == "" {
		return "-"
	}
	return text
}

func statusPaint(status string) (paint, bool) {
	switch api.Status(status) {
	case api.StatusReady:
		return green, true
	case api.StatusDegraded, api.StatusFailing, api.StatusWaiting:
		return yellow, true
	case api.StatusFailed:
		return red, true
	case api.StatusStopped, api.StatusSleeping:
		return dim, true
	case api.StatusStarting, api.StatusStopping, api.StatusUpdating:
		return 0, false
	}
	return 0, false
}

// troubles are the reasons that stand below a run which is not well.
func troubles(v api.View, verbose bool, now time.Time) []string {
	var lines []string
	add := func(line string) {
		if line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if v.Status != api.StatusReady && v.Status != api.StatusStopped {
		add(cleanLine(v.Reason))
	}
	for _, r := range v.Replicas {
		switch {
		case r.Status.Finished() && !verbose, r.Status == dstack.ReplicaReady:
		case r.Progress != "":
			add(fmt.Sprintf("replica %d %s", r.Num, cleanLine(r.Progress)))
		case r.Reason != "":
			add(sentence(r) + nextTry(r, now))
		}
	}
	return lines
}

// completeRuns completes names of runs in the shell; a server that does not
// answer completes nothing.
func (a *app) completeRuns(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeoutCause(c.Context(), 2*time.Second, errors.New("the shell waits"))
	defer cancel()
	client, project, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	views, err := client.Views(ctx, api.ListRuns{ProjectName: &project})
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
