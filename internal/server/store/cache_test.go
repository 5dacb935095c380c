package store_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
)

// Cached facts equal the facts of a newly opened store, whichever store made the
// last change.
func TestCaches_MatchTheDatabase(t *testing.T) {
	later := t0.Add(time.Minute)
	up := lifecycle.InstanceStep{To: dstack.InstanceUp, Due: later}
	for _, c := range []struct {
		name string
		act  func(h *fixture, run dstack.Run, r dstack.Replica)
	}{
		{"nothing changes", func(*fixture, dstack.Run, dstack.Replica) {}},
		{"an equal report is saved", func(h *fixture, _ dstack.Run, r dstack.Replica) {
			h.instanceStep("local-box", up, h.mergeReports(running(r.Attempt, "127.0.0.1:1")), nil, later)
		}},
		{"a different report is saved", func(h *fixture, _ dstack.Run, r dstack.Replica) {
			h.instanceStep("local-box", up, h.mergeReports(running(r.Attempt, "127.0.0.1:2")), nil, later)
		}},
		{"its report is missing", func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			h.instanceStep("local-box", up, []dstack.Report{}, nil, later)
		}},
		{"its engine does not answer", func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			h.instanceStep("local-box", up, nil, errors.New("no route to host"), later)
		}},
		{"it drains", func(h *fixture, run dstack.Run, r dstack.Replica) {
			h.noError(h.s.MarkDue(h.ctx(), store.Runs, string(run.ID), t0))
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Drain: []dstack.ReplicaID{r.ID}, DrainTimeout: time.Minute}, later)
		}},
		{"it drains, terminates, and then loses its grace period", func(h *fixture, run dstack.Run, r dstack.Replica) {
			one := []dstack.ReplicaID{r.ID}
			for _, step := range []lifecycle.RunStep{{Drain: one, DrainTimeout: time.Minute}, {Terminate: one, Graceful: true}, {Terminate: one}} {
				step.To = dstack.RunTerminating
				h.noError(h.s.MarkDue(h.ctx(), store.Runs, string(run.ID), t0))
				h.runStep(run.ID, step, later)
				h.facts()
			}
		}},
		{"it crashes and starts again", func(h *fixture, _ dstack.Run, r dstack.Replica) {
			h.noError(h.s.MarkDue(h.ctx(), store.Replicas, string(r.ID), t0))
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaRestarting, Due: later}, later)
			h.facts()
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true}, later)
		}},
		{"its machine is lost", func(h *fixture, _ dstack.Run, r dstack.Replica) {
			h.noError(h.s.MarkDue(h.ctx(), store.Replicas, string(r.ID), t0))
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaWaiting, Due: later}, later)
		}},
		{"another is placed beside it", func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			_, b := h.replica("other", t0)
			h.replicaStep(b.ID, placed(dstack.Claim{}), t0)
		}},
		{"its run is changed in place", func(h *fixture, run dstack.Run, _ dstack.Replica) {
			rs := run.Spec
			rs.Configuration.Auth = !rs.Configuration.Auth
			_, err := h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 1, Spec: rs, User: "admin", Now: later})
			h.noError(err)
		}},
		{"its run is rolled out, and rolled back", func(h *fixture, run dstack.Run, _ dstack.Replica) {
			_, err := h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 1, Spec: run.Spec, NeedsRollout: true, User: "admin", Now: later})
			h.noError(err)
			h.facts()
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Rollback: &lifecycle.Rollback{ToRevision: 1, Reason: "it fails"}}, later)
		}},
		{"a user gets a new token", func(h *fixture, _ dstack.Run, _ dstack.Replica) {
			h.noError(h.s.SetToken(h.ctx(), h.user.ID, hash("new")))
		}},
		{"a run is submitted", func(h *fixture, _ dstack.Run, _ dstack.Replica) { h.submit("third", t0) }},
	} {
		t.Run(c.name+" by this server", func(t *testing.T) {
			h := newFixture(t, storetest.NewSQLite(t))
			h.checkCached(c.act, false)
		})
		t.Run(c.name+" by another", func(t *testing.T) {
			onBoth(t, func(_ *testing.T, h *fixture) { h.checkCached(c.act, true) })
		})
	}
}

// checkCached compares the facts of a store after act, called on it or on another
// store of the same database, with the facts of a new store.
func (h *fixture) checkCached(act func(*fixture, dstack.Run, dstack.Replica), byAnother bool) {
	h.t.Helper()
	run, r := h.ready("web", "127.0.0.1:1", t0)
	h.facts()
	kept := h.s
	if byAnother {
		h.open()
	}
	act(h, run, r)
	if byAnother {
		h.noError(h.s.Close())
	}
	h.s = kept
	got := h.facts()
	h.restart()
	if diff := cmp.Diff(h.facts(), got); diff != "" {
		h.t.Error(diff)
	}
}

// facts returns everything that passes and gateways read.
func (h *fixture) facts() map[string]any {
	h.t.Helper()
	seen, err := h.s.InstanceFacts(h.ctx(), "local-box")
	h.noError(err)
	table, err := h.s.Routes(h.ctx())
	h.noError(err)
	all := map[string]any{"instance": seen.Instance, "reports": seen.Reports, "routes": table}
	for _, p := range seen.Replicas {
		r := p.Replica
		all[string(r.ID)] = []any{r.Status, r.Since, r.Attempt, r.AttemptAt, r.AttemptNum, r.Graceful, r.ReadyAt, r.Claim, r.Revision, p.Run.Spec}
	}
	return all
}

// While nothing changes, the same table is returned without another read.
func TestRoutes_AreCachedUntilSomethingChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		_, r := h.ready("web", "127.0.0.1:1", t0)
		first, err := h.s.Routes(t.Context())
		h.noError(err)
		h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp},
			h.mergeReports(running(r.Attempt, "127.0.0.1:1")), nil, t0.Add(time.Minute))
		again, err := h.s.Routes(t.Context())
		h.noError(err)
		if &first.Routes[0] != &again.Routes[0] {
			t.Error("it was read again")
		}
	})
}

// A report that differs in anything but At is a new one.
func TestSameReport_ComparesEveryField(t *testing.T) {
	one := dstack.Report{Attempt: "a", State: dstack.AttemptRunning, Probes: &dstack.ProbeStatus{}}
	if !store.SameReport(one, one) {
		t.Fatal("it differs from itself")
	}
	differs := func(name string, field func(*dstack.Report) reflect.Value) {
		other := one
		other.Probes = &dstack.ProbeStatus{}
		v := field(&other)
		switch v.Kind() {
		case reflect.String:
			v.SetString("other")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int:
			v.SetInt(7)
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Pointer:
			v.SetZero()
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[dstack.Endpoint]() {
				v.Set(reflect.ValueOf(dstack.Endpoint{Host: "other"}))
				break
			}
			v.Set(reflect.ValueOf(t0))
		default:
			v.Set(reflect.ValueOf(t0))
		}
		if same := store.SameReport(one, other) || store.SameReport(other, one); same != (name == "At" || name == "Attempt") {
			t.Errorf("%s: the same: %v", name, same)
		}
	}
	for i, of := 0, reflect.TypeFor[dstack.Report](); i < of.NumField(); i++ {
		differs(of.Field(i).Name, func(r *dstack.Report) reflect.Value { return reflect.ValueOf(r).Elem().Field(i) })
	}
	for i, of := 0, reflect.TypeFor[dstack.ProbeStatus](); i < of.NumField(); i++ {
		differs("Probed."+of.Field(i).Name, func(r *dstack.Report) reflect.Value { return reflect.ValueOf(r.Probes).Elem().Field(i) })
	}
}
