package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/job"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// grouped is the specification of a service with groups: name=command.
func grouped(run string, groups ...string) dstack.RunSpec {
	rs := runSpec(run)
	c := &rs.Configuration
	for _, g := range groups {
		name, command, _ := strings.Cut(g, "=")
		c.Groups = append(c.Groups, spec.Group{Name: name, Replicas: spec.Replicas{Min: 1, Max: 1}, Commands: []string{command}, Resources: c.Resources})
	}
	c.Commands, c.Replicas = []string{}, spec.Replicas{Min: len(groups), Max: len(groups)}
	c.Resources.Explicit = spec.Explicit{}
	return rs
}

// groupState is what tests compare of the replicas of a run: number, group, revision, template.
func groupState(replicas []dstack.Replica) (all []string) {
	for _, r := range replicas {
		all = append(all, fmt.Sprintf("%d %s %d/%d", r.Num, r.Group, r.Revision, r.TemplateRevision))
	}
	return all
}

// Replicas run what their group runs. An update of one group leaves those of the other at the
// present template, and so does the rollback.
func TestGroups_UpdateAndRollback(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		first := grouped("web", "a=one", "b=two")
		run := h.submitted(first, t0)
		if got := h.details(run.ID).Run; got.DesiredReplicas != 2 || got.Groups["a"].Desired != 1 || !got.Groups["b"].ScaledAt.Equal(t0) {
			t.Fatalf("it begins with %+v", got.Groups)
		}
		add := lifecycle.RunStep{To: dstack.RunActive, Ready: true, DesiredReplicas: 2, Add: []lifecycle.NewNum{{Num: 0, Group: "a"}, {Num: 1, Group: "b"}}, Due: t0}
		h.runStep(run.ID, add, t0)
		for _, r := range h.details(run.ID).Replicas {
			seen, err := h.s.ReplicaFacts(t.Context(), r.ID)
			h.noError(err)
			want := map[string]string{"a": "one", "b": "two"}[r.Group]
			if got := seen.Run.Spec.Configuration; got.Groups != nil || got.Commands[0] != want {
				t.Errorf("replica %d of group %s runs %v", r.Num, r.Group, got.Commands)
			}
			h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		}
		on, err := h.s.InstanceFacts(t.Context(), "local-box")
		if h.noError(err); len(on.Replicas) != 2 || on.Replicas[0].Run.Spec.Configuration.Commands[0] != "one" || on.Replicas[1].Run.Spec.Configuration.Commands[0] != "two" {
			t.Errorf("on the machine: %+v", on.Replicas)
		}

		second := grouped("web", "a=one", "b=three")
		revised, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: second, User: "bob", NeedsRollout: true,
			Kept: job.UnchangedGroups(first, second), Now: t0})
		if h.noError(err); !revised.Groups["a"].Proven || revised.Groups["b"].Proven {
			t.Errorf("proven: %+v", revised.Groups)
		}
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 2, Add: []lifecycle.NewNum{{Num: 1, Group: "b"}}, Due: t0}, t0.Add(time.Second))
		w := h.details(run.ID)
		if diff := cmp.Diff([]string{"0 a 2/2", "1 b 1/1", "1 b 2/2"}, groupState(w.Replicas)); diff != "" {
			t.Error(diff)
		}
		on, err = h.s.InstanceFacts(t.Context(), "local-box")
		if h.noError(err); on.Replicas[1].Run.Spec.Configuration.Commands[0] != "two" {
			t.Errorf("the outdated replica runs %v", on.Replicas[1].Run.Spec.Configuration.Commands)
		}

		back := lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 2, Rollback: &lifecycle.Rollback{ToRevision: 1, Reason: "it fails"}, Due: t0}
		h.runStep(run.ID, back, t0.Add(2*time.Second))
		w = h.details(run.ID)
		if diff := cmp.Diff([]string{"0 a 1/1", "1 b 1/1", "1 b 2/2"}, groupState(w.Replicas)); diff != "" || len(w.Run.Groups) != 2 {
			t.Errorf("%s: %+v", diff, w.Run.Groups)
		}
		for _, r := range w.Replicas {
			_, err := h.s.ReplicaFacts(t.Context(), r.ID)
			h.noError(err)
		}
	})
}

// A group has its own desired number; events name it.
func TestGroups_CountsAndEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submitted(grouped("web", "a=one", "b=two"), t0)
		l := h.claim(store.Runs, string(run.ID), t0)
		seen, err := h.s.RunFacts(t.Context(), run.ID)
		h.noError(err)
		seen.Groups = []lifecycle.GroupScale{{Group: "a", DesiredReplicas: 1}, {Group: "b", DesiredReplicas: 3, Reason: "the load asks for it"}}
		step := lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 4, DesiredByGroup: map[string]int{"a": 1, "b": 3},
			Add: []lifecycle.NewNum{{Num: 0, Group: "a"}, {Num: 1, Group: "b"}, {Num: 2, Group: "b"}}}
		later := t0.Add(time.Minute)
		h.noError(h.s.SaveRunStep(t.Context(), l, seen, step, later))
		got := h.details(run.ID).Run
		if got.DesiredReplicas != 4 || got.Groups["b"].Desired != 3 || !got.Groups["b"].ScaledAt.Equal(later) || !got.Groups["a"].ScaledAt.Equal(t0) {
			t.Errorf("got %d, %+v", got.DesiredReplicas, got.Groups)
		}
		events, err := h.s.Events(t.Context(), h.project.ID, "web", 0, 0)
		h.noError(err)
		var all []string
		for _, e := range events {
			all = append(all, fmt.Sprintf("%s[%s] %s-%s %s", e.Kind, e.Group, e.From, e.To, e.Message))
		}
		want := []string{"applied[] - revision 1", "scaled[b] 1-3 the load asks for it", "replica[a] -waiting replica 0 was created",
			"replica[b] -waiting 2 replicas were created, number 1 to 2", "run[] submitted-active "}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Error(diff)
		}
		// A service without groups drops the numbers of groups.
		plain, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: runSpec("web"), User: "bob", NeedsRollout: true, Now: t0})
		if h.noError(err); plain.Groups != nil || plain.DesiredReplicas != 1 {
			t.Errorf("got %+v", plain)
		}
	})
}

// A replica whose revision has no such group is not started as something else.
func TestGroups_UnknownGroupIsAnError(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Add: []lifecycle.NewNum{{Num: 0, Group: "x"}}, Due: t0}, t0)
		_, r := h.reread(run.ID)
		_, err := h.s.ReplicaFacts(t.Context(), r.ID)
		h.wantKind(dstack.NotFound, err)
	})
}
