package docker

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
)

// stopping is a container that was asked to end.
type stopping struct {
	deadline time.Time
	sooner   chan struct{} // the deadline has moved
}

// Stop is described at engine.Engine.
func (e *Engine) Stop(ctx context.Context, id dstack.AttemptID, grace time.Duration) error {
	if b := e.beginning(id); b != nil {
		b.stop()
		return nil
	}
	if e.alreadyStopping(id, time.Now().Add(grace)) {
		return nil
	}
	found, err := e.find(ctx, id)
	if err != nil || found == nil {
		return err
	}
	if found.State != container.StateRunning && found.State != container.StatePaused {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping[id] != nil || e.ctx.Err() != nil {
		return nil
	}
	s := &stopping{deadline: time.Now().Add(grace), sooner: make(chan struct{}, 1)}
	e.stopping[id] = s
	e.work.Go(func() {
		e.end(s, found.ID, grace > 0)
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.stopping, id)
	})
	return nil
}

// alreadyStopping says whether a container is being stopped, and moves its
// deadline forward if this one is earlier.
func (e *Engine) alreadyStopping(id dstack.AttemptID, deadline time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stopping[id]
	if s == nil {
		return false
	}
	if deadline.Before(s.deadline) {
		s.deadline = deadline
		select {
		case s.sooner <- struct{}{}:
		default:
		}
	}
	return true
}

// end sends SIGTERM, and SIGKILL at the deadline, and returns once the
// container has ended or the engine is closed. What goes wrong is tried again
// by the next Stop.
func (e *Engine) end(s *stopping, id string, gently bool) {
	wait := e.docker.ContainerWait(e.ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if gently && e.signal(id, "SIGTERM") != nil {
		return
	}
	for {
		e.mu.Lock()
		left := time.Until(s.deadline)
		e.mu.Unlock()
		if left <= 0 {
			if e.signal(id, "SIGKILL") != nil {
				return
			}
			left = answerLimit
		}
		select {
		case <-wait.Result:
			return
		case <-wait.Error:
			return
		case <-s.sooner:
		case <-time.After(left):
		}
	}
}

func (e *Engine) signal(id, name string) error {
	ctx, cancel := context.WithTimeout(e.ctx, answerLimit)
	defer cancel()
	_, err := e.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // it has ended
		return nil
	}
	return err
}

// removeLimit is how long the engine may take over one container. It goes on
// by itself after that, and says so when it is asked again.
var removeLimit = 5 * time.Second

// Remove is described at engine.Engine.
func (e *Engine) Remove(ctx context.Context, id dstack.AttemptID) error {
	if b := e.beginning(id); b != nil {
		b.stop()
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	found, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if found != nil {
		ctx, cancel := context.WithTimeout(ctx, removeLimit)
		defer cancel()
		_, err := e.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // conflict: it is being removed
			return unreachable(err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.ended, id)
	delete(e.answered, id)
	return nil
}
