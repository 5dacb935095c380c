// Package cloudtest tests that a cloud follows the contract of cloud.Provider and of its optional interfaces. All clouds
// pass the same tests. Account is an account of a cloud in memory, for the tests of other packages; its providers pass
// them, too.
package cloudtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// AccountOptions configures an Account.
type AccountOptions struct {
	Zones   map[string][]string // the zones of each region; nil: DefaultZones
	Types   []catalogue.Row     // what there is to rent; nil: DefaultTypes
	Latency Latency
	Now     func() time.Time // nil: the time of day
	// OnBoot is called once for each new machine, within Launch, and returns its address; nil: an address of
	// 192.0.2.0/24. If it fails, the machine ends as broken.
	OnBoot func(m cloud.Machine, l cloud.Launch) (address string, err error)
	// OnEnd is called once for each machine that has ended, however it did; nil: nothing happens.
	OnEnd func(m cloud.Machine)
	// OnAttach is called once for each attachment of a disk; nil: nothing happens.
	OnAttach func(d cloud.Disk, m cloud.Machine) error
}

// Latency is how long after a request its result can be seen.
type Latency struct {
	Listed   time.Duration // from Launch until ListMachines shows the machine
	Running  time.Duration // from Launch until the machine runs
	Ended    time.Duration // from Terminate until the machine has ended
	Attached time.Duration // from AttachDisk until the disk can be used, and from DetachDisk until it is off
}

// shownAfterEnd is how long ListMachines shows a machine that has ended.
const shownAfterEnd = time.Hour

// Account is an account of a cloud, with latency and faults. It outlives the providers that are opened with it. All
// methods may be called by several goroutines at once.
type Account struct {
	mu       sync.Mutex
	options  AccountOptions
	faults   Faults
	loseNext bool // the answer of the next launch
	calls    Calls
	made     int                      // machines and disks so far
	machines map[string]*machine      // by Ref
	tokens   map[string]*machine      // by region and token
	capacity map[Place]int            // machines that are left; absent: any number
	regions  map[string][]cloud.Quota // quotas
	disks    map[string]*disk         // by Ref
	objects  map[string]*object
}

// Place is a type in a zone, spot or on demand. An empty Zone means all zones of the region.
type Place struct {
	Region, Zone, Type string
	Spot               bool
}

type machine struct {
	cloud.Machine
	installation dstack.Installation
	launch       cloud.Launch
	number       int
	calledEnd    bool
	endingAt     time.Time // zero: it is not being terminated
}

// DefaultZones are two regions.
var DefaultZones = map[string][]string{"north": {"north-a", "north-b"}, "south": {"south-a"}}

// DefaultTypes are a small and a large type and one with a GPU, in both regions.
var DefaultTypes = func() []catalogue.Row {
	var rows []catalogue.Row
	for _, region := range []string{"north", "south"} {
		for _, spot := range []bool{false, true} {
			part := 1.0
			if spot {
				part = 0.25
			}
			rows = append(rows,
				catalogue.Row{Type: "small", Region: region, Price: 0.10 * part, Spot: spot, CPUs: 2, Arch: "x86", MemoryMiB: 8 << 10},
				catalogue.Row{Type: "large", Region: region, Price: 0.40 * part, Spot: spot, CPUs: 8, Arch: "x86", MemoryMiB: 32 << 10},
				catalogue.Row{
					Type: "gpu", Region: region, Price: 0.80 * part, Spot: spot, CPUs: 4, Arch: "x86", MemoryMiB: 16 << 10,
					GPUs: 1, GPUMaker: "nvidia", GPUName: "L4", GPUMemoryMiB: 24 << 10,
				})
		}
	}
	return rows
}()

// NewAccount returns an empty account.
func NewAccount(o AccountOptions) *Account {
	if o.Zones == nil {
		o.Zones = DefaultZones
	}
	if o.Types == nil {
		o.Types = DefaultTypes
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Account{
		options: o, machines: map[string]*machine{}, tokens: map[string]*machine{}, capacity: map[Place]int{},
		regions: map[string][]cloud.Quota{}, disks: map[string]*disk{}, objects: map[string]*object{},
	}
}

// Open returns a provider for one installation.
func (a *Account) Open(installation dstack.Installation) *Provider {
	return &Provider{account: a, installation: installation}
}

// SetLatency replaces the latency.
func (a *Account) SetLatency(l Latency) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.options.Latency = l
}

// SetCapacity says how many more machines a place has. A Place without a Zone limits the whole region.
func (a *Account) SetCapacity(p Place, machines int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.capacity[p] = machines
}

// SetQuotas replaces the quotas of a region. Quotas count virtual CPUs, or GPUs, of machines that have not ended.
func (a *Account) SetQuotas(region string, quotas ...cloud.Quota) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.regions[region] = quotas
}

// Alive returns the machines of all installations that cost money, whether they are listed or not, ordered by Ref.
func (a *Account) Alive() []cloud.Machine {
	a.mu.Lock()
	ended := a.advance()
	var alive []cloud.Machine
	for _, ref := range slices.Sorted(maps.Keys(a.machines)) {
		if m := a.machines[ref]; m.State != cloud.MachineEnded {
			alive = append(alive, m.Machine)
		}
	}
	a.mu.Unlock()
	a.callEnd(ended)
	return alive
}

// Launched returns how many machines were made for each instance so far, ended ones included.
func (a *Account) Launched() map[dstack.InstanceID]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := map[dstack.InstanceID]int{}
	for _, m := range a.machines {
		count[m.Instance]++
	}
	return count
}

// LaunchOf returns the launch of a machine.
func (a *Account) LaunchOf(ref string) cloud.Launch {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.machines[ref]; m != nil {
		return m.launch
	}
	return cloud.Launch{}
}

// End ends a machine at once, as the cloud or the user may. failure is what the cloud says; nil: nothing.
func (a *Account) End(ref string, failure *dstack.MachineFailure) {
	a.mu.Lock()
	var ended []cloud.Machine
	if m := a.machines[ref]; m != nil && m.State != cloud.MachineEnded {
		m.State, m.Failure, m.endingAt, m.Address, m.Private = cloud.MachineEnded, failure, a.options.Now(), "", ""
		ended = a.advance()
	}
	a.mu.Unlock()
	a.callEnd(ended)
}

// Leak makes a running machine of an installation that no launch of a test made: a leftover.
func (a *Account) Leak(installation dstack.Installation, id dstack.InstanceID, p Place) cloud.Machine {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.add(installation, p.Zone, cloud.Launch{Instance: id, Offer: dstack.Offer{Region: p.Region, Zone: p.Zone, Type: p.Type, Spot: p.Spot}})
	m.LaunchedAt = a.options.Now().Add(-2 * time.Hour)
	return m.Machine
}

func (a *Account) add(installation dstack.Installation, zone string, l cloud.Launch) *machine {
	a.made++
	m := &machine{installation: installation, launch: l, number: a.made, Machine: cloud.Machine{
		Instance: l.Instance, Ref: fmt.Sprintf("m-%07d", a.made), Region: l.Offer.Region, Zone: zone, Type: l.Offer.Type,
		Spot: l.Offer.Spot, State: cloud.MachinePending, Private: fmt.Sprintf("10.0.%d.%d", a.made/250, 1+a.made%250),
		LaunchedAt: a.options.Now(),
	}}
	a.machines[m.Ref] = m
	return m
}

// advance moves the machines and disks to the states that they have by now, and returns the machines whose end has to
// be told.
func (a *Account) advance() []cloud.Machine {
	now := a.options.Now()
	var ended []cloud.Machine
	for _, ref := range slices.Sorted(maps.Keys(a.machines)) {
		m := a.machines[ref]
		if m.State == cloud.MachinePending && now.Sub(m.LaunchedAt) >= a.options.Latency.Running {
			m.State = cloud.MachineRunning
		}
		if m.State == cloud.MachineEnding && now.Sub(m.endingAt) >= a.options.Latency.Ended {
			m.State, m.Address, m.Private = cloud.MachineEnded, "", ""
		}
		if m.State == cloud.MachineEnded && !m.calledEnd {
			m.calledEnd = true
			a.releaseDisks(m.Ref)
			ended = append(ended, m.Machine)
		}
	}
	a.advanceDisks(now)
	return ended
}

// callEnd calls the hook for machines that have ended. The caller does not hold the lock.
func (a *Account) callEnd(machines []cloud.Machine) {
	if a.options.OnEnd == nil {
		return
	}
	for _, m := range machines {
		a.options.OnEnd(m)
	}
}

// enter counts a call and applies the faults that concern every call. It returns with the lock, unless it fails.
func (a *Account) enter(ctx context.Context, method string) error {
	a.mu.Lock()
	a.calls.count(method)
	hang := a.faults.HangAll || a.faults.Hang == method
	failure := a.faults.All
	if failure == nil {
		failure = a.faults.Of[method]
	}
	if hang {
		a.mu.Unlock()
		<-ctx.Done()
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the cloud did not answer", Cause: ctx.Err()}
	}
	if err := ctx.Err(); err != nil {
		failure = &dstack.Error{Kind: dstack.Unavailable, Message: "the cloud was not asked", Cause: err}
	}
	if failure != nil {
		a.mu.Unlock()
		return failure
	}
	return nil
}
