package lifecycle_test

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
)

// check verifies what must be true after every tick, whichever faults happened.
func (w *world) check() {
	w.checkAttempts()
	w.checkMachines()
	w.checkRoutes()
	w.checkRented()
	w.each(w.checkTenant)
}

// checkTenant verifies what must be true of a run after every tick.
func (w *world) checkTenant() {
	nums := map[[2]int]dstack.ReplicaID{}
	for _, r := range w.mine() {
		if r.Status.IsFinished() || isLeaving(r) {
			continue
		}
		key := [2]int{r.TemplateRevision, r.Num}
		if other, twice := nums[key]; twice {
			w.t.Fatalf("replicas %s and %s are both number %d of template %d", other, r.ID, r.Num, r.TemplateRevision)
		}
		nums[key] = r.ID
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

// checkRoutes fails if a replica gets requests whose host has been silent for long, or if
// two replicas with the same number of one template do.
func (w *world) checkRoutes() {
	w.each(func() {
		nums := map[[2]int]dstack.ReplicaID{}
		for _, id := range sorted(w.routes()) {
			r := w.replicas[id]
			key := [2]int{r.TemplateRevision, r.Num}
			if other, twice := nums[key]; twice {
				w.t.Fatalf("replicas %s and %s get requests as number %d", other, id, r.Num)
			}
			nums[key] = id
			m := w.host(r.Instance)
			if m != nil && w.silence(m) > w.patience() {
				w.t.Fatalf("replica %s gets requests, and its host has been silent for %s: %s", id, w.silence(m), w.dump())
			}
			if m != nil && m.isRemoved && !w.faults && w.silence(m) > 7*time.Second {
				w.t.Fatalf("replica %s gets requests, and its node was removed %s ago: %s", id, w.silence(m), w.dump())
			}
		}
	})
}

// patience is how long a host may be silent while its replicas get requests.
func (w *world) patience() time.Duration {
	if w.faults { // steps are lost
		return 30 * time.Second
	}
	return 12 * time.Second
}

// silence returns how long a machine has been silent, or removed from its cluster, while the server looked.
func (w *world) silence(m *machine) time.Duration {
	since := m.silentAt
	if m.isRemoved {
		since = m.removedAt
	}
	if since.Before(w.upSince) {
		since = w.upSince
	}
	if w.isNode(m) {
		if w.isAPIDown() {
			return 0 // nobody can tell
		}
		if since.Before(w.apiUpSince) {
			since = w.apiUpSince
		}
	}
	if !w.now.Before(m.silentUntil) && !m.isRemoved {
		return 0
	}
	return w.now.Sub(since)
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
		if !w.isOwned(m.id) && w.instances[m.id] == nil {
			w.t.Fatalf("machine %s has no instance", m.id)
		}
		if i := w.instances[m.id]; i != nil && i.Status == dstack.InstanceDeleted && !m.isRemoved {
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
		if !w.isOwned(r.Instance) {
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
		if cpus[r.Instance] += r.Claim.CPUs; w.isOwned(r.Instance) && cpus[r.Instance] > w.machine(r.Instance).offer.Hardware.CPUs {
			w.t.Fatalf("%d CPUs of %d are held", cpus[r.Instance], w.offer.Hardware.CPUs)
		}
	}
}
