package loop

import (
	"context"
	"sync"
)

// Pausable runs tasks that can be stopped for a while. Use NewPausable.
type Pausable struct {
	tasks []Task

	mu      sync.Mutex
	paused  bool
	stop    context.CancelFunc // of the tasks that run; nil: none run
	stopped chan struct{}      // closed when the tasks that run have returned
	resumed Broadcast
}

// NewPausable returns tasks that run once the task of Task runs. They must be able to run again after they have ended.
func NewPausable(tasks ...Task) *Pausable { return &Pausable{tasks: tasks} }

// Task returns the task that runs the tasks, except during a pause. It fails when one of them fails.
func (p *Pausable) Task(name string) Task { return Task{Name: name, Run: p.run} }

func (p *Pausable) run(ctx context.Context) error {
	for {
		if err := p.waitUntilResumed(ctx); err != nil {
			return err
		}
		if err := p.runOnce(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// waitUntilResumed waits while there is a pause.
func (p *Pausable) waitUntilResumed(ctx context.Context) error {
	for {
		resumed := p.resumed.Changed()
		p.mu.Lock()
		paused := p.paused
		p.mu.Unlock()
		if !paused {
			return ctx.Err()
		}
		select {
		case <-resumed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runOnce runs the tasks until ctx ends, one of them fails, or a pause begins.
func (p *Pausable) runOnce(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stopped := make(chan struct{})
	p.mu.Lock()
	p.stop, p.stopped = stop, stopped
	if p.paused {
		stop()
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.stop = nil
		p.mu.Unlock()
		close(stopped)
	}()
	return Run(ctx, p.tasks...)
}

// Pause stops the tasks and returns when they have ended, or with the error of ctx. Call Resume in both cases.
func (p *Pausable) Pause(ctx context.Context) error {
	p.mu.Lock()
	p.paused = true
	stop, stopped := p.stop, p.stopped
	p.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Resume lets the tasks run again.
func (p *Pausable) Resume() {
	p.mu.Lock()
	p.paused = false
	p.mu.Unlock()
	p.resumed.Notify()
}
