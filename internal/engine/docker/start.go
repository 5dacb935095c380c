package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// pullLimit bounds the fetching of one image (spec §8.4).
const pullLimit = 20 * time.Minute

// start is one attempt on its way to a running container, or refused.
type start struct {
	cancel context.CancelFunc

	mu     sync.Mutex
	report dstack.Report
}

func (s *start) now() dstack.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

func (s *start) set(change func(*dstack.Report)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.report)
}

// Start begins to run an attempt: see engine.Engine.
func (e *Engine) Start(ctx context.Context, o dstack.Order) error {
	e.mu.Lock()
	known := e.starting[o.Attempt] != nil
	e.mu.Unlock()
	if known || e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	old, err := e.find(ctx, o.Attempt)
	if err != nil {
		return err
	}
	if old != nil && old.State != container.StateCreated {
		return nil
	}
	ctx, cancel := context.WithCancel(e.ctx)
	s := &start{cancel: cancel, report: dstack.Report{Attempt: o.Attempt, Outcome: dstack.OutcomeStarting}}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.starting[o.Attempt] != nil {
		cancel()
		return nil
	}
	e.starting[o.Attempt] = s
	e.work.Go(func() {
		defer cancel()
		e.bring(ctx, o, s, old)
	})
	return nil
}

// bring makes the container run. Half-made, it is taken away again.
func (e *Engine) bring(ctx context.Context, o dstack.Order, s *start, old *container.Summary) {
	if old != nil {
		e.discard(old.ID) // made by a server that was killed before it started it
	}
	err := e.fetch(ctx, o, s)
	if err == nil {
		err = e.run(ctx, o, s)
	}
	switch {
	case err == nil:
		e.mu.Lock()
		delete(e.starting, o.Attempt)
		e.mu.Unlock()
	case e.ctx.Err() != nil: // the server stops; the next one starts again
	default:
		refused := refusal(o, err)
		e.Log.Info("a container was not started", "run", o.Run, "attempt", o.Attempt, "err", err)
		s.set(func(r *dstack.Report) {
			r.Outcome, r.Progress, r.EndedAt = dstack.OutcomeRefused, "", time.Now()
			r.Error, r.Permanent = refused.text, refused.permanent
		})
	}
}

// run creates the container, gives it its code and starts it.
func (e *Engine) run(ctx context.Context, o dstack.Order, s *start) error {
	s.set(func(r *dstack.Report) { r.Outcome, r.Progress = dstack.OutcomeStarting, "creating the container" })
	init := true
	for {
		options, err := e.container(o, init)
		if err != nil {
			return err
		}
		made, err := e.api.ContainerCreate(ctx, options)
		if err != nil {
			return err
		}
		err = e.deliver(ctx, o, made.ID)
		if err == nil {
			_, err = e.api.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
		}
		if err == nil {
			return nil
		}
		e.discard(made.ID)
		if !init || !lacksInit(err) {
			return err
		}
		init = false
	}
}

// deliver puts the uploaded code into a container that does not run yet.
func (e *Engine) deliver(ctx context.Context, o dstack.Order, id string) error {
	if o.WorkingDir == "" {
		return nil
	}
	code := io.NopCloser(emptyTar())
	if o.CodeHash != "" && e.Code != nil {
		var err error
		if code, err = e.Code(ctx, o); err != nil {
			return fmt.Errorf("the uploaded code cannot be had: %w", err)
		}
	}
	defer code.Close()
	clean, w := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends with the copy below: it closes the other end
		err := engine.Repack(ctx, w, engine.CodeFolder[1:], code)
		_ = w.CloseWithError(err)
		done <- err
	}()
	_, err := e.api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: clean})
	_ = clean.Close()
	if repacked := <-done; repacked != nil && !errors.Is(repacked, io.ErrClosedPipe) {
		return repacked
	}
	return err
}

// discard takes away a container that never ran for anybody. What cannot be
// taken away now is found by its label later.
func (e *Engine) discard(id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), 10*time.Second)
	defer cancel()
	_, err := e.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		e.Log.Warn("a container was not removed", "container", id, "err", err)
	}
}

// Stop asks an attempt to end: see engine.Engine.
func (e *Engine) Stop(ctx context.Context, id dstack.AttemptID, grace time.Duration) error {
	e.mu.Lock()
	s, until := e.starting[id], time.Now().Add(grace)
	kill, told := e.stopping[id]
	e.mu.Unlock()
	if s != nil {
		s.cancel()
	}
	if told && !until.Before(kill) {
		return nil
	}
	c, err := e.find(ctx, id)
	if err != nil || c == nil || !alive(c.State) {
		return err
	}
	e.mu.Lock()
	e.stopping[id] = until
	e.mu.Unlock()
	e.work.Go(func() { e.end(c.ID, id, grace) })
	return nil
}

// end tells a container to end. When the server stops meanwhile, the next one
// tells it again.
func (e *Engine) end(container string, id dstack.AttemptID, grace time.Duration) {
	var err error
	if grace <= 0 {
		_, err = e.api.ContainerKill(e.ctx, container, client.ContainerKillOptions{Signal: "SIGKILL"})
	} else {
		seconds := int((grace + time.Second - 1) / time.Second)
		_, err = e.api.ContainerStop(e.ctx, container, client.ContainerStopOptions{Timeout: &seconds})
	}
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) && e.ctx.Err() == nil {
		e.Log.Warn("a container was not stopped", "container", container, "err", err)
		e.mu.Lock()
		delete(e.stopping, id) // told again
		e.mu.Unlock()
	}
}

func alive(s container.ContainerState) bool {
	return s == container.StateRunning || s == container.StatePaused || s == container.StateRestarting
}

// Remove forgets an attempt: see engine.Engine.
func (e *Engine) Remove(ctx context.Context, id dstack.AttemptID) error {
	e.mu.Lock()
	s := e.starting[id]
	e.mu.Unlock()
	if s != nil {
		s.cancel()
		if !s.now().Outcome.Over() {
			return nil // it is taking itself away; Running tells when it has
		}
	}
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if c != nil {
		_, err := e.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			return fmt.Errorf("cannot remove the container %s: %w", c.ID, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.starting, id)
	delete(e.stopping, id)
	if c != nil {
		delete(e.ended, c.ID)
		delete(e.begun, c.ID)
	}
	return nil
}
