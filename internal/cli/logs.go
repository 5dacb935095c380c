package cli

import (
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/spec"
)

func newLogsCommand(a *app) *cobra.Command {
	var follow, stamps, asJSON bool
	var since string
	replica := -1
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Show the output of a run's replicas.",
		Example: "dstack logs llama31 -f\n" +
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
			if since != "" {
				from, err := sinceWhen(since, time.Now())
				if err != nil {
					return err
				}
				request.StartTime = &from
			}
			return a.showLogs(c, request, logStyle{timestamps: stamps, json: asJSON})
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow the output until the run ends")
	c.Flags().IntVar(&replica, "replica", -1, "the replica with this `NUMBER` only")
	c.Flags().StringVar(&since, "since", "", "since a `TIME`: 10m ago, or 2026-01-31T12:00:00Z")
	c.Flags().BoolVarP(&stamps, "timestamps", "t", false, "print timestamps")
	addOutputFlag(c, &asJSON)
	c.Flags().Lookup("replica").DefValue = "all"
	a.addProjectFlags(c)
	return c
}

// sinceWhen parses a time, or a duration before now.
func sinceWhen(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
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

func (a *app) showLogs(c *cobra.Command, request api.FollowLogs, style logStyle) error {
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
	style.showReplica = request.Replica == nil && len(view.Replicas) > 1
	reader := &logReader{client: client, project: project, request: request, retryDelay: reconnectDelay,
		notify: func(text string) { a.printInfo(" %s", cleanLine(text)) }}
	printer := newLogPrinter(a.screen, style)
	for entry, err := range reader.entries(ctx) {
		if ctx.Err() != nil {
			return nil // Ctrl-C is the normal end
		}
		if err != nil {
			return err
		}
		if err := printer.printEntry(entry); err != nil {
			return err
		}
	}
	return nil
}
