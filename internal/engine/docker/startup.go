package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// startup is an attempt between the call of Start and the start of its container.
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

// Start implements engine.Engine.
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

// runStartup pulls the image, creates the container and starts it. If that fails, it
// removes the container and keeps the error for ListReports to report.
func (e *Engine) runStartup(ctx context.Context, s *startup, spec dstack.AttemptSpec) {
	err := e.recoverPanic(func() error { return e.startOnceReachable(ctx, s, spec) })
	_, isForbidden := errors.AsType[startForbiddenError](err)
	if err != nil && !isForbidden && e.ctx.Err() == nil {
		e.removeFailedContainer(spec.Attempt)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UTC()
	switch {
	case err == nil:
	case isForbidden:
		e.opts.Log.Info("a container is not started, and left as it is", "run", spec.Run, "attempt", spec.Attempt, "err", err)
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

// removeFailedContainer removes the container of an attempt that could not be started.
func (e *Engine) removeFailedContainer(id dstack.AttemptID) {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	if found, err := e.findContainer(ctx, id); err == nil && found != nil {
		_, _ = e.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
}

// Times between the tries to start an attempt on a machine that is not reached.
const (
	minReachPause = time.Second
	maxReachPause = 5 * time.Second
)

// startOnceReachable starts the container. On another machine, a lost connection says nothing about the container: the start
// is tried again until it succeeds, is refused, or is stopped.
func (e *Engine) startOnceReachable(ctx context.Context, s *startup, spec dstack.AttemptSpec) error {
	for pause := minReachPause; ; pause = min(2*pause, maxReachPause) {
		err := e.pullAndStart(ctx, s, spec)
		lost, _ := errors.AsType[*dstack.Error](err)
		if e.opts.Remote == nil || lost == nil || !isConnectionLost(lost.Cause) {
			return err
		}
		e.opts.Log.Info("a start waits for its host", "run", spec.Run, "attempt", spec.Attempt, "err", err)
		s.setProgress(dstack.AttemptStarting, "waiting for the host: "+lost.Message)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		if found, err := e.findContainer(ctx, spec.Attempt); err == nil && found != nil && found.State != container.StateCreated {
			return nil // it was started, and only the answer was lost
		}
	}
}

// pullAndStart starts the container with Docker's init program, or without it if Docker
// does not have the program.
func (e *Engine) pullAndStart(ctx context.Context, s *startup, spec dstack.AttemptSpec) error {
	if _, err := e.newContainerOptions(spec, spec.Image, true); err != nil { // fail before a long pull
		return err
	}
	image, warning, err := e.ensureImage(ctx, spec, func(progress string) { s.setProgress(dstack.AttemptPulling, progress) })
	if err != nil {
		return err
	}
	s.setProgress(dstack.AttemptStarting, warning)
	err = e.createAndStart(ctx, spec, image, true)
	if isInitMissing(err) {
		e.removeFailedContainer(spec.Attempt)
		err = e.createAndStart(ctx, spec, image, false)
	}
	return e.translateError(err, startErrors, spec.Image)
}

// createAndStart creates the container, copies the code into it and starts it.
func (e *Engine) createAndStart(ctx context.Context, spec dstack.AttemptSpec, image string, withInit bool) error {
	options, err := e.newContainerOptions(spec, image, withInit)
	if err != nil {
		return err
	}
	if err := e.checkStart(ctx, spec.Attempt); err != nil {
		return err
	}
	if err := e.createVolumes(ctx, spec.Mounts); err != nil {
		return err
	}
	id, err := e.createContainer(ctx, spec, options)
	if rest, ok := removeOptional(spec, err); ok {
		return e.createAndStart(ctx, rest, image, withInit)
	}
	if err != nil {
		return err
	}
	if id == "" {
		return nil // another server has started it
	}
	if err := e.copyUploads(ctx, id, spec); err != nil {
		return err
	}
	// Whoever goes on in place of this server starts or removes the container of this ID. So even a server that is frozen
	// between the check and the start starts nothing twice.
	if err := e.checkStart(ctx, spec.Attempt); err != nil {
		return err
	}
	_, err = e.docker.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

// startForbiddenError says that the attempt may not be started by this server now. It hides its cause, which may be a connection
// that says nothing about Docker.
type startForbiddenError struct{ cause error }

func (e startForbiddenError) Error() string { return e.cause.Error() }

// checkStart asks whether an attempt may still be started.
func (e *Engine) checkStart(ctx context.Context, id dstack.AttemptID) error {
	if e.opts.MayStart == nil {
		return nil
	}
	if err := e.opts.MayStart(ctx, id); err != nil {
		return startForbiddenError{err}
	}
	return nil
}

// createContainer creates the container of an attempt and returns its ID; empty: it
// runs, because another server has started it. If an
// earlier server created it and was killed before it started it, createContainer
// returns that container; or a new one, where the files that the earlier server has copied
// would be taken for those of the image.
func (e *Engine) createContainer(
	ctx context.Context, spec dstack.AttemptSpec, options client.ContainerCreateOptions,
) (string, error) {
	created, err := e.docker.ContainerCreate(ctx, options)
	if !errdefs.IsConflict(err) {
		return created.ID, err
	}
	found, err := e.findContainer(ctx, spec.Attempt)
	if err != nil {
		return "", err
	}
	if found == nil {
		return "", &dstack.Error{
			Kind:    dstack.Conflict,
			Message: fmt.Sprintf("a container named %s exists already, and this server did not create it", options.Name),
			Hint:    "remove it with docker rm",
		}
	}
	if found.State != container.StateCreated {
		return "", nil
	}
	if spec.CodePath == "" {
		return found.ID, nil
	}
	if _, err := e.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		return "", err
	}
	created, err = e.docker.ContainerCreate(ctx, options)
	return created.ID, err
}
