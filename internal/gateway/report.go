package gateway

import (
	"context"
	"time"

	"dstack/internal/loop"
)

const (
	reportInterval    = time.Second
	minReportInterval = 10 * time.Millisecond // however much changes
	reportTimeout     = 5 * time.Second
)

// sendReports sends a report at the beginning of each second, and at once when
// something changes that the server waits for. A failed report is not repeated:
// the next one has the counts of its own time.
func (g *Gateway) sendReports(ctx context.Context) error {
	isFailing := false
	for {
		if g.loads.view.Load() != nil { // without a table nothing is counted
			err := g.sendReport(ctx)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && !isFailing:
				g.log.Warn("cannot report load to the server, which needs it to scale services; trying again every second",
					"err", err)
			case err == nil && isFailing:
				g.log.Info("the server receives reports again")
			}
			isFailing = err != nil
		}
		if err := loop.Sleep(ctx, minReportInterval); err != nil {
			return err
		}
		if err := loop.SleepUntil(ctx, reportInterval-g.loads.elapsed()%reportInterval, g.loads.changed); err != nil {
			return err
		}
	}
}

// SetName changes the name of the gateway in the reports from now on. A gateway that only finishes its requests must not
// replace the reports of its successor.
func (g *Gateway) SetName(name string) { g.name.Store(&name) }

// Report sends a report now, beside those of its task.
func (g *Gateway) Report(ctx context.Context) error { return g.sendReport(ctx) }

func (g *Gateway) sendReport(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	report := g.loads.loadReport()
	report.Gateway = *g.name.Load()
	g.metrics.addTo(&report)
	g.keys.addTo(&report)
	report.Demands = g.rateLimiter.demands()
	answer, err := g.control.Report(ctx, report)
	if err == nil {
		g.rateLimiter.setAnswer(answer)
	}
	return err
}
