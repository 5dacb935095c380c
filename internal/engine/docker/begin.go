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

// beginning is an attempt between Start and its container's start.
type beginning struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	outcome dstack.AttemptState // pulling or starting
	said    string
	stopped bool
}

func (b *beginning) say(outcome dstack.AttemptState, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outcome, b.said = outcome, what
}

func (b *beginning) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.cancel()
}

func (b *beginning) wasStopped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stopped
}

func (b *beginning) report(id dstack.AttemptID) dstack.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	return dstack.Report{Attempt: id, State: b.outcome, Progress: b.said}
}

// Start is described at engine.Engine.
func (e *Engine) Start(ctx context.Context, o dstack.AttemptSpec) error {
	if e.knows(o.Attempt) {
		return nil
	}
	found, err := e.find(ctx, o.Attempt)
	if err != nil {
		return err
	}
	if found != nil && found.State != container.StateCreated {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, over := e.ended[o.Attempt]
	if e.begun[o.Attempt] != nil || over || e.ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(e.ctx)
	b := &beginning{cancel: cancel, done: make(chan struct{}), outcome: dstack.AttemptStarting}
	e.begun[o.Attempt] = b
	e.work.Go(func() { e.begin(ctx, b, o) })
	return nil
}

func (e *Engine) knows(id dstack.AttemptID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, over := e.ended[id]
	return over || e.begun[id] != nil
}

func (e *Engine) beginning(id dstack.AttemptID) *beginning {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.begun[id]
}

// begin takes an attempt from its order to a running container. When that
// fails, no container is left, and the engine remembers why.
func (e *Engine) begin(ctx context.Context, b *beginning, o dstack.AttemptSpec) {
	err := e.makeAndStart(ctx, b, o)
	if err != nil && e.ctx.Err() == nil {
		e.clear(o.Attempt)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UTC()
	switch {
	case err == nil:
	case b.wasStopped():
		e.ended[o.Attempt] = dstack.Report{
			Attempt: o.Attempt, State: dstack.AttemptExited, ExitCode: 143,
			Error: "stopped before it had started", StartedAt: now, EndedAt: now,
		}
	case e.ctx.Err() == nil:
		e.opts.Log.Info("a container was not started", "run", o.Run, "attempt", o.Attempt, "err", err)
		e.ended[o.Attempt] = engine.NewRefusedReport(o.Attempt, err, now)
	}
	delete(e.begun, o.Attempt)
	b.cancel()
	close(b.done)
}

// clear removes what a failed beginning has made.
func (e *Engine) clear(id dstack.AttemptID) {
	ctx, cancel := context.WithTimeout(e.ctx, answerLimit)
	defer cancel()
	if found, err := e.find(ctx, id); err == nil && found != nil {
		_, _ = e.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
}

func (e *Engine) makeAndStart(ctx context.Context, b *beginning, o dstack.AttemptSpec) error {
	if _, err := e.plan(o, o.Image, true); err != nil { // before a long pull
		return err
	}
	image, err := e.fetch(ctx, o, func(said string) { b.say(dstack.AttemptPulling, said) })
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.outcome = dstack.AttemptStarting
	if strings.HasPrefix(b.said, "pulling") || strings.HasPrefix(b.said, "unpacking") {
		b.said = ""
	}
	b.mu.Unlock()
	err = e.run(ctx, o, image, true)
	if missingInit(err) {
		e.clear(o.Attempt)
		err = e.run(ctx, o, image, false)
	}
	return explain(err, startTroubles, o.Image)
}

func (e *Engine) run(ctx context.Context, o dstack.AttemptSpec, image string, withInit bool) error {
	plan, err := e.plan(o, image, withInit)
	if err != nil {
		return err
	}
	made, err := e.docker.ContainerCreate(ctx, plan)
	id := made.ID
	if errdefs.IsConflict(err) { // an earlier server made it, and was killed before it started it
		var found *container.Summary
		if found, err = e.find(ctx, o.Attempt); err == nil && found == nil {
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
	if err := e.copyCode(ctx, id, o); err != nil {
		return err
	}
	_, err = e.docker.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

// copyCode puts the uploaded code into a container that has not started.
func (e *Engine) copyCode(ctx context.Context, id string, o dstack.AttemptSpec) error {
	if o.CodeHash == "" || o.WorkingDir == "" || e.opts.Code == nil {
		return nil
	}
	code, err := e.opts.Code(ctx, o)
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
