package loop

import (
	"context"
	"time"
)

// Sleep waits for d, or until ctx ends. It returns nil after d, and ctx.Err() if
// ctx ended first or had ended before the call.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
