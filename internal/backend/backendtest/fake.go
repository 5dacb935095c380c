package backendtest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// FakeOptions configures a Fake.
type FakeOptions struct {
	// Offers is what the backend offers. Offers with an OwnedInstance are machines
	// that exist and run from the start.
	Offers  []dstack.Offer
	Latency Latency
	// NewEngine makes the engine of a machine; nil: engines that run nothing.
	NewEngine func(id dstack.InstanceID) engine.Engine
}

// Latency is how long after a request its result can be seen.
type Latency struct {
	Listed  time.Duration // from Create until Machines lists the machine
	Running time.Duration // from Create until the machine runs
	Gone    time.Duration // from Delete until the machine no longer exists
}

// Faults are the calls that fail, until they are changed.
type Faults struct {
	Offers        error
	Create        error            // of every offer
	CreateOf      map[string]error // by instance type
	CreateAnyway  bool             // a Create that fails makes the machine nevertheless
	List          error            // of machines and of volumes
	Hang          bool             // Machines answers only when its context ends
	Attach        error            // of volumes
	Delete        error
	IgnoreDeletes bool // Delete succeeds, and the machine stays
}

// Calls counts the calls of a Fake, failed calls included.
type Calls struct{ Offers, Create, Machines, Delete int }

// Fake is a backend in memory, with latency and faults. It has volumes. All
// methods may be called by several goroutines at once.
type Fake struct {
	mu       sync.Mutex
	options  FakeOptions
	faults   Faults
	calls    Calls
	created  int // machines created so far
	machines map[dstack.InstanceID]*fakeMachine
	engines  map[dstack.InstanceID]engine.Engine
	volumes  map[dstack.VolumeID]*dstack.Volume
	disks    map[string]int64 // sizes of the disks that the user created, by ExternalID
}

var (
	_ backend.Backend = (*Fake)(nil)
	_ backend.Volumes = (*Fake)(nil)
)

type fakeMachine struct {
	ref       string
	request   backend.CreateRequest
	createdAt time.Time
	deletedAt time.Time // zero: it is not being deleted
	failure   *dstack.MachineFailure
}

// NewFake returns a backend without rented machines.
func NewFake(o FakeOptions) *Fake {
	if o.NewEngine == nil {
		o.NewEngine = func(dstack.InstanceID) engine.Engine { return idleEngine{} }
	}
	return &Fake{
		options: o, machines: map[dstack.InstanceID]*fakeMachine{}, engines: map[dstack.InstanceID]engine.Engine{},
		volumes: map[dstack.VolumeID]*dstack.Volume{}, disks: map[string]int64{},
	}
}

// SetFaults replaces the faults.
func (f *Fake) SetFaults(faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// Calls returns how often each method was called.
func (f *Fake) Calls() Calls {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Created returns how many machines were created so far, deleted ones included.
func (f *Fake) Created() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.created
}

// Existing returns the rented machines that exist, whether they are listed or
// not, by the request that created them.
func (f *Fake) Existing() map[dstack.InstanceID]backend.CreateRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeGone()
	requests := map[dstack.InstanceID]backend.CreateRequest{}
	for id, m := range f.machines {
		requests[id] = m.request
	}
	return requests
}

// Lose removes a machine, as if it had been deleted outside of dstack.
func (f *Fake) Lose(id dstack.InstanceID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(id)
}

// Fail makes a machine fail. It exists until it is deleted.
func (f *Fake) Fail(id dstack.InstanceID, failure dstack.MachineFailure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.machines[id]; m != nil {
		m.failure = &failure
	}
}

// Leak adds a running machine that was not created through this Fake, as an
// earlier server may have left it.
func (f *Fake) Leak(id dstack.InstanceID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(backend.CreateRequest{Instance: id})
	f.machines[id].createdAt = time.Time{}
}

// Offers returns all offers.
func (f *Fake) Offers(context.Context, dstack.Requirements) ([]dstack.Offer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls.Offers++
	if f.faults.Offers != nil {
		return nil, f.faults.Offers
	}
	return slices.Clone(f.options.Offers), nil
}

// Create creates a machine, unless the instance has one.
func (f *Fake) Create(_ context.Context, request backend.CreateRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls.Create++
	f.removeGone()
	if f.isOwned(request.Instance) || f.machines[request.Instance] != nil {
		return nil
	}
	failure := f.faults.Create
	if failure == nil {
		failure = f.faults.CreateOf[request.Offer.Type]
	}
	if failure == nil || f.faults.CreateAnyway {
		f.add(request)
	}
	return failure
}

func (f *Fake) add(request backend.CreateRequest) {
	f.created++
	f.machines[request.Instance] = &fakeMachine{ref: fmt.Sprintf("machine-%d", f.created), request: request, createdAt: time.Now()}
}

// Machines lists the owned machines, and the rented ones that are old enough.
func (f *Fake) Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	f.mu.Lock()
	f.calls.Machines++
	faults := f.faults
	f.mu.Unlock()
	if faults.Hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if faults.List != nil {
		return nil, faults.List
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeGone()
	listed := map[dstack.InstanceID]dstack.Machine{}
	for _, o := range f.options.Offers {
		if o.OwnedInstance != "" {
			listed[o.OwnedInstance] = dstack.Machine{Ref: o.Type, State: dstack.MachineRunning, Hardware: o.Hardware}
		}
	}
	for id, m := range f.machines {
		if time.Since(m.createdAt) >= f.options.Latency.Listed {
			listed[id] = f.describe(m)
		}
	}
	return listed, nil
}

func (f *Fake) describe(m *fakeMachine) dstack.Machine {
	listed := dstack.Machine{
		Ref: m.ref, State: dstack.MachinePending, Hardware: m.request.Offer.Hardware, Price: m.request.Offer.Price,
	}
	switch {
	case !m.deletedAt.IsZero():
		listed.State = dstack.MachineStopping
	case m.failure != nil:
		listed.State, listed.Failure = dstack.MachineFailed, m.failure
	case f.isRunning(m):
		listed.State, listed.Endpoint = dstack.MachineRunning, dstack.Endpoint{Address: m.ref + ":22"}
	}
	return listed
}

func (f *Fake) isRunning(m *fakeMachine) bool {
	return m.failure == nil && m.deletedAt.IsZero() && time.Since(m.createdAt) >= f.options.Latency.Running
}

// Delete begins to delete a machine.
func (f *Fake) Delete(_ context.Context, id dstack.InstanceID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls.Delete++
	if f.faults.Delete != nil || f.faults.IgnoreDeletes {
		return f.faults.Delete
	}
	if m := f.machines[id]; m != nil && m.deletedAt.IsZero() {
		m.deletedAt = time.Now()
	}
	return nil
}

// Engine returns the engine of a running machine.
func (f *Fake) Engine(_ context.Context, id dstack.InstanceID) (engine.Engine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeGone()
	if !f.isOwned(id) {
		switch m := f.machines[id]; {
		case m == nil:
			return nil, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no machine for the instance %s", id)}
		case !f.isRunning(m):
			return nil, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the machine %s does not run", m.ref)}
		}
	}
	if f.engines[id] == nil {
		f.engines[id] = f.options.NewEngine(id)
	}
	return f.engines[id], nil
}

func (f *Fake) isOwned(id dstack.InstanceID) bool {
	return id != "" && slices.ContainsFunc(f.options.Offers, func(o dstack.Offer) bool { return o.OwnedInstance == id })
}

// removeGone removes the machines whose deletion is over.
func (f *Fake) removeGone() {
	for _, id := range slices.Collect(maps.Keys(f.machines)) {
		if m := f.machines[id]; !m.deletedAt.IsZero() && time.Since(m.deletedAt) >= f.options.Latency.Gone {
			f.remove(id)
		}
	}
}

func (f *Fake) remove(id dstack.InstanceID) {
	delete(f.machines, id)
	delete(f.engines, id)
	for _, v := range f.volumes {
		detach(v, id)
	}
}

// idleEngine is an engine that accepts everything and runs nothing.
type idleEngine struct{}

func (idleEngine) Start(context.Context, dstack.AttemptSpec) error             { return nil }
func (idleEngine) Stop(context.Context, dstack.AttemptID, time.Duration) error { return nil }
func (idleEngine) Remove(context.Context, dstack.AttemptID) error              { return nil }
func (idleEngine) ListReports(context.Context) ([]dstack.Report, error)        { return nil, nil }
func (idleEngine) Logs(context.Context, dstack.AttemptID, time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(func(dstack.LogLine, error) bool) {}
}
