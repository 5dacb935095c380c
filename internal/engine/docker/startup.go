package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// startup is an attempt between Start and its container's start.
type startup struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	state    dstack.AttemptState // pulling or starting
	progress string
	stopped  bool
}

func (s *startup) setProgress(state dstack.AttemptState, progress string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.progress = state, progress
}

func (s *startup) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.cancel()
}

func (s *startup) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

func (s *startup) report(id dstack.AttemptID) dstack.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return dstack.Report{Attempt: id, State: s.state, Progress: s.progress}
}

// Start is described at engine.Engine.
func (e *Engine) Start(ctx context.Context, spec dstack.AttemptSpec) error {
	if e.isStarted(spec.Attempt) {
		return nil
	}
	found, err := e.findContainer(ctx, spec.Attempt)
	if err != nil {
		return err
	}
	if found != nil && found.State != container.StateCreated {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, over := e.endedReports[spec.Attempt]
	if e.startups[spec.Attempt] != nil || over || e.ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(e.ctx)
	s := &startup{cancel: cancel, done: make(chan struct{}), state: dstack.AttemptStarting}
	e.startups[spec.Attempt] = s
	e.work.Go(func() { e.runStartup(ctx, s, spec) })
	return nil
}

func (e *Engine) isStarted(id dstack.AttemptID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, over := e.endedReports[id]
	return over || e.startups[id] != nil
}

func (e *Engine) findStartup(id dstack.AttemptID) *startup {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.startups[id]
}

// runStartup takes an attempt from its order to a running container. When that
// fails, no container is left, and the engine remembers why.
func (e *Engine) runStartup(ctx context.Context, s *startup, spec dstack.AttemptSpec) {
	err := e.pullAndStart(ctx, s, spec)
	if err != nil && e.ctx.Err() == nil {
		e.removeContainer(spec.Attempt)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UTC()
	switch {
	case err == nil:
	case s.isStopped():
		e.endedReports[spec.Attempt] = dstack.Report{
			Attempt: spec.Attempt, State: dstack.AttemptExited, ExitCode: 143,
			Error: "stopped before it had started", StartedAt: now, EndedAt: now,
		}
	case e.ctx.Err() == nil:
		e.opts.Log.Info("a container was not started", "run", spec.Run, "attempt", spec.Attempt, "err", err)
		e.endedReports[spec.Attempt] = engine.NewRefusedReport(spec.Attempt, err, now)
	}
	delete(e.startups, spec.Attempt)
	s.cancel()
	close(s.done)
}

// removeContainer removes what a failed beginning has made.
func (e *Engine) removeContainer(id dstack.AttemptID) {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	if found, err := e.findContainer(ctx, id); err == nil && found != nil {
		_, _ = e.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
}

func (e *Engine) pullAndStart(ctx context.Context, s *startup, spec dstack.AttemptSpec) error {
	if _, err := e.newContainerOptions(spec, spec.Image, true); err != nil { // before a long pull
		return err
	}
	image, err := e.ensureImage(ctx, spec, func(said string) { s.setProgress(dstack.AttemptPulling, said) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.state = dstack.AttemptStarting
	if strings.HasPrefix(s.progress, "pulling") || strings.HasPrefix(s.progress, "unpacking") {
		s.progress = ""
	}
	s.mu.Unlock()
	err = e.createAndStart(ctx, spec, image, true)
	if isInitMissing(err) {
		e.removeContainer(spec.Attempt)
		err = e.createAndStart(ctx, spec, image, false)
	}
	return translateError(err, startErrors, spec.Image)
}

func (e *Engine) createAndStart(ctx context.Context, spec dstack.AttemptSpec, image string, withInit bool) error {
	plan, err := e.newContainerOptions(spec, image, withInit)
	if err != nil {
		return err
	}
	made, err := e.docker.ContainerCreate(ctx, plan)
	id := made.ID
	if errdefs.IsConflict(err) { // an earlier server made it, and was killed before it started it
		var found *container.Summary
		if found, err = e.findContainer(ctx, spec.Attempt); err == nil && found == nil {
			err = &dstack.Error{
				Kind: dstack.Conflict, Message: fmt.Sprintf("there is a container named %s already, and it is not ours", plan.Name),
				Hint: "remove it with docker rm",
			}
		}
		if found != nil {
			id = found.ID
		}
	}
	if err != nil {
		return err
	}
	if err := e.copyCode(ctx, id, spec); err != nil {
		return err
	}
	_, err = e.docker.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

// copyCode puts the uploaded code into a container that has not started.
func (e *Engine) copyCode(ctx context.Context, id string, spec dstack.AttemptSpec) error {
	if spec.CodeHash == "" || spec.WorkingDir == "" || e.opts.Code == nil {
		return nil
	}
	code, err := e.opts.Code(ctx, spec)
	if err != nil {
		return err
	}
	defer code.Close()
	r, w := io.Pipe()
	var packed error
	var packing sync.WaitGroup
	packing.Go(func() {
		packed = engine.RepackArchive(ctx, w, engine.CodeFolder[1:], code)
		_ = w.CloseWithError(packed)
	})
	_, err = e.docker.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: r})
	_ = r.CloseWithError(errors.New("the container takes no more"))
	packing.Wait()
	if refused, ok := errors.AsType[*dstack.Error](packed); ok {
		return refused
	}
	return err
}
