package loop

import (
	"context"
	"time"
)

// Sleep waits for d, or until ctx ends. It returns nil after d, and ctx.Err() if
// ctx ended first or had ended before the call.
func Sleep(ctx context.Context, d time.Duration) error { return SleepUntil(ctx, d, nil) }

// SleepUntil is Sleep that also ends, with nil, when it receives from wake. A nil
// wake never ends it.
func SleepUntil(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
		return nil
	case <-timer.C:
		return nil
	}
}
