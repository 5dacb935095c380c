package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/spec"
)

func newLogsCommand(a *app) *cobra.Command {
	var follow, stamps, asJSON bool
	var since, tail string
	replica := -1
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Show the output of a run's replicas.",
		Example: "dstack logs llama31 -f --tail 20\n" +
			"dstack logs llama31 --replica 1 --since 10m -t",
		Args: expectArgs(1, 1, "the name of a run"),
		RunE: func(c *cobra.Command, args []string) error {
			request := api.FollowLogs{RunName: args[0], Follow: follow}
			switch {
			case replica >= 0:
				request.Replica = &replica
			case c.Flags().Changed("replica"):
				return invalidInput("the first replica is 0", "--replica: a replica's number cannot be negative")
			}
			if c.Flags().Changed("since") {
				from, err := sinceWhen(since, time.Now())
				if err != nil {
					return err
				}
				request.StartTime = &from
			}
			if lines, err := parseTail(tail); err != nil {
				return err
			} else if lines >= 0 {
				request.Tail = &lines
			}
			return a.showLogs(c, request, since, logStyle{timestamps: stamps, json: asJSON})
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow the output until the run ends")
	c.Flags().IntVar(&replica, "replica", -1, "the replica with this `NUMBER` only")
	c.Flags().StringVar(&since, "since", "", "since a `TIME`: 10m ago, or 2026-01-31T12:00:00Z")
	c.Flags().StringVarP(&tail, "tail", "n", "all", "the last `NUMBER` of lines of each replica only")
	c.Flags().BoolVarP(&stamps, "timestamps", "t", false, "print timestamps")
	addOutputFlag(c, &asJSON)
	c.Flags().Lookup("replica").DefValue = "all"
	a.addProjectFlags(c)
	return c
}

// parseTail parses a number of lines; -1 means all.
func parseTail(text string) (int, error) {
	if text == "all" {
		return -1, nil
	}
	lines, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return 0, invalidInput("write a number such as 100, or all", "--tail: `%s` is not a number of lines", text)
	case lines < 0:
		return 0, invalidInput("write a number such as 100, or all", "--tail: a number of lines cannot be negative")
	}
	return lines, nil
}

// localTimeFormats are the times without a zone that people write. They are local.
var localTimeFormats = []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}

// sinceWhen parses a time, or a duration before now.
func sinceWhen(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	for _, format := range localTimeFormats {
		if at, err := time.ParseInLocation(format, text, time.Local); err == nil {
			return at, nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	ago, err := spec.ParseDuration(text)
	if err != nil {
		return time.Time{}, invalidInput("write 10m, or 2026-01-31T12:00:00Z", "--since: `%s` is not a time", text)
	}
	return now.Add(-time.Duration(ago) * time.Second), nil
}

// hasSeveralReplicas reports whether the output of a run is, or with follow may become, that of
// several replicas.
func hasSeveralReplicas(view api.RunView, follow bool) bool {
	return view.ReplicaCount > 1 || len(view.Replicas) > 1 || follow && view.Max > 1
}

func (a *app) showLogs(c *cobra.Command, request api.FollowLogs, since string, style logStyle) error {
	ctx := c.Context()
	client, project, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	view, err := client.GetRunView(ctx, project, api.RunViewRequest{RunName: request.RunName})
	if err != nil {
		return a.suggestRun(ctx, client, project, request.RunName, err)
	}
	style.showReplica = request.Replica == nil && hasSeveralReplicas(view, request.Follow)
	notice := startSilenceNotice(silenceDelay, func() {
		if request.Follow && !view.Status.IsFinished() {
			a.printNoOutput(view, request, since)
		}
	})
	defer notice.end()
	reader := &logReader{client: client, project: project, request: request, retryDelay: reconnectDelay,
		notify: func(text string) {
			notice.end()
			a.printInfo(" %s", cleanLine(text))
		}}
	printer := newLogPrinter(a.screen, style)
	isEmpty := true
	for entry, err := range reader.entries(ctx) {
		notice.end()
		if ctx.Err() != nil {
			return nil // Ctrl-C is the normal end
		}
		if err != nil {
			return err
		}
		isEmpty = false
		if err := printer.printEntry(entry); err != nil {
			return err
		}
	}
	notice.end()
	if !isEmpty {
		return nil
	}
	if last, err := client.GetRunView(ctx, project, api.RunViewRequest{RunName: request.RunName}); err == nil {
		view = last // it may have ended in the meantime
	}
	a.printNoOutput(view, request, since)
	return nil
}
