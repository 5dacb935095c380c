package docker

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
)

// termination is a container that was asked to end.
type termination struct {
	deadline time.Time
	advanced chan struct{} // the deadline has moved
}

// Stop is described at engine.Engine.
func (e *Engine) Stop(ctx context.Context, id dstack.AttemptID, grace time.Duration) error {
	if s := e.findStartup(id); s != nil {
		s.abort()
		return nil
	}
	if e.advanceDeadline(id, time.Now().Add(grace)) {
		return nil
	}
	found, err := e.findContainer(ctx, id)
	if err != nil || found == nil {
		return err
	}
	if found.State != container.StateRunning && found.State != container.StatePaused {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.terminations[id] != nil || e.ctx.Err() != nil {
		return nil
	}
	s := &termination{deadline: time.Now().Add(grace), advanced: make(chan struct{}, 1)}
	e.terminations[id] = s
	e.work.Go(func() {
		e.terminate(s, found.ID, grace > 0)
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.terminations, id)
	})
	return nil
}

// advanceDeadline says whether a container is being stopped, and moves its
// deadline forward if this one is earlier.
func (e *Engine) advanceDeadline(id dstack.AttemptID, deadline time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.terminations[id]
	if s == nil {
		return false
	}
	if deadline.Before(s.deadline) {
		s.deadline = deadline
		select {
		case s.advanced <- struct{}{}:
		default:
		}
	}
	return true
}

// terminate sends SIGTERM, and SIGKILL at the deadline, and returns once the
// container has ended or the engine is closed. What goes wrong is tried again
// by the next Stop.
func (e *Engine) terminate(s *termination, id string, graceful bool) {
	wait := e.docker.ContainerWait(e.ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if graceful && e.sendSignal(id, "SIGTERM") != nil {
		return
	}
	for {
		e.mu.Lock()
		left := time.Until(s.deadline)
		e.mu.Unlock()
		if left <= 0 {
			if e.sendSignal(id, "SIGKILL") != nil {
				return
			}
			left = callTimeout
		}
		select {
		case <-wait.Result:
			return
		case <-wait.Error:
			return
		case <-s.advanced:
		case <-time.After(left):
		}
	}
}

func (e *Engine) sendSignal(id, name string) error {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	_, err := e.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // it has ended
		return nil
	}
	return err
}

// removeTimeout is how long the engine may take over one container. It goes on
// by itself after that, and says so when it is asked again.
var removeTimeout = 5 * time.Second

// Remove is described at engine.Engine.
func (e *Engine) Remove(ctx context.Context, id dstack.AttemptID) error {
	if s := e.findStartup(id); s != nil {
		s.abort()
		select {
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	found, err := e.findContainer(ctx, id)
	if err != nil {
		return err
	}
	if found != nil {
		ctx, cancel := context.WithTimeout(ctx, removeTimeout)
		defer cancel()
		_, err := e.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // conflict: it is being removed
			return newUnreachableError(err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.endedReports, id)
	delete(e.portOpen, id)
	return nil
}
