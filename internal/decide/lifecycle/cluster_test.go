package lifecycle_test

import (
	"errors"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// nodeGrace is how long a node is silent before its cluster says so.
const nodeGrace = 8 * time.Second

// addNode adds a node of a cluster.
func (w *world) addNode(cpus, gpus int) *machine {
	m := w.addHost(cpus, gpus)
	m.offer.Backend, m.offer.Key, m.offer.IsManaged = "kubernetes", "kubernetes", true
	return m
}

// isNode reports whether a machine is a node of a cluster.
func (w *world) isNode(m *machine) bool { return m != nil && m.offer.IsManaged }

func (w *world) isAPIDown() bool { return w.now.Before(w.apiDownUntil) }

// stopAPI stops the API server for n ticks. Nodes and pods go on.
func (w *world) stopAPI(n int) {
	w.apiDownUntil = w.now.Add(time.Duration(n) * tick)
	w.apiUpSince = w.apiDownUntil
}

// removeNode deletes a node from its cluster, with its pods.
func (w *world) removeNode(m *machine) {
	m.isRemoved, m.removedAt = true, w.now
	clear(m.engine)
}

// disruptPods ends pods of a node at random, as evictions and preemptions do.
func (w *world) disruptPods(m *machine) {
	if !w.isNode(m) {
		return
	}
	for _, id := range sorted(m.engine) {
		if p := m.engine[id]; !p.ended && w.chance(60, "it is evicted") {
			p.ended, p.code, p.isDisrupted = true, 137, true
		}
	}
}

// deletePods deletes the pods of a node as kubectl does. They end after n ticks, or when they are stopped.
func (w *world) deletePods(m *machine, n int) {
	for _, id := range sorted(m.engine) {
		if p := m.engine[id]; !p.ended && !p.stopping {
			p.isDeleted, p.stopping, p.diesAt = true, true, w.now.Add(time.Duration(n)*tick)
		}
	}
}

// isKnownSilent reports whether the cluster of a node says that it does not answer.
func (w *world) isKnownSilent(m *machine) bool {
	return w.now.Before(m.silentUntil) && w.now.Sub(m.silentAt) >= nodeGrace
}

// listNode returns what the cluster says of a node.
func (w *world) listNode(m *machine) (listed bool, found *dstack.Machine) {
	switch {
	case w.isAPIDown():
		return false, nil
	case m.isRemoved:
		return true, nil
	}
	found = &dstack.Machine{State: dstack.MachineRunning, IsDraining: m.isDraining}
	if w.isKnownSilent(m) {
		found.SilentSince, found.SilentReason = m.silentAt, "NodeStatusUnknown"
	}
	return true, found
}

// syncPods executes commands on the pods of a node: the API server keeps them for a node that is silent.
func (w *world) syncPods(m *machine, seen lifecycle.InstanceFacts) ([]dstack.Report, error) {
	if w.isAPIDown() || w.chance(6, "the API server does not answer once") {
		return nil, errors.New("connection refused")
	}
	reports := w.sync(m, seen)
	begins := m.silentUntil
	if m.isRemoved {
		begins = w.now.Add(1000 * time.Hour) // no node runs them
	}
	for _, p := range m.engine {
		if !p.runsAt.Before(w.now) && p.runsAt.Before(begins) {
			p.runsAt, p.readyAt = begins.Add(tick), begins.Add(3*tick)
		}
	}
	if w.isKnownSilent(m) {
		for i := range reports { // its kubelet reports nothing, and the cluster says that the pods are not ready
			reports[i].Ready = false
		}
	}
	return reports, nil
}

// checkNode fails if a node changes its status without its cluster having said so.
func (w *world) checkNode(m *machine, step lifecycle.InstanceStep) {
	switch {
	case step.To != dstack.InstanceUp && w.isAPIDown():
		w.t.Fatalf("node %s is %s while the API server does not answer: %s", m.id, step.To, step.Reason)
	case step.To == dstack.InstanceAway && (!w.isKnownSilent(m) || w.now.Sub(m.silentAt) < 10*time.Second):
		w.t.Fatalf("node %s is away, and its cluster does not say so: %s", m.id, step.Reason)
	case step.To == dstack.InstanceDeleted && !m.isRemoved:
		w.t.Fatalf("node %s is deleted, and its cluster has it: %s", m.id, step.Reason)
	}
}
