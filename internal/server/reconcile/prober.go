package reconcile

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

const (
	firstRetry         = 100 * time.Millisecond // the first interval while an attempt starts; doubles up to the probe's own
	jitterPart         = 10                     // an interval is shortened by a random part, up to one in jitterPart
	targetsTTL         = 5 * time.Minute        // probing of an instance ends when no pass has set its targets for so long
	staleCheckInterval = time.Minute
)

// prober sends the probes of running attempts, with one goroutine per probe.
// Its results reach the store only with the next pass over the instance.
type prober struct {
	onChange  func(context.Context, dstack.InstanceID)
	transport *http.Transport

	mu      sync.Mutex
	ctx     context.Context // of run; nil before it and after it
	wg      sync.WaitGroup
	targets map[dstack.InstanceID]*instanceTargets
	active  map[dstack.AttemptID]*probedAttempt
}

// instanceTargets is what the latest pass over an instance set.
type instanceTargets struct {
	setAt    time.Time
	attempts map[dstack.AttemptID]*probedAttempt
}

// newProber returns a prober that calls onChange, from any goroutine, when Ready
// or ConsecutiveFailures of an attempt of an instance has changed. It sends
// nothing until run.
func newProber(onChange func(context.Context, dstack.InstanceID), dialer *dial.Dialer) *prober {
	return &prober{
		onChange:  onChange,
		transport: newProbeTransport(dialer.DialContext),
		targets:   map[dstack.InstanceID]*instanceTargets{},
		active:    map[dstack.AttemptID]*probedAttempt{},
	}
}

// run allows probing until ctx ends, and returns when every probe has ended.
func (p *prober) run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	clear(p.targets)
	clear(p.active)
	p.mu.Unlock()
	for loop.Sleep(ctx, staleCheckInterval) == nil {
		p.dropStale(time.Now().Add(-targetsTTL))
	}
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.wg.Wait()
	return ctx.Err()
}

// setTargets replaces the attempts that are probed on an instance. Probing of an
// attempt continues if its address and its probes are unchanged; otherwise it
// starts over. Every pass must call setTargets: after targetsTTL without a call
// probing ends, because another server may have the instance.
func (p *prober) setTargets(instance dstack.InstanceID, targets []target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		return
	}
	var before map[dstack.AttemptID]*probedAttempt
	if set := p.targets[instance]; set != nil {
		before = set.attempts
	}
	after := make(map[dstack.AttemptID]*probedAttempt, len(targets))
	for _, t := range targets {
		a := before[t.Attempt]
		switch {
		case after[t.Attempt] != nil || len(t.Probes) == 0:
			continue
		case a != nil && a.hasTarget(t):
		case t.Address == "":
			continue
		default:
			a = p.startAttempt(instance, t)
		}
		after[t.Attempt] = a
	}
	for id, a := range before {
		if after[id] != a {
			p.endAttempt(id, a)
		}
	}
	for id, a := range after {
		p.active[id] = a
	}
	p.targets[instance] = &instanceTargets{setAt: time.Now(), attempts: after}
	if len(after) == 0 {
		delete(p.targets, instance)
	}
}

// statusOf returns the combined result of an attempt's probes; nil: no probe has
// been answered yet, or the attempt is not probed.
func (p *prober) statusOf(attempt dstack.AttemptID) *dstack.ProbeStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.active[attempt]
	if a == nil || a.status == nil {
		return nil
	}
	status := *a.status
	return &status
}

// startAttempt starts the probes of one attempt. The probes of an attempt that
// was ready start at random times within their intervals, so that a server that
// starts does not probe every replica at once.
func (p *prober) startAttempt(instance dstack.InstanceID, t target) *probedAttempt {
	ctx, cancel := context.WithCancel(p.ctx)
	a := newProbedAttempt(t, cancel)
	for i, probe := range a.Probes {
		if a.isDone(i) {
			continue
		}
		delay := time.Duration(0)
		if a.WasReady {
			delay = randomPart(durationOf(probe.Interval))
		}
		p.wg.Go(func() { p.runProbe(ctx, instance, a, i, delay) })
	}
	return a
}

func (p *prober) endAttempt(id dstack.AttemptID, a *probedAttempt) {
	a.cancel()
	if p.active[id] == a {
		delete(p.active, id)
	}
}

// dropStale ends the probing of instances whose targets were last set before a
// time.
func (p *prober) dropStale(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for instance, set := range p.targets {
		if set.setAt.Before(before) {
			for id, a := range set.attempts {
				p.endAttempt(id, a)
			}
			delete(p.targets, instance)
		}
	}
}

// runProbe sends one probe of an attempt again and again, after a delay, until
// ctx ends or the probe is done. A request starts an interval after the end of
// the one before, so a replica that stops answering is found out within one
// interval and one timeout.
func (p *prober) runProbe(ctx context.Context, instance dstack.InstanceID, a *probedAttempt, i int, delay time.Duration) {
	probe := a.Probes[i]
	interval := durationOf(probe.Interval)
	retry := min(firstRetry, interval)
	for loop.Sleep(ctx, delay) == nil && !p.isDone(a, i) {
		failure := sendProbe(ctx, p.transport, a.Endpoint, probe)
		if ctx.Err() != nil {
			return // the request was cancelled, which says nothing about the replica
		}
		delay = interval
		changed, wasReady := p.addResult(a, i, failure)
		if changed {
			p.onChange(ctx, instance)
		}
		if !wasReady {
			delay, retry = retry, min(2*retry, interval)
		}
		delay -= randomPart(delay)
	}
}

func (p *prober) isDone(a *probedAttempt, i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return a.isDone(i)
}

// addResult adds a result of one probe; nil is a success. It reports whether that
// changed the attempt's status, and whether the attempt has been ready.
func (p *prober) addResult(a *probedAttempt, i int, failure *probeFailure) (changed, wasReady bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return a.addResult(i, failure), a.WasReady
}

// durationOf returns a duration of a probe, at least a second.
func durationOf(s spec.Seconds) time.Duration {
	return time.Duration(min(max(s, 1), 1<<31)) * time.Second
}

// randomPart returns a random part of an interval, so that replicas are not all
// probed at once.
func randomPart(interval time.Duration) time.Duration { return rand.N(cmp.Or(interval/jitterPart, 1)) }
