package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// groupedRun is a run at revision 2, updated from 1, whose groups are name=number.
func groupedRun(groups ...string) (dstack.Run, []lifecycle.GroupScale) {
	run := updating(0)
	run.Groups = map[string]dstack.GroupCount{}
	var scale []lifecycle.GroupScale
	for _, g := range groups {
		var n int
		name, count, _ := strings.Cut(g, "=")
		_, _ = fmt.Sscan(count, &n)
		run.Spec.Configuration.Groups = append(run.Spec.Configuration.Groups, spec.Group{Name: name, Replicas: fixed(n)})
		run.Groups[name] = dstack.GroupCount{Desired: n, ScaledAt: now.Add(-time.Hour)}
		run.DesiredReplicas += n
		scale = append(scale, lifecycle.GroupScale{Group: name, DesiredReplicas: n, Reason: dstack.Reason("as " + name + " needs")})
	}
	run.Spec.Configuration.Replicas = fixed(run.DesiredReplicas)
	return run, scale
}

// in returns a replica of a group.
func in(group string, r dstack.Replica) dstack.Replica {
	r.ID, r.Group = dstack.ReplicaID(group)+"/"+r.ID, group
	return r
}

func TestRun_Groups(t *testing.T) {
	ready, starting, waiting, failed := dstack.ReplicaReady, dstack.ReplicaStarting, dstack.ReplicaWaiting, dstack.ReplicaFailed
	blocked := func(r dstack.Replica) dstack.Replica { r.Blocked = true; return r }
	type all = []dstack.Replica
	type add = []lifecycle.NewNum
	for _, c := range []struct {
		name     string
		groups   string
		replicas all
		add      add
		leave    string // those that drain and terminate, by ID
		why      string // they do
		ready    bool
		back     bool
		again    bool // due at once
	}{
		{name: "each group gets its replicas, with numbers of their own", groups: "a=2 b=1", add: add{{0, "a"}, {1, "a"}, {2, "b"}}},
		{name: "a group with too few is filled, the other is left alone", groups: "a=1 b=2", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 2, ready))},
			add: add{{2, "b"}}, ready: true},
		{name: "one group shrinks for its own reason", groups: "a=1 b=1", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 2, ready)), in("b", rep(2, 2, ready))},
			leave: "b/c-2", why: "scaled down: as b needs", ready: true},
		{name: "two groups shrink one after the other", groups: "a=0 b=0", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 2, ready))},
			leave: "a/a-2", why: "scaled down: as a needs", ready: true, again: true},
		{name: "an outdated group is updated, the other is left alone", groups: "a=1 b=1", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 1, ready))},
			add: add{{1, "b"}}},
		{name: "the number of another group's outdated replica is not given", groups: "a=2 b=1", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 1, ready))},
			add: add{{2, "a"}, {1, "b"}}},
		{name: "a ready replica of one group releases none of the other", groups: "a=1 b=1", replicas: all{in("a", rep(0, 1, ready)), in("b", rep(1, 1, ready)), in("a", rep(0, 2, ready))},
			add: add{{1, "b"}}, leave: "a/a-1", why: "replaced by revision 2"},
		{name: "has taken over once all groups are ready", groups: "a=1 b=1", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 2, ready))}, ready: true},
		{name: "not while one of them starts", groups: "a=1 b=1", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 2, starting))}},
		{name: "a group without replicas does not matter", groups: "a=1 b=0", replicas: all{in("a", rep(0, 2, ready))}, ready: true},
		{name: "is rolled back when one group fails", groups: "a=1 b=1", replicas: all{in("a", rep(0, 2, ready)), in("b", rep(1, 2, failed)), in("b", rep(1, 1, ready))}, back: true},
		{name: "a removed group stays until the others are ready", groups: "a=1", replicas: all{in("gone", rep(0, 1, ready))}, add: add{{1, "a"}}},
		{name: "and leaves then", groups: "a=1", replicas: all{in("gone", rep(0, 1, ready)), in("a", rep(1, 2, ready))}, leave: "gone/a-1", why: "replaced by revision 2", ready: true},
		{name: "as many as are ready elsewhere", groups: "a=2", replicas: all{in("gone", rep(0, 1, ready)), in("gone", rep(1, 1, ready)), in("a", rep(2, 2, ready)), in("a", rep(3, 2, starting))},
			leave: "gone/b-1", why: "replaced by revision 2"},
		{name: "and where it holds the place of another group", groups: "a=1", replicas: all{in("gone", rep(0, 1, ready)), blocked(in("a", rep(1, 2, waiting)))},
			leave: "gone/a-1", why: "replaced by revision 2"},
		{name: "the only group of a service without groups is called 0", groups: "0=1 b=1", replicas: all{rep(0, 2, ready)}, add: add{{1, "b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run, scale := groupedRun(strings.Fields(c.groups)...)
			step := decideRun(t, lifecycle.RunFacts{Run: run, Replicas: c.replicas, DesiredReplicas: run.DesiredReplicas, Groups: scale})
			var leave []string
			for _, id := range append(step.Terminate, step.Drain...) {
				leave = append(leave, string(id))
			}
			if !slices.Equal(step.Add, c.add) || strings.Join(leave, " ") != c.leave || string(step.StopReason) != c.why || step.Ready != c.ready ||
				(step.Rollback != nil) != c.back || (step.Due.Equal(now) && !c.back) != c.again {
				t.Errorf("got %+v", step)
			}
		})
	}
}

// A replica of a group that an update does not change does not fail the update.
func TestReplica_OfAProvenGroupIsRestartedDuringAnUpdate(t *testing.T) {
	for _, proven := range []bool{true, false} {
		run, _ := groupedRun("a=1")
		run.Groups["a"] = dstack.GroupCount{Desired: 1, Proven: proven}
		r := in("a", rep(0, 2, dstack.ReplicaReady))
		r.Crashes, r.FirstCrashAt = 5, now.Add(-time.Minute)
		exited := &dstack.Report{State: dstack.AttemptExited, ExitCode: 1, StartedAt: now.Add(-time.Second), EndedAt: now}
		step, err := lifecycle.DecideReplica(lifecycle.ReplicaFacts{Replica: r, Run: run, Report: exited, Instance: &dstack.Instance{Status: dstack.InstanceUp}}, now)
		if want := map[bool]dstack.ReplicaStatus{true: dstack.ReplicaRestarting, false: dstack.ReplicaFailed}[proven]; err != nil || step.To != want {
			t.Errorf("proven %v: %s, %v", proven, step.To, err)
		}
	}
}

// Revisions keep the numbers of groups, within their ranges.
func TestRevise_GroupsKeepTheirNumbers(t *testing.T) {
	run, _ := groupedRun("a=2", "b=3")
	run.ReadyAt = now
	next := run.Spec
	next.Configuration.Groups = []spec.Group{{Name: "b", Replicas: spec.Replicas{Min: 0, Max: 2}}, {Name: "c", Replicas: spec.Replicas{Min: 1, Max: 4}}}
	got, _, err := lifecycle.Revise(lifecycle.ReviseFacts{Run: run}, lifecycle.NewRevision{Present: run.Revision, Spec: next, NeedsRollout: true, Kept: []string{"b"}}, now)
	if err != nil || len(got.Groups) != 2 || got.Groups["b"] != (dstack.GroupCount{Desired: 2, ScaledAt: now, Proven: true}) ||
		got.Groups["c"] != (dstack.GroupCount{Desired: 1, ScaledAt: now}) || got.DesiredReplicas != 3 {
		t.Errorf("got %+v, %d, %v", got.Groups, got.DesiredReplicas, err)
	}
	if run.Groups["b"].Desired != 3 {
		t.Error("the run that was revised has changed")
	}
	plain := aRun(2).Spec
	got, _, err = lifecycle.Revise(lifecycle.ReviseFacts{Run: run}, lifecycle.NewRevision{Present: run.Revision, Spec: plain, NeedsRollout: true}, now)
	if err != nil || got.Groups != nil || got.DesiredReplicas != plain.Configuration.Replicas.Min {
		t.Errorf("got %+v, %d, %v", got.Groups, got.DesiredReplicas, err)
	}
	ungrouped := aRun(2)
	ungrouped.DesiredReplicas = 2
	next.Configuration.Groups = []spec.Group{{Name: "0", Replicas: spec.Replicas{Min: 1, Max: 4}}, {Name: "x", Replicas: fixed(1)}}
	got, _, err = lifecycle.Revise(lifecycle.ReviseFacts{Run: ungrouped}, lifecycle.NewRevision{Present: ungrouped.Revision, Spec: next}, now)
	if err != nil || got.Groups["0"].Desired != 2 || got.DesiredReplicas != 3 {
		t.Errorf("got %+v, %v", got.Groups, err)
	}
}
