package docker

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
)

// termination is the stop of a container, from SIGTERM to its end.
type termination struct {
	deadline time.Time
	advanced chan struct{} // receives a value when the deadline becomes earlier
}

// Stop implements engine.Engine.
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
		_ = e.recoverPanic(func() error {
			e.terminate(s, found.ID, grace > 0)
			return nil
		})
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.terminations, id)
	})
	return nil
}

// advanceDeadline reports whether an attempt is being stopped already. If so, it moves
// the deadline of that stop forward to an earlier deadline.
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

// terminate sends SIGTERM, and SIGKILL at the deadline. It returns once the container
// has ended, a signal could not be sent or the engine is closed; the next Stop tries
// again.
func (e *Engine) terminate(s *termination, id string, graceful bool) {
	wait := e.streams.ContainerWait(e.ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if graceful && e.sendSignal(id, "SIGTERM") != nil {
		return
	}
	for {
		e.mu.Lock()
		remaining := time.Until(s.deadline)
		e.mu.Unlock()
		if remaining <= 0 {
			if e.sendSignal(id, "SIGKILL") != nil {
				return
			}
			remaining = callTimeout
		}
		select {
		case <-wait.Result:
			return
		case <-wait.Error:
			return
		case <-s.advanced:
		case <-time.After(remaining):
		}
	}
}

func (e *Engine) sendSignal(id, name string) error {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	_, err := e.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // the container has ended
		// With a full disk, Docker goes on to list a container as running that has ended.
		e.mu.Lock()
		delete(e.inspections, id)
		e.mu.Unlock()
		return nil
	}
	return err
}

// removeTimeout limits the wait for Docker to remove a container. Docker continues after
// that, and answers the next Remove with a conflict until it is done.
var removeTimeout = 5 * time.Second

// Remove implements engine.Engine.
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
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // conflict: Docker is removing it
			return e.newUnreachableError(err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.endedReports, id)
	delete(e.portOpen, id)
	delete(e.sockets, id)
	return nil
}
