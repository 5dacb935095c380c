package main

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// machines is a backend of machines of one's own that are not real. What is
// started there runs and answers at once.
type machines struct {
	offers  []dstack.Offer
	listed  map[dstack.InstanceID]dstack.Machine
	engines map[dstack.InstanceID]*pretender
}

// newMachines makes n, each with so many CPUs.
func newMachines(n, cpus int) *machines {
	m := &machines{listed: map[dstack.InstanceID]dstack.Machine{}, engines: map[dstack.InstanceID]*pretender{}}
	for i := range n {
		name := fmt.Sprintf("box-%02d", i)
		id := dstack.InstanceID(name)
		m.offers = append(m.offers, dstack.Offer{
			Backend: "simulated", Key: "simulated", Region: "here", Type: name, OwnedInstance: id, Host: simulatedHost,
			Hardware: dstack.Hardware{CPUs: cpus, MemoryMiB: 1 << 40, DiskMiB: 1 << 40},
			Engine:   dstack.EngineCapabilities{Name: "simulated", Containers: true},
		})
		m.listed[id] = dstack.Machine{Ref: name, Alive: true}
		m.engines[id] = &pretender{ip: fmt.Sprintf("10.0.0.%d", i+1), runs: map[dstack.AttemptID]pretended{}}
	}
	return m
}

func (m *machines) Offers(context.Context) ([]dstack.Offer, error)                { return m.offers, nil }
func (m *machines) Create(context.Context, dstack.InstanceID, dstack.Offer) error { return nil }
func (m *machines) Delete(context.Context, dstack.InstanceID) error               { return nil }
func (m *machines) Machines(context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	return m.listed, nil
}

func (m *machines) Engine(_ context.Context, id dstack.InstanceID) (engine.Engine, error) {
	return m.engines[id], nil
}

// pretender is an engine that runs nothing: it remembers what it was told.
type pretender struct {
	ip   string
	mu   sync.Mutex
	runs map[dstack.AttemptID]pretended
}

type pretended struct {
	at   time.Time
	port int
}

func (p *pretender) Start(_ context.Context, o dstack.AttemptSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, runs := p.runs[o.Attempt]; !runs {
		p.runs[o.Attempt] = pretended{time.Now(), 20000 + len(p.runs)}
	}
	return nil
}

func (p *pretender) Stop(ctx context.Context, id dstack.AttemptID, _ time.Duration) error {
	return p.Remove(ctx, id)
}

func (p *pretender) Remove(_ context.Context, id dstack.AttemptID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.runs, id)
	return nil
}

func (p *pretender) Running(context.Context) ([]dstack.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, all := time.Now(), make([]dstack.Report, 0, len(p.runs))
	for id, run := range p.runs {
		all = append(all, dstack.Report{Attempt: id, State: dstack.AttemptRunning, Ready: true,
			Endpoint: dstack.Endpoint{Address: fmt.Sprintf("%s:%d", p.ip, run.port)}, StartedAt: run.at, At: now})
	}
	return all, nil
}

// Logs follows what never prints anything.
func (p *pretender) Logs(ctx context.Context, _ dstack.AttemptID, _ time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(func(dstack.LogLine, error) bool) { <-ctx.Done() }
}
