package gateway

import (
	"context"
	"time"
)

const (
	reportEvery = time.Second
	reportPause = 10 * time.Millisecond // between two, however much there is to tell
	reportMost  = 5 * time.Second       // how long the server may take for one
)

// report tells the server what the gateway counts: at the begin of each
// second, and at once when there is news. What the server does not take is
// told again, as it is then.
func (g *Gateway) report(ctx context.Context) error {
	failing := false
	for {
		if g.loads.view.Load() != nil { // without a table nothing is counted
			err := g.tell(ctx)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && !failing:
				g.log.Warn("cannot tell the server what services do, which it needs to scale them; it is told again every second", "err", err)
			case err == nil && failing:
				g.log.Info("the server hears again what services do")
			}
			failing = err != nil
		}
		if err := pause(ctx, reportPause, nil); err != nil {
			return err
		}
		if err := pause(ctx, reportEvery-g.loads.now()%reportEvery, g.loads.news); err != nil {
			return err
		}
	}
}

func (g *Gateway) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportMost)
	defer cancel()
	counts := g.loads.loadReport()
	counts.Gateway = g.name
	return g.control.Report(ctx, counts)
}

// pause waits for a while, or until it is woken.
func pause(ctx context.Context, wait time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-timer.C:
	}
	return nil
}
