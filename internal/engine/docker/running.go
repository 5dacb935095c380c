package docker

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

const (
	looksAtOnce = 16
	lastLines   = 10
)

// Running reports every attempt: see engine.Engine.
func (e *Engine) Running(ctx context.Context) ([]dstack.Report, error) {
	e.mu.Lock() // before the list: what finishes starting meanwhile is in one of both
	starting := map[dstack.AttemptID]*start{}
	for id, s := range e.starting {
		starting[id] = s
	}
	e.mu.Unlock()
	found, err := e.list(ctx, "")
	if err != nil {
		return nil, err
	}
	reports := make([]dstack.Report, len(found))
	var group errgroup.Group
	group.SetLimit(looksAtOnce)
	for i, c := range found {
		id := dstack.AttemptID(c.Labels[labelAttempt])
		if starting[id] != nil && c.State == container.StateCreated {
			continue
		}
		delete(starting, id)
		group.Go(func() error {
			var err error
			reports[i], err = e.look(ctx, c)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, s := range starting {
		reports = append(reports, s.now())
	}
	known, now := reports[:0], time.Now()
	for _, r := range reports {
		if r.Attempt != "" {
			r.At = now
			known = append(known, r)
		}
	}
	return known, nil
}

// look reports on one container.
func (e *Engine) look(ctx context.Context, c container.Summary) (dstack.Report, error) {
	id := dstack.AttemptID(c.Labels[labelAttempt])
	switch c.State {
	case container.StateRunning, container.StatePaused, container.StateRestarting:
		rep := dstack.Report{Attempt: id, Outcome: dstack.OutcomeRunning, StartedAt: e.startedAt(ctx, c.ID), Address: e.address(c)}
		rep.Ready = rep.Address != "" && c.State == container.StateRunning && engine.Call(ctx, rep.Address, !e.direct) == engine.Accepted
		return rep, nil
	case container.StateCreated:
		e.discard(c.ID) // left by a server that was killed before it started it
		return dstack.Report{}, nil
	case container.StateExited, container.StateDead, container.StateRemoving:
		return e.lookBack(ctx, c, id)
	default:
		return dstack.Report{}, fmt.Errorf("the container %s is in the unknown state %q", c.ID, c.State)
	}
}

// startedAt asks once and remembers.
func (e *Engine) startedAt(ctx context.Context, id string) time.Time {
	e.mu.Lock()
	at, ok := e.begun[id]
	e.mu.Unlock()
	if ok {
		return at
	}
	seen, err := e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil || seen.Container.State == nil {
		return time.Time{}
	}
	at = when(seen.Container.State.StartedAt)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun[id] = at
	return at
}

func when(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 2000 { // Docker writes year 1 for never
		return time.Time{}
	}
	return t.UTC()
}

// address is where this machine reaches the container's port.
func (e *Engine) address(c container.Summary) string {
	port := c.Labels[labelPort]
	if !e.direct {
		for _, p := range c.Ports {
			if strconv.Itoa(int(p.PrivatePort)) == port && p.PublicPort != 0 {
				return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p.PublicPort)))
			}
		}
		return ""
	}
	if c.NetworkSettings == nil {
		return ""
	}
	for _, n := range c.NetworkSettings.Networks {
		if n != nil && n.IPAddress.IsValid() {
			return net.JoinHostPort(n.IPAddress.String(), port)
		}
	}
	return ""
}

// lookBack reports on a container that has ended, once.
func (e *Engine) lookBack(ctx context.Context, c container.Summary, id dstack.AttemptID) (dstack.Report, error) {
	e.mu.Lock()
	rep, ok := e.ended[c.ID]
	e.mu.Unlock()
	if ok {
		return rep, nil
	}
	rep = dstack.Report{Attempt: id, Outcome: dstack.OutcomeExited}
	seen, err := e.api.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil || seen.Container.State == nil {
		return rep, nil // it goes away this very moment
	}
	state := seen.Container.State
	rep.ExitCode, rep.OOM = state.ExitCode, state.OOMKilled
	rep.StartedAt, rep.EndedAt = when(state.StartedAt), when(state.FinishedAt)
	if state.Error != "" {
		rep.Error = strings.TrimSpace(state.Error)
	}
	rep.LastOut = e.lastWords(ctx, c.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended[c.ID] = rep
	return rep, nil
}
