package store_test

import (
	"fmt"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// batch returns steps that place replicas, each of a different run.
func (h *fixture) batch(claims ...dstack.Claim) (runs []dstack.RunID, saves []store.ReplicaSave) {
	h.t.Helper()
	var ids []dstack.ReplicaID
	for i := range claims {
		run, r := h.replica(fmt.Sprintf("run-%d", i), t0)
		runs, ids = append(runs, run.ID), append(ids, r.ID)
	}
	leases := map[string]store.Lease{}
	for _, l := range h.due(store.Replicas, t0) {
		leases[l.ID] = l
	}
	all, err := h.s.ReplicasFacts(h.ctx(), ids)
	h.noError(err)
	for i, seen := range all {
		h.noError(seen.Err)
		saves = append(saves, store.ReplicaSave{Lease: leases[string(ids[i])], Seen: seen.ReplicaFacts, Step: placed(claims[i])})
	}
	return runs, saves
}

func TestSaveReplicaSteps_OneFailureKeepsNoOtherStep(t *testing.T) {
	port := dstack.Claim{Ports: []int{8000}}
	onBoth(t, func(t *testing.T, h *fixture) {
		runs, saves := h.batch(dstack.Claim{CPUs: 2}, port, dstack.Claim{}, port, dstack.Claim{CPUs: 3}, dstack.Claim{CPUs: 2})
		h.runStep(runs[2], lifecycle.RunStep{To: dstack.RunTerminating, Terminate: []dstack.ReplicaID{saves[2].Seen.Replica.ID}}, t0)
		errs := h.s.SaveReplicaSteps(t.Context(), saves, t0)
		for i, want := range []dstack.ReplicaStatus{
			dstack.ReplicaStarting, dstack.ReplicaStarting,
			dstack.ReplicaTerminating, // changed meanwhile
			dstack.ReplicaWaiting,     // the port is taken by the one before
			dstack.ReplicaWaiting,     // so are the CPUs
			dstack.ReplicaStarting,
		} {
			_, r := h.reread(runs[i])
			if r.Status != want || (r.Attempt != "") != (want == dstack.ReplicaStarting) {
				t.Errorf("%d is %s with attempt %q, not %s", i, r.Status, r.Attempt, want)
			}
			if want == dstack.ReplicaStarting {
				h.noError(errs[i])
			} else {
				h.wantKind(dstack.Conflict, errs[i])
			}
			events, err := h.s.Events(t.Context(), h.project.ID, fmt.Sprintf("run-%d", i), 0, 0)
			h.noError(err)
			last := events[len(events)-1]
			if started := last.To == string(dstack.ReplicaStarting); started != (want == dstack.ReplicaStarting) {
				t.Errorf("%d: the last event is %+v", i, last)
			}
		}
	})
}

// A step whose lease was lost writes nothing, while the other steps of the same
// transaction are saved.
func TestSaveReplicaSteps_ALostLeaseWritesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		gpu := func(id string) dstack.Claim { return dstack.Claim{GPUs: []dstack.GPU{{ID: id}}} }
		runs, saves := h.batch(gpu("GPU-a"), gpu("GPU-b"))
		saves[0].Lease.Owner = "here/2"
		errs := h.s.SaveReplicaSteps(t.Context(), saves, t0)
		h.wantKind(dstack.Conflict, errs[0])
		h.noError(errs[1])
		used, err := h.s.Allocations(t.Context(), h.project.ID)
		h.noError(err)
		if _, r := h.reread(runs[0]); r.Status != dstack.ReplicaWaiting || len(used["local-box"].GPUs) != 1 {
			t.Errorf("it is %s, and %v is held", r.Status, used)
		}
		if _, _, err := h.s.AttemptOf(t.Context(), h.project.ID, "run-0", ""); dstack.KindOf(err) != dstack.NotFound {
			t.Errorf("an attempt was remembered: %v", err)
		}
	})
}

// An unreachable database is tried once, not once for each step.
func TestSaveReplicaSteps_TriesAnUnreachableDatabaseOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		_, saves := h.batch(make([]dstack.Claim, 20)...)
		h.s.SetPatience(100 * time.Millisecond)
		hold, err := h.openRaw().BeginTx(t.Context(), nil)
		h.noError(err)
		_, err = hold.ExecContext(t.Context(), "UPDATE replicas SET reason = reason")
		h.noError(err)
		began := time.Now()
		for _, err := range h.s.SaveReplicaSteps(t.Context(), saves, t0) {
			h.wantKind(dstack.Unavailable, err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s", took)
		}
		h.noError(hold.Rollback())
		h.s.SetPatience(15 * time.Second)
	})
}

// A replica that cannot be read or does not exist does not affect the others.
func TestReplicasFacts_OneErrorDoesNotHideTheOthers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		a, ra := h.replica("a", t0)
		_, rb := h.replica("b", t0)
		_, err := h.openRaw().ExecContext(t.Context(), "UPDATE runs SET spec = 'enc:v1:00000000:AAAA' WHERE id = '"+string(a.ID)+"'")
		h.noError(err)
		all, err := h.s.ReplicasFacts(t.Context(), []dstack.ReplicaID{ra.ID, "nobody", rb.ID})
		h.noError(err)
		if all[0].Err == nil || dstack.KindOf(all[1].Err) != dstack.NotFound || all[2].Err != nil || all[2].Replica.ID != rb.ID {
			t.Errorf("got %v, %v, %v", all[0].Err, all[1].Err, all[2].Err)
		}
	})
}
