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

// world simulates the environment of a run: the store's rows, an owned machine,
// a backend that rents machines, and a gateway with requests. Time advances only
// in tick. While faults are on, each fault happens with a fixed probability. All
// decisions and all changes of rows are made by the functions of the product.
type world struct {
	t      *rapid.T
	now    time.Time
	length time.Duration // of a tick
	faults bool
	lastID int

	run       dstack.Run
	revisions []dstack.Revision // the first is number 1
	replicas  map[dstack.ReplicaID]*dstack.Replica
	instances map[dstack.InstanceID]*dstack.Instance
	reports   map[dstack.AttemptID]dstack.Report // as saved

	drainSequence int64                      // counts the replicas that began to drain
	draining      map[dstack.ReplicaID]int64 // the drain sequence number of each replica that began to drain

	owned *machine // nil: there is none
	offer dstack.Offer
	cloud *cloud // nil: nothing can be rented
	web   web

	attempts map[dstack.AttemptID]dstack.ReplicaID
	served   map[int]bool // templates of which a replica was ever ready
	load     int          // how many replicas the load asks for

	runDue     time.Time                      // when the run is looked at by itself; zero: never
	touched    bool                           // the run is due because something changed
	replicaDue map[dstack.ReplicaID]time.Time // when a replica is looked at; zero: never
	late       *lateStep
	stale      map[dstack.InstanceID]dstack.Allocation // what was allocated a tick ago
	upSince    time.Time                               // when the server was last started
	overdue    int                                     // ticks beyond max_duration
	conflicts  int
}

const tick = 500 * time.Millisecond

// newWorld makes a world with an owned machine, a backend that rents machines,
// or both. The machine is large enough for four replicas at least, unless they
// share its ports.
func newWorld(t *rapid.T) *world {
	w := emptyWorld(t)
	kind := rapid.SampledFrom([]string{"owned", "cloud", "both"}).Draw(t, "machines")
	if kind != "cloud" {
		w.addOwned(rapid.IntRange(4, 8).Draw(t, "CPUs"), rapid.IntRange(0, 4).Draw(t, "GPUs"), rapid.IntRange(0, 3).Draw(t, "shares ports") == 0)
	}
	if kind != "owned" {
		w.cloud = newCloud(w)
	}
	return w
}

func emptyWorld(t *rapid.T) *world {
	start := time.Unix(1e6, 0).UTC()
	return &world{
		t: t, now: start, upSince: start, length: tick, faults: true,
		run:        dstack.Run{ID: "run", Name: "run", ProjectID: "project", Status: dstack.RunSubmitted, Since: start, SubmittedAt: start},
		replicas:   map[dstack.ReplicaID]*dstack.Replica{},
		replicaDue: map[dstack.ReplicaID]time.Time{},
		instances:  map[dstack.InstanceID]*dstack.Instance{},
		reports:    map[dstack.AttemptID]dstack.Report{},
		attempts:   map[dstack.AttemptID]dstack.ReplicaID{},
		served:     map[int]bool{},
		draining:   map[dstack.ReplicaID]int64{},
		web:        web{table: map[dstack.ReplicaID]bool{}, inFlight: map[dstack.ReplicaID][]time.Time{}},
	}
}

func (w *world) addOwned(cpus, gpus int, sharesPorts bool) {
	w.owned = newMachine("mine", w.now, w.now)
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

func (w *world) newID(kind string) string {
	w.lastID++
	return fmt.Sprintf("%s%04d", kind, w.lastID)
}

func (w *world) tick() {
	w.now = w.now.Add(w.length)
	for _, m := range w.machines() {
		w.live(m)
	}
	w.serve()
	w.stepRun()
	w.markDrained()
	for _, id := range sorted(w.replicas) {
		w.stepReplica(w.replicas[id])
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
	w.upSince, w.late, w.touched = w.now, nil, true
}

// stopFaults ends all faults and repairs the owned machine. A rented machine
// that is silent stays silent.
func (w *world) stopFaults() {
	w.faults = false
	for _, m := range w.machines() {
		if m == w.owned {
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
			placement.AddGrant(used, "project", placement.Grant{Project: "project", RunName: "run", Num: r.Num, Instance: r.Instance, Claim: r.Claim})
		}
	}
	return used
}

// check verifies what must be true after every tick, whichever faults happened.
func (w *world) check() {
	w.checkAttempts()
	w.checkMachines()
	nums := map[[2]int]dstack.ReplicaID{}
	for _, id := range sorted(w.replicas) {
		r := w.replicas[id]
		if r.Status.IsFinished() {
			continue
		}
		key := [2]int{r.TemplateRevision, r.Num}
		if other, twice := nums[key]; twice {
			w.t.Fatalf("replicas %s and %s are both number %d of template %d", other, id, r.Num, r.TemplateRevision)
		}
		nums[key] = id
	}
	if limit := w.run.Spec.Configuration.MaxDuration; limit != nil && w.run.Status == dstack.RunActive && !w.run.StartedAt.IsZero() {
		if w.now.Sub(w.run.StartedAt) > time.Duration(limit.Seconds)*time.Second {
			w.overdue++
		}
		if w.overdue > 60 {
			w.t.Fatalf("the run goes on beyond its max_duration: %+v", w.run)
		}
	}
}

// checkAttempts fails if two attempts of a replica run at once. Machines that
// are being deleted do not count: they may be unreachable.
func (w *world) checkAttempts() {
	runs := map[dstack.ReplicaID]dstack.AttemptID{}
	for _, m := range w.machines() {
		if i := w.instances[m.id]; i == nil || i.Status == dstack.InstanceDeleting {
			continue
		}
		for _, id := range sorted(m.engine) {
			p := m.engine[id]
			if p.ended || p.refused || w.now.Before(p.runsAt) {
				continue
			}
			if other, twice := runs[w.attempts[id]]; twice {
				w.t.Fatalf("replica %s runs twice: %s and %s", w.attempts[id], other, id)
			}
			runs[w.attempts[id]] = id
		}
	}
}

// checkMachines fails if a machine has outlived its instance, or if replicas
// claim more of it than it has.
func (w *world) checkMachines() {
	for _, m := range w.machines() {
		if m != w.owned && w.instances[m.id] == nil {
			w.t.Fatalf("machine %s has no instance", m.id)
		}
		if i := w.instances[m.id]; i != nil && i.Status == dstack.InstanceDeleted {
			w.t.Fatalf("machine %s has outlived its instance", m.id)
		}
	}
	cpus, holders := map[dstack.InstanceID]int{}, map[string]dstack.ReplicaID{}
	for _, id := range sorted(w.replicas) {
		r := w.replicas[id]
		if r.Status.IsFinished() || r.Instance == "" {
			continue
		}
		var keys []string
		if w.owned == nil || r.Instance != w.owned.id {
			keys = append(keys, "all") // a rented machine is for one replica
		}
		for _, g := range r.Claim.GPUs {
			keys = append(keys, g.ID)
		}
		for _, port := range r.Claim.Ports {
			keys = append(keys, fmt.Sprint(port))
		}
		for _, key := range keys {
			key = string(r.Instance) + " " + key
			if other, taken := holders[key]; taken {
				w.t.Fatalf("replicas %s and %s both hold %s", other, id, key)
			}
			holders[key] = id
		}
		if cpus[r.Instance] += r.Claim.CPUs; w.owned != nil && r.Instance == w.owned.id && cpus[r.Instance] > w.offer.Hardware.CPUs {
			w.t.Fatalf("%d CPUs of %d are held", cpus[r.Instance], w.offer.Hardware.CPUs)
		}
	}
}

// ready counts the ready replicas of the present template.
func (w *world) ready() (n int) {
	for _, r := range w.replicas {
		if r.Status == dstack.ReplicaReady && r.TemplateRevision == w.run.TemplateRevision {
			n++
		}
	}
	return n
}

func (w *world) unfinished() (n int) {
	for _, r := range w.replicas {
		if !r.Status.IsFinished() {
			n++
		}
	}
	return n
}

// isEmpty reports whether nothing of the run is left anywhere.
func (w *world) isEmpty() bool {
	if w.unfinished() > 0 {
		return false
	}
	for _, m := range w.machines() {
		if m != w.owned || len(m.engine) > 0 {
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
			text += fmt.Sprintf("\nreplica %s: %s (%s) of template %d on %q", id, r.Status, r.Reason, r.TemplateRevision, r.Instance)
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
