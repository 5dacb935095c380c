package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/store"
)

// maxStopQuery limits the time to find what keeps running after the server.
const maxStopQuery = 2 * time.Second

// maxNamedRuns is how many runs the stop message names.
const maxNamedRuns = 5

// printStopMessage prints what keeps running without the server, and how to end it.
func (d *daemon) printStopMessage(ctx context.Context, out io.Writer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxStopQuery)
	defer cancel()
	names, replicas, err := d.findRunning(ctx)
	switch {
	case err != nil:
		d.log.Warn("cannot tell what keeps running", "err", err)
		fmt.Fprintf(out, " the server has stopped; services keep running without it\n")
	case len(names) == 0:
		fmt.Fprintf(out, " the server has stopped; no service runs\n")
	default:
		fmt.Fprint(out, describeRunning(names, replicas))
	}
}

// describeRunning describes the runs that keep running. names is not empty.
func describeRunning(names []string, replicas int) string {
	list := strings.Join(names[:min(len(names), maxNamedRuns)], ", ")
	if more := len(names) - maxNamedRuns; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	verb, stop := "keep", "--all"
	if len(names) == 1 {
		verb, stop = "keeps", names[0]
	}
	return fmt.Sprintf(" the server has stopped; %s %s running: %s (%s)\n"+
		" without the server, nobody restarts or scales them, and the gateway does not forward requests\n"+
		" to end them, start the server again and run: dstack stop %s\n",
		human.Count(len(names), "service"), verb, list, human.Count(replicas, "replica"), stop)
}

// findRunning returns the names of the runs that have replicas with a running attempt, and how many such replicas
// there are.
func (d *daemon) findRunning(ctx context.Context) (names []string, replicas int, err error) {
	runs, err := d.store.Runs(ctx, store.RunQuery{OnlyActive: true, Ascending: true, Limit: 1000})
	if err != nil {
		return nil, 0, err
	}
	ids := make([]dstack.RunID, len(runs))
	for i, run := range runs {
		ids[i] = run.ID
	}
	details, err := d.store.RunDetails(ctx, ids...)
	if err != nil {
		return nil, 0, err
	}
	for _, run := range details {
		running := 0
		for _, r := range run.Replicas {
			if report, ok := run.Reports[r.Attempt]; ok && !r.Status.IsFinished() && !report.State.IsOver() {
				running++
			}
		}
		if running > 0 {
			names = append(names, run.Run.Name)
			replicas += running
		}
	}
	return names, replicas, nil
}
