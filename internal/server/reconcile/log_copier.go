package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/logs"
)

// maxCopyWait limits the wait for the last output of an ended attempt.
const maxCopyWait = 5 * time.Second

// logCopier copies the output of running attempts to the log store, with one
// goroutine per attempt.
type logCopier struct {
	logs *logs.Store
	log  *slog.Logger

	mu      sync.Mutex
	ctx     context.Context // of run; nil before it and after it
	wg      sync.WaitGroup
	running map[dstack.AttemptID]chan struct{} // closed when the copy has ended
}

func newLogCopier(store *logs.Store, log *slog.Logger) *logCopier {
	return &logCopier{logs: store, log: log, running: map[dstack.AttemptID]chan struct{}{}}
}

// run allows copies until ctx ends, and returns when all of them have ended.
func (c *logCopier) run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.wg.Wait()
	return ctx.Err()
}

// start starts to copy an attempt's output, unless that has started already or
// is complete. It continues where an earlier server stopped.
func (c *logCopier) start(eng engine.Engine, key logs.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || c.running[key.Attempt] != nil || c.logs.Finished(key) {
		return
	}
	ctx, done := c.ctx, make(chan struct{})
	c.running[key.Attempt] = done
	c.wg.Go(func() {
		defer c.finish(key.Attempt, done)
		c.copyOutput(ctx, eng, key)
	})
}

func (c *logCopier) finish(id dstack.AttemptID, done chan struct{}) {
	c.mu.Lock()
	delete(c.running, id)
	c.mu.Unlock()
	close(done)
}

// copyOutput copies the output of an attempt until the attempt ends. It logs a
// warning for output that the engine lost, or that could not be written; the log
// store counts the latter. Where only the connection to the engine was lost, the next
// start continues.
func (c *logCopier) copyOutput(ctx context.Context, eng engine.Engine, key logs.Key) {
	for line, err := range eng.Logs(ctx, key.Attempt, c.logs.Last(key)) {
		if err != nil {
			switch {
			case ctx.Err() != nil:
			case dstack.KindOf(err) == dstack.Unavailable:
				c.log.Info("output is read again later", "run", key.RunName, "attempt", key.Attempt, "err", err)
			default:
				c.log.Warn("output was lost", "run", key.RunName, "attempt", key.Attempt, "err", err)
			}
			return
		}
		if err := c.logs.Append(key, line); err != nil {
			c.log.Warn("output was not kept", "run", key.RunName, "attempt", key.Attempt, "err", err)
		}
	}
	if ctx.Err() == nil {
		c.logs.Finish(key)
	}
}

// waitForEnd waits until the output of an ended attempt is copied, for
// maxCopyWait at most.
func (c *logCopier) waitForEnd(ctx context.Context, id dstack.AttemptID) {
	c.mu.Lock()
	done := c.running[id]
	c.mu.Unlock()
	if done == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxCopyWait)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
