package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

func (h *house) routes() route.Table {
	h.t.Helper()
	table, err := h.s.Routes(h.t.Context())
	h.ok(err)
	return table
}

func TestRoutes_WhereRunsAnswerAndWhyNot(t *testing.T) {
	onBoth(t, func(t *testing.T, h *house) {
		run, r := h.ready("web", "127.0.0.1:4321", t0)
		waiting := h.submit("waiting", t0.Add(time.Second))
		ended := h.submit("ended", t0.Add(2*time.Second))
		h.finish(ended.ID, t0.Add(2*time.Second))

		want := []route.Route{
			{
				Run: run.ID, Project: "main", Name: "web", Auth: true, Model: "smol", Prefix: "/v1", Since: t0.Unix(),
				Ready: []route.Target{{Replica: r.ID, Num: 0, Address: "127.0.0.1:4321"}},
			},
			{Run: waiting.ID, Project: "main", Name: "waiting", Auth: true, Model: "smol", Prefix: "/v1", Since: t0.Unix() + 1, State: "submitted"},
		}
		if diff := cmp.Diff(want, h.routes().Routes); diff != "" {
			t.Error(diff)
		}

		state := func(step func()) dstack.Reason {
			t.Helper()
			step()
			got := h.routes().Routes[0]
			if len(got.Ready) > 0 {
				t.Errorf("it answers at %v", got.Ready)
			}
			return got.State
		}
		closed := running(r.Attempt, "127.0.0.1:4321")
		closed.Ready = false
		got := state(func() { // its engine knows first
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0}, h.heard(closed), nil, t0)
		})
		if got != "ready" {
			t.Errorf("state %q", got)
		}
		got = state(func() {
			h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaStarting, Reason: "its port stopped accepting connections"}, t0)
		})
		if got != "starting: its port stopped accepting connections" {
			t.Errorf("state %q", got)
		}
		got = state(func() {
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Reason: "stopped by its user", Drop: []dstack.ReplicaID{r.ID}}, t0)
		})
		if got != "terminating: stopped by its user" {
			t.Errorf("state %q", got)
		}
	})
}

func TestRoutes_WhoMayCall(t *testing.T) {
	onBoth(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		bob := h.addUser("bob", dstack.RoleUser)
		h.addUser("eve", dstack.RoleUser)
		h.ok(h.s.CreateProject(ctx, dstack.Project{ID: "p2", Name: "Second", Owner: bob.ID, CreatedAt: t0}))
		h.ok(h.s.SetMembers(ctx, h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleUser}))
		want := map[string][]string{hash("admin"): {"*"}, hash("bob"): {"main", "second"}, hash("eve"): {}}
		got := h.routes().Tokens
		for _, projects := range got {
			slices.Sort(projects)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		h.ok(h.s.SetToken(ctx, bob.ID, "new"))
		if _, open := h.routes().Tokens[hash("bob")]; open {
			t.Error("a replaced token still opens something")
		}
	})
}
