package main

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// machines is a backend of simulated owned machines. Attempts run and are ready as soon as they are started.
type machines struct {
	offers  []dstack.Offer
	listed  map[dstack.InstanceID]dstack.Machine
	engines map[dstack.InstanceID]*simulatedEngine
}

// newMachines returns n machines with the same number of CPUs.
func newMachines(n, cpus int) *machines {
	m := &machines{listed: map[dstack.InstanceID]dstack.Machine{}, engines: map[dstack.InstanceID]*simulatedEngine{}}
	for i := range n {
		name := fmt.Sprintf("box-%02d", i)
		id := dstack.InstanceID(name)
		m.offers = append(m.offers, dstack.Offer{
			Backend: "simulated", Key: "simulated", Region: "here", Type: name, OwnedInstance: id, Host: simulatedHost,
			Hardware: dstack.Hardware{CPUs: cpus, MemoryMiB: 1 << 40, DiskMiB: 1 << 40},
			Engine:   dstack.EngineCapabilities{Name: "simulated", Containers: true},
		})
		m.listed[id] = dstack.Machine{Ref: name, State: dstack.MachineRunning}
		m.engines[id] = &simulatedEngine{ip: fmt.Sprintf("10.0.0.%d", i+1), attempts: map[dstack.AttemptID]simulatedAttempt{}}
	}
	return m
}

func (m *machines) Offers(context.Context, dstack.Requirements) ([]dstack.Offer, error) {
	return m.offers, nil
}
func (m *machines) Create(context.Context, backend.CreateRequest) error { return nil }
func (m *machines) Delete(context.Context, dstack.InstanceID) error     { return nil }
func (m *machines) Machines(context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	return m.listed, nil
}

func (m *machines) Engine(_ context.Context, id dstack.InstanceID) (engine.Engine, error) {
	return m.engines[id], nil
}

// simulatedEngine is an engine that runs nothing; it only remembers its attempts.
type simulatedEngine struct {
	ip       string
	address  string // of all attempts; empty: each has its own
	mu       sync.Mutex
	attempts map[dstack.AttemptID]simulatedAttempt
}

type simulatedAttempt struct {
	at      time.Time
	run     string
	address string
}

func (p *simulatedEngine) Start(_ context.Context, o dstack.AttemptSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, runs := p.attempts[o.Attempt]; !runs {
		address := p.address
		if address == "" {
			address = fmt.Sprintf("%s:%d", p.ip, 20000+len(p.attempts))
		}
		p.attempts[o.Attempt] = simulatedAttempt{time.Now(), o.Run, address}
	}
	return nil
}

func (p *simulatedEngine) Stop(ctx context.Context, id dstack.AttemptID, _ time.Duration) error {
	return p.Remove(ctx, id)
}

func (p *simulatedEngine) Remove(_ context.Context, id dstack.AttemptID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.attempts, id)
	return nil
}

func (p *simulatedEngine) ListReports(context.Context) ([]dstack.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, all := time.Now(), make([]dstack.Report, 0, len(p.attempts))
	for id, run := range p.attempts {
		all = append(all, dstack.Report{Attempt: id, State: dstack.AttemptRunning, Ready: true,
			Endpoint: dstack.Endpoint{Address: run.address}, StartedAt: run.at, At: now})
	}
	return all, nil
}

// Logs yields nothing until ctx ends.
func (p *simulatedEngine) Logs(ctx context.Context, _ dstack.AttemptID, _ time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(func(dstack.LogLine, error) bool) { <-ctx.Done() }
}

// move gives the attempt of a run another address, and reports whether there is one.
func (p *simulatedEngine) move(run, address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, a := range p.attempts {
		if a.run == run {
			a.address = address
			p.attempts[id] = a
			return true
		}
	}
	return false
}
