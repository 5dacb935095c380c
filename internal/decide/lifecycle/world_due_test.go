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

// saveReport saves a report that differs from the saved one or must be saved,
// and makes its replica due.
func (w *world) saveReport(id dstack.ReplicaID, saved *dstack.Report, rep dstack.Report, mustSave bool) {
	if saved != nil && !mustSave {
		was, is := *saved, rep
		was.At, is.At = time.Time{}, time.Time{}
		if reflect.DeepEqual(was, is) {
			return
		}
	}
	rep.At = w.now
	w.reports[rep.Attempt] = rep
	w.markReplicaDue(id)
}
