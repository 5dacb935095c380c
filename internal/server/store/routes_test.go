package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func (h *fixture) routes() route.Table {
	h.t.Helper()
	table, err := h.s.Routes(h.t.Context())
	h.noError(err)
	return table
}

func TestRoutes_TargetsOrReason(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:4321", t0)
		waiting := h.submit("waiting", t0.Add(time.Second))
		ended := h.submit("ended", t0.Add(2*time.Second))
		h.finish(ended.ID, t0.Add(2*time.Second))

		want := []route.Route{
			{
				Run: run.ID, Project: "main", Name: "web", Auth: true, Model: "smol", Prefix: "/v1", Format: "openai", Since: t0.Unix(),
				Ready: []route.Target{{Replica: r.ID, Num: 0, Endpoint: dstack.Endpoint{Address: "127.0.0.1:4321"}}},
			},
			{Run: waiting.ID, Project: "main", Name: "waiting", Auth: true, Model: "smol", Prefix: "/v1", Format: "openai", Since: t0.Unix() + 1, State: "submitted"},
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
			h.instanceStep("local-box", lifecycle.InstanceStep{To: dstack.InstanceUp, Due: t0},
				h.mergeReports(closed), nil, t0)
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
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Reason: "stopped by its user", Terminate: []dstack.ReplicaID{r.ID}}, t0)
		})
		if got != "terminating: stopped by its user" {
			t.Errorf("state %q", got)
		}
	})
}

func TestRoutes_Tokens(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		bob := h.addUser("bob", dstack.RoleUser)
		h.addUser("eve", dstack.RoleUser)
		h.noError(h.s.CreateProject(ctx, dstack.Project{ID: "p2", Name: "Second", Owner: bob.ID, CreatedAt: t0}))
		h.noError(h.s.SetMembers(ctx, h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleUser}, false))
		want := map[string][]string{hash("admin"): {"*"}, hash("bob"): {"main", "second"}, hash("eve"): {}}
		got := h.routes().Tokens
		for _, projects := range got {
			slices.Sort(projects)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		h.noError(h.s.SetToken(ctx, bob.ID, "new"))
		if _, open := h.routes().Tokens[hash("bob")]; open {
			t.Error("a replaced token still opens something")
		}
	})
}

func TestRoutes_ChatTemplates(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		rs := runSpec("tgi")
		rs.Configuration.Model.Format, rs.Configuration.Model.Prefix = "tgi", ""
		rs.Template = &dstack.ChatTemplate{Default: "{{ messages }}", Tokens: map[string]string{"eos_token": "</s>"}, Source: "org/m at 1a2b"}
		run := dstack.Run{ID: "tgi", ProjectID: h.project.ID, User: "admin", Name: "tgi", Spec: rs, SubmittedAt: t0}
		h.noError(h.s.SubmitRun(h.ctx(), run))
		plain := h.submit("plain", t0.Add(time.Second))
		first := h.routes().Routes
		if diff := cmp.Diff(rs.Template, first[0].Template); diff != "" || first[0].Format != "tgi" {
			t.Errorf("the route is %+v: %s", first[0], diff)
		}
		if first[1].Template != nil || first[1].Run != plain.ID {
			t.Errorf("the other route is %+v", first[1])
		}
		if again := h.routes().Routes; again[0].Template != first[0].Template {
			t.Error("the same template is read again")
		}
		h.restart()
		kept := h.details(run.ID).Run.Spec.Template
		if diff := cmp.Diff(rs.Template, kept); diff != "" {
			t.Error(diff)
		}
		rs.Template = &dstack.ChatTemplate{Default: "other", Source: "the configuration"}
		_, err := h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 1, Spec: rs, User: "admin", NeedsRollout: true, Now: t0})
		h.noError(err)
		if got := h.routes().Routes[0].Template; got == nil || got.Default != "other" {
			t.Errorf("after a revision it is %+v", got)
		}
	})
}
