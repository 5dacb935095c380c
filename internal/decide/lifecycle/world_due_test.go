package lifecycle_test

import (
	"reflect"
	"time"

	"dstack/internal/dstack"
)

// markReplicaDue makes a replica due in this tick or the next, as the store does
// when facts that its decisions use have changed. Otherwise a replica is due at
// the Due of its last step; if that is zero, never.
func (w *world) markReplicaDue(id dstack.ReplicaID) {
	if due := w.replicaDue[id]; due.IsZero() || w.now.Before(due) {
		w.replicaDue[id] = w.now
	}
}

func (w *world) isReplicaDue(id dstack.ReplicaID) bool {
	due := w.replicaDue[id]
	return !due.IsZero() && !w.now.Before(due)
}

// markReplicasDue makes every replica due that meets a condition.
func (w *world) markReplicasDue(condition func(dstack.Replica) bool) {
	for id, r := range w.replicas {
		if condition(*r) {
			w.markReplicaDue(id)
		}
	}
}

// markDrained makes the replicas due that the gateway reports as drained.
func (w *world) markDrained() {
	for id := range w.web.load(w).Drained {
		w.markReplicaDue(id)
	}
}

// saveReport stores a report that differs from the last one, and makes its
// replica due. An absent report is stored again if the replica has changed since
// then.
func (w *world) saveReport(r dstack.Replica, rep dstack.Report) {
	old, known := w.reports[r.Attempt]
	if known {
		isStale := rep.State == dstack.AttemptAbsent && r.Since.After(old.At)
		was, is := old, rep
		was.At, is.At = time.Time{}, time.Time{}
		if reflect.DeepEqual(was, is) && !isStale {
			return
		}
	}
	w.reports[r.Attempt] = rep
	w.markReplicaDue(r.ID)
}
