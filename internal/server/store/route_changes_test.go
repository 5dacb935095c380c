package store_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// A table that is patched after each change is the one that another server reads as a whole.
func TestRoutes_PatchesAreComplete(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		random := rand.New(rand.NewPCG(1, 2))
		var runs []dstack.RunID
		for i := range 5 {
			run, _ := h.ready(fmt.Sprintf("web-%d", i), fmt.Sprintf("127.0.0.1:%d", 4000+i), t0)
			runs = append(runs, run.ID)
		}
		h.routes()
		other, err := store.Open(t.Context(), h.url, h.sealer) // which knows nothing of the changes here
		h.noError(err)
		defer func() { h.noError(other.Close()) }()
		raw := h.openRaw()
		now, wholeReads := t0, 0
		for i := range 60 {
			now = now.Add(time.Hour)                                          // so that no lease is held
			for _, table := range []string{"runs", "replicas", "instances"} { // all are due
				_, err := raw.Exec("UPDATE " + table + " SET due_at = 0, lease_until = 0 WHERE live")
				h.noError(err)
			}
			run, r := h.reread(runs[random.IntN(len(runs))])
			if run.Status.IsFinished() {
				continue
			}
			kind := random.IntN(5)
			if r.ID == "" && kind < 2 {
				kind = 2
			}
			switch kind {
			case 0:
				to := dstack.ReplicaStarting
				if r.Status == dstack.ReplicaStarting {
					to = dstack.ReplicaReady
				}
				h.replicaStep(r.ID, lifecycle.ReplicaStep{To: to, Due: now}, now)
			case 1:
				h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: now},
					h.mergeReports(running(r.Attempt, fmt.Sprintf("127.0.0.1:%d", 5000+i))), nil, now)
			case 2:
				h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Due: now, Reason: dstack.Reason(fmt.Sprint(i))}, now)
			case 3:
				added := h.submit(fmt.Sprintf("new-%d", i), now)
				runs = append(runs, added.ID)
				wholeReads++
			case 4:
				if i%10 == 0 {
					h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminated}, now)
				}
			}
			patched := h.routes()
			whole, err := other.Routes(t.Context())
			h.noError(err)
			if diff := cmp.Diff(whole, patched); diff != "" {
				t.Fatalf("change %d: %s", i, diff)
			}
		}
		if wholeReads == 0 {
			t.Error("no run was added")
		}
	})
}
