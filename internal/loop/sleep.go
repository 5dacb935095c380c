package loop

import (
	"context"
	"time"
)

// Sleep waits for d or until ctx ends, whichever is first. Its error is nil
// or ctx.Err(); a context that has ended already is not waited for.
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
