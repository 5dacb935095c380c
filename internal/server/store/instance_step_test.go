package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// The times since when a rented instance is empty, silent and not listed are
// stored as lifecycle decided them. Its idle time is that of its run.
func TestInstanceStep_KeepsSinceWhen(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		rs := runSpec("web")
		rs.Configuration.TerminationIdleTime = new(spec.Seconds(90))
		run := h.submitted(rs, t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(0), Due: t0}, t0)
		_, r := h.reread(run.ID)
		step := placed(dstack.Claim{})
		step.Placement.Offer.OwnedInstance, step.Placement.Offer.Host, step.Placement.Offer.Key = "", "", "cloud"
		h.replicaStep(r.ID, step, t0)
		_, r = h.reread(run.ID)
		id := r.Instance
		if i := h.details(run.ID).Instances[id]; i.IdleTime != 90*time.Second {
			t.Errorf("its idle time is %s", i.IdleTime)
		}

		save := func(step lifecycle.InstanceStep, listed bool, fail error, now time.Time) {
			t.Helper()
			h.noError(h.s.MarkDue(h.ctx(), store.Instances, string(id), now))
			l := h.claim(store.Instances, string(id), now)
			seen, err := h.s.InstanceFacts(h.ctx(), id)
			h.noError(err)
			seen.Listed = listed
			want := step.Apply(seen, false, fail, now)
			_, err = h.s.SaveInstanceStep(h.ctx(), l, seen, step, nil, fail, now)
			h.noError(err)
			got, err := h.s.InstanceFacts(h.ctx(), id)
			h.noError(err)
			want.Version = got.Instance.Version
			if diff := cmp.Diff(want, got.Instance); diff != "" {
				t.Error(diff)
			}
		}
		up := lifecycle.InstanceStep{To: dstack.InstanceUp, Action: lifecycle.SyncEngine, AskedAt: t0.Add(sec(1))}
		save(up, true, errors.New("no answer"), t0.Add(sec(1)))
		save(up, true, errors.New("no answer"), t0.Add(sec(2)))
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0.Add(sec(3)))
		save(up, true, nil, t0.Add(sec(4)))
		seen, err := h.s.InstanceFacts(h.ctx(), id)
		h.noError(err)
		i := seen.Instance
		if !i.SilentSince.Equal(t0.Add(sec(1))) || !i.UnlistedSince.Equal(t0.Add(sec(1))) || !i.EmptySince.Equal(t0.Add(sec(4))) || !i.CheckedAt.Equal(t0.Add(sec(4))) {
			t.Errorf("got %+v", i)
		}
	})
}
