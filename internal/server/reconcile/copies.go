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

// drainTime is how long an ended attempt's last output may take to arrive.
const drainTime = 5 * time.Second

// copies copies the output of running attempts to the log store, one
// goroutine an attempt. run waits for all of them.
type copies struct {
	logs *logs.Store
	log  *slog.Logger

	mu     sync.Mutex
	ctx    context.Context // nil until run, and after it ended
	wg     sync.WaitGroup
	active map[dstack.AttemptID]chan struct{} // closed when its copy has ended
}

func newCopies(store *logs.Store, log *slog.Logger) *copies {
	return &copies{logs: store, log: log, active: map[dstack.AttemptID]chan struct{}{}}
}

// run lets copies go on until ctx ends, and returns when all have ended.
func (c *copies) run(ctx context.Context) error {
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

// begin copies an attempt's output unless that is done or under way. It goes
// on where an earlier server stopped.
func (c *copies) begin(eng engine.Engine, key logs.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || c.active[key.Attempt] != nil || c.logs.Finished(key) {
		return
	}
	ctx, done := c.ctx, make(chan struct{})
	c.active[key.Attempt] = done
	c.wg.Go(func() {
		defer c.end(key.Attempt, done)
		c.copy(ctx, eng, key)
	})
}

func (c *copies) end(id dstack.AttemptID, done chan struct{}) {
	c.mu.Lock()
	delete(c.active, id)
	c.mu.Unlock()
	close(done)
}

// copy ends when the attempt has. Output that was lost on the way is logged;
// what cannot be written is the log store's to count.
func (c *copies) copy(ctx context.Context, eng engine.Engine, key logs.Key) {
	for line, err := range eng.Logs(ctx, key.Attempt, c.logs.Last(key)) {
		if err != nil {
			if ctx.Err() == nil {
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

// drain waits, for a bounded time, until an ended attempt's output is copied.
func (c *copies) drain(ctx context.Context, id dstack.AttemptID) {
	c.mu.Lock()
	done := c.active[id]
	c.mu.Unlock()
	if done == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
