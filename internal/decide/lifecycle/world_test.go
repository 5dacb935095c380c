package lifecycle_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// world simulates the environment of runs: the store's rows, an owned machine, remote
// hosts, a backend that rents machines, and a gateway with requests. Time advances only
// in tick. While faults are on, each fault happens with a fixed probability. All
// decisions and all changes of rows are made by the functions of the product.
type world struct {
	t      *rapid.T
	now    time.Time
	length time.Duration // of a tick
	faults bool
	lastID int

	*tenant // whose turn it is
	tenants map[dstack.RunID]*tenant

	replicas  map[dstack.ReplicaID]*dstack.Replica
	instances map[dstack.InstanceID]*dstack.Instance
	reports   map[dstack.AttemptID]dstack.Report // as saved

	drainSequence int64                      // counts the replicas that began to drain
	draining      map[dstack.ReplicaID]int64 // the drain sequence number of each replica that began to drain

	owned   *machine // nil: there is none
	offer   dstack.Offer
	hosts   []*machine // remote ones
	cloud   *cloud     // nil: it rents no machines
	account *account   // another cloud, with zones and spot machines; nil: there is none

	exclusions placement.Exclusions               // of the server's process
	unsaved    map[dstack.InstanceID]lateInstance // steps of instances that are saved a tick late
	points     int                                // how often something was about to be done or saved
	crashAt    int                                // the server is killed at this one of the points; 0: at random

	apiDownUntil time.Time // the API server of the nodes does not answer before
	apiUpSince   time.Time

	attempts   map[dstack.AttemptID]dstack.ReplicaID
	replicaDue map[dstack.ReplicaID]time.Time          // when a replica is looked at; zero: never
	stale      map[dstack.InstanceID]dstack.Allocation // what was allocated a tick ago
	upSince    time.Time                               // when the server was last started
	conflicts  int
}

// tenant is a run in the world.
type tenant struct {
	run       dstack.Run
	revisions []dstack.Revision // the first is number 1
	web       web
	served    map[int]bool // templates of which a replica was ever ready
	load      int          // how many replicas the load asks for

	runDue  time.Time // when the run is looked at by itself; zero: never
	touched bool      // the run is due because something changed
	late    *lateStep
	overdue int // ticks beyond max_duration
}

// addTenant adds a run, whose turn it is then.
func (w *world) addTenant(name string) {
	w.tenant = &tenant{
		run:    dstack.Run{ID: dstack.RunID(name), Name: name, ProjectID: "project", Status: dstack.RunSubmitted, Since: w.now, SubmittedAt: w.now},
		served: map[int]bool{},
		web:    web{table: map[dstack.ReplicaID]bool{}, inFlight: map[dstack.ReplicaID][]time.Time{}},
	}
	w.tenants[w.run.ID] = w.tenant
}

// each calls do with each run in turn.
func (w *world) each(do func()) {
	before := w.tenant
	for _, id := range sorted(w.tenants) {
		w.tenant = w.tenants[id]
		do()
	}
	w.tenant = before
}

// as calls do with the run of a replica.
func (w *world) as(r *dstack.Replica, do func()) {
	before := w.tenant
	w.tenant = w.tenants[r.Run]
	do()
	w.tenant = before
}

// mine returns the replicas of the run whose turn it is, by ID.
func (w *world) mine() (all []*dstack.Replica) {
	for _, id := range sorted(w.replicas) {
		if r := w.replicas[id]; r.Run == w.run.ID {
			all = append(all, r)
		}
	}
	return all
}

const tick = 500 * time.Millisecond

// newWorld makes a world with an owned machine, a backend that rents machines,
// or both. The machine is large enough for four replicas at least, unless they
// share its ports. Sometimes there are remote hosts, too.
func newWorld(t *rapid.T) *world {
	w := emptyWorld(t)
	kind := rapid.SampledFrom([]string{"owned", "cloud", "both"}).Draw(t, "machines")
	if kind != "cloud" {
		w.addOwned(rapid.IntRange(4, 8).Draw(t, "CPUs"), rapid.IntRange(0, 4).Draw(t, "GPUs"), rapid.IntRange(0, 3).Draw(t, "shares ports") == 0)
	}
	if kind != "owned" {
		w.cloud = newCloud(w)
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "hosts") {
		w.addHost(rapid.IntRange(1, 4).Draw(t, "CPUs"), rapid.IntRange(0, 2).Draw(t, "GPUs"))
	}
	return w
}

// addHost adds a remote host.
func (w *world) addHost(cpus, gpus int) *machine {
	name := fmt.Sprintf("host%d", len(w.hosts))
	m := newMachine(dstack.InstanceID(name), w.now, w.now)
	m.offer = dstack.Offer{Backend: "ssh", Key: "ssh", Type: name, OwnedInstance: m.id, IsRemote: true, Hardware: dstack.Hardware{CPUs: cpus},
		Engine: dstack.EngineCapabilities{Name: "docker", Containers: true}}
	for i := range gpus {
		m.offer.Hardware.GPUs = append(m.offer.Hardware.GPUs, dstack.GPU{ID: fmt.Sprintf("GPU-%d", i), Name: "L4", MemoryMiB: 24 << 10})
	}
	w.hosts = append(w.hosts, m)
	return m
}

// host returns the remote host with an ID; nil: there is none.
func (w *world) host(id dstack.InstanceID) *machine {
	for _, m := range w.hosts {
		if m.id == id {
			return m
		}
	}
	return nil
}

// isOwned reports whether a machine is not rented.
func (w *world) isOwned(id dstack.InstanceID) bool {
	return w.owned != nil && id == w.owned.id || w.host(id) != nil
}

func emptyWorld(t *rapid.T) *world {
	start := time.Unix(1e6, 0).UTC()
	w := &world{
		t: t, now: start, upSince: start, length: tick, faults: true,
		tenants:    map[dstack.RunID]*tenant{},
		replicas:   map[dstack.ReplicaID]*dstack.Replica{},
		replicaDue: map[dstack.ReplicaID]time.Time{},
		instances:  map[dstack.InstanceID]*dstack.Instance{},
		reports:    map[dstack.AttemptID]dstack.Report{},
		attempts:   map[dstack.AttemptID]dstack.ReplicaID{},
		draining:   map[dstack.ReplicaID]int64{},
		unsaved:    map[dstack.InstanceID]lateInstance{},
	}
	w.addTenant("run")
	return w
}

func (w *world) addOwned(cpus, gpus int, sharesPorts bool) {
	w.owned = newMachine("mine", w.now, w.now)
	defer func() { w.owned.offer = w.offer }()
	w.offer = dstack.Offer{
		Backend: "local", Key: "local", Type: "box", OwnedInstance: w.owned.id, Hardware: dstack.Hardware{CPUs: cpus},
		Engine: dstack.EngineCapabilities{SharesPorts: sharesPorts},
	}
	for i := range gpus {
		w.offer.Hardware.GPUs = append(w.offer.Hardware.GPUs, dstack.GPU{ID: fmt.Sprintf("GPU-%d", i), Name: "L4", MemoryMiB: 24 << 10})
	}
}

// chance returns true about one time in n, and only while faults are on.
func (w *world) chance(n int, what string) bool {
	return w.faults && rapid.IntRange(0, n-1).Draw(w.t, what) == 0
}

// after returns a random time within the next n ticks.
func (w *world) after(n int, what string) time.Time {
	return w.now.Add(time.Duration(rapid.IntRange(0, n).Draw(w.t, what)) * tick)
}

// crashes reports whether the server is killed before it does what it is about to do. What it knew in memory is lost.
func (w *world) crashes(what string) bool {
	w.points++
	if w.crashAt == 0 {
		return w.chance(20, "crash before "+what)
	}
	if w.points != w.crashAt {
		return false
	}
	w.upSince, w.exclusions = w.now, placement.Exclusions{}
	w.each(func() { w.late, w.touched = nil, true })
	clear(w.unsaved)
	return true
}

func (w *world) newID(kind string) string {
	w.lastID++
	return fmt.Sprintf("%s%04d", kind, w.lastID)
}

func (w *world) tick() {
	w.now = w.now.Add(w.length)
	if w.account != nil {
		w.account.live()
	}
	for _, m := range w.machines() {
		w.live(m)
	}
	w.each(w.serve)
	w.each(w.stepRun)
	w.each(w.markDrained)
	for _, id := range sorted(w.replicas) {
		w.as(w.replicas[id], func() { w.stepReplica(w.replicas[id]) })
	}
	w.stale = w.allocations()
	for _, id := range sorted(w.instances) {
		w.stepInstance(w.instances[id])
	}
	w.check()
}

// stopServer simulates an hour without a server. Machines and attempts continue.
func (w *world) stopServer() {
	w.now = w.now.Add(time.Hour)
	w.upSince, w.exclusions = w.now, placement.Exclusions{}
	w.each(func() { w.late, w.touched = nil, true })
}

// stopFaults ends all faults and repairs the owned machine. A rented machine
// that is silent stays silent.
func (w *world) stopFaults() {
	w.faults = false
	if c := w.account; c != nil {
		c.full, c.quotaUntil, c.throttledUntil, c.deafUntil = map[string]time.Time{}, time.Time{}, time.Time{}, time.Time{}
	}
	for _, m := range w.machines() {
		if m.isDraining = false; w.isOwned(m.id) {
			m.silentUntil = time.Time{}
		} else if w.now.Before(m.silentUntil) {
			m.silentUntil = w.now.Add(1000 * time.Hour)
		}
	}
}

// runUntil advances time until a condition has been true for 30 ticks, and
// reports whether that happened within n ticks.
func (w *world) runUntil(n int, condition func() bool) bool {
	held := 0
	for range n {
		w.tick()
		if held++; !condition() {
			held = 0
		}
		if held == 30 {
			return true
		}
	}
	return false
}

// specOf returns a configuration for this world.
func (w *world) specOf(command string, cpus, gpus int, replicas spec.Replicas) dstack.RunSpec {
	var rs dstack.RunSpec
	c := &rs.Configuration
	c.Port.Container, c.Probes = 80, []spec.Probe{{Type: "http"}}
	c.Commands, c.Replicas = []string{command}, replicas
	c.Resources.CPU, c.Resources.Explicit.CPU = spec.Range[int]{Min: &cpus}, true
	if gpus > 0 {
		c.Resources.GPU = &spec.GPU{Count: spec.Range[int]{Min: &gpus, Max: &gpus}}
	}
	c.TerminationIdleTime = w.run.Spec.Configuration.TerminationIdleTime
	c.MaxDuration = w.run.Spec.Configuration.MaxDuration
	return rs
}

// desired returns how many replicas autoscaling would want.
func (w *world) desired() (n int) {
	for _, g := range w.desiredByGroup() {
		n += g.DesiredReplicas
	}
	if n > 0 || len(w.run.Spec.Configuration.Groups) > 0 {
		return n
	}
	r := w.run.Spec.Configuration.Replicas
	return max(r.Min, min(r.Max, w.load))
}

// allocations returns the claims of unfinished replicas on each instance.
func (w *world) allocations() map[dstack.InstanceID]dstack.Allocation {
	used := map[dstack.InstanceID]dstack.Allocation{}
	for _, id := range sorted(w.replicas) {
		if r := w.replicas[id]; !r.Status.IsFinished() && r.Instance != "" {
			placement.AddGrant(used, "project", placement.Grant{Project: "project", RunName: string(r.Run), Num: r.Num, Instance: r.Instance, Claim: r.Claim})
		}
	}
	return used
}

// ready counts the ready replicas of the present template.
func (w *world) ready() (n int) {
	for _, r := range w.mine() {
		if r.Status == dstack.ReplicaReady && r.TemplateRevision == w.run.TemplateRevision {
			n++
		}
	}
	return n
}

func (w *world) unfinished() (n int) {
	for _, r := range w.mine() {
		if !r.Status.IsFinished() {
			n++
		}
	}
	return n
}

// isEmpty reports whether nothing of any run is left anywhere.
func (w *world) isEmpty() bool {
	left := 0
	w.each(func() { left += w.unfinished() })
	if left > 0 {
		return false
	}
	for _, m := range w.machines() {
		if !w.isOwned(m.id) || len(m.engine) > 0 {
			return false
		}
	}
	for _, i := range w.instances {
		if i.Offer.OwnedInstance == "" && i.Status != dstack.InstanceDeleted {
			return false
		}
	}
	return true
}

// dump returns all rows, for messages.
func (w *world) dump() string {
	text := fmt.Sprintf("\nrun %s (%s), revision %d, template %d, stable %d, ready at %s, desired %d",
		w.run.Status, w.run.Reason, w.run.Revision, w.run.TemplateRevision, w.run.StableRevision, w.run.ReadyAt, w.desired())
	for _, id := range sorted(w.replicas) {
		if r := w.replicas[id]; !r.Status.IsFinished() || r.Status == dstack.ReplicaFailed {
			text += fmt.Sprintf("\n%s replica %s: %s (%s) of template %d on %q", r.Run, id, r.Status, r.Reason, r.TemplateRevision, r.Instance)
		}
	}
	for _, id := range sorted(w.instances) {
		text += fmt.Sprintf("\ninstance %s: %s (%s)", id, w.instances[id].Status, w.instances[id].Reason)
	}
	for _, m := range w.machines() {
		text += fmt.Sprintf("\nmachine %s with %d attempts, silent until %s", m.id, len(m.engine), m.silentUntil)
	}
	return text
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	ks := make([]K, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

func isLeaving(r *dstack.Replica) bool {
	return r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating
}
