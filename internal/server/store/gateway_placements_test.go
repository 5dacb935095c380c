package store_test

import (
	"encoding/json"
	"testing"
	"time"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// applyGateway applies a gateway with a backend.
func (h *fixture) applyGateway(name, backend string) dstack.Gateway {
	h.t.Helper()
	g := dstack.Gateway{Project: h.project.ID, Name: name, Author: "admin"}
	text, err := json.Marshal(map[string]any{"type": "gateway", "name": name, "backend": backend, "domain": name + ".example.com", "certificate": nil})
	h.noError(err)
	h.noError(json.Unmarshal(text, &g.Configuration))
	applied, err := h.s.ApplyGateway(h.ctx(), g, t0)
	h.noError(err)
	return applied
}

func (h *fixture) gatewayFacts(id dstack.GatewayID) store.GatewayFacts {
	h.t.Helper()
	facts, err := h.s.ReadGatewayFacts(h.ctx(), id)
	h.noError(err)
	return facts
}

// savePlan claims a gateway and saves a plan for it.
func (h *fixture) savePlan(g dstack.Gateway, plan gateway.PlacementPlan, now time.Time) error {
	h.t.Helper()
	facts := h.gatewayFacts(g.ID)
	return h.s.SaveGatewayPlan(h.ctx(), h.claim(store.GatewayWork, string(g.ID), now), facts, plan, now, now)
}

func TestGatewayPlacements(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.applyFleet(h.fleet("a", "b"), t0)
		edge, other := h.applyGateway("edge", "ssh"), h.applyGateway("other", "ssh")
		h.applyGateway("here", "local")
		for range 2 {
			h.noError(h.s.AddGatewayWork(t.Context(), t0))
		}
		if due := h.due(store.GatewayWork, t0); len(due) != 2 {
			t.Fatalf("%d gateways are due: those with backend ssh are two", len(due))
		}
		now := t0.Add(2 * time.Minute)
		onA := gateway.PlacementPlan{New: []gateway.NewPlacement{{Host: h.host("a").ID, HostName: "a"}}, Missing: "it is being started"}
		h.noError(h.savePlan(edge, onA, now))
		facts := h.gatewayFacts(edge.ID)
		if len(facts.Placements) != 1 || len(facts.Hosts) != 2 || facts.Placements[0].HostName != "a" || facts.Placements[0].Phase != dstack.GatewayStarting ||
			facts.Placements[0].Port < 1024 || facts.Gateway.Problem != "it is being started" {
			t.Fatalf("%+v", facts)
		}
		if occupied := h.gatewayFacts(other.ID).Occupied; occupied[h.host("a").ID] != "edge" {
			t.Errorf("occupied: %v", occupied)
		}
		h.wantKind(dstack.Conflict, h.savePlan(other, onA, now)) // its ports are taken
		now = now.Add(2 * time.Minute)

		want := facts.Placements[0]
		want.Program = dstack.GatewayProgram{Digest: "abc", Version: "1.2.3", Owner: "me", OwnerSeenAt: t0}
		want.Phase, want.Reason, want.Since, want.Failures, want.NextAt, want.SilentSince = dstack.GatewayServing, "fine", t0, 2, now, now
		h.noError(h.savePlan(edge, gateway.PlacementPlan{Steps: []gateway.PlacementStep{{GatewayPlacement: want}}}, now))
		if got := h.gatewayFacts(edge.ID).Placements[0]; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if all, err := h.s.ListPlacements(t.Context()); err != nil || len(all) != 1 || all[0] != want {
			t.Errorf("%v, %v", all, err)
		}

		// A host that leaves stays as long as a process of a gateway is on it.
		f := h.fleet("b")
		h.applyFleet(f, now)
		_, err := h.s.RemoveLeftHosts(t.Context())
		h.noError(err)
		h.host("a")

		// The process that joined from there loses its right with the placement.
		token := store.GatewayToken{Hash: "t", Gateway: edge.ID, Host: want.Host, User: "admin", ExpiresAt: now.Add(time.Hour)}
		h.noError(h.s.CreateGatewayToken(t.Context(), token, now))
		_, err = h.s.JoinGateway(t.Context(), "t", "credential", dstack.GatewayProcess{ID: "p1", Name: "a"}, now)
		h.noError(err)
		h.noError(h.s.DeleteGateways(t.Context(), h.project.ID, []string{"edge"}))
		if p, err := h.s.FindGatewayProcess(t.Context(), "credential"); err != nil || p.IsRemoved {
			t.Errorf("%+v, %v", p, err)
		}
		now = now.Add(2 * time.Minute)
		h.noError(h.savePlan(edge, gateway.PlacementPlan{Steps: []gateway.PlacementStep{{GatewayPlacement: want, IsGone: true}}}, now))
		if p, err := h.s.FindGatewayProcess(t.Context(), "credential"); err != nil || !p.IsRemoved {
			t.Errorf("%+v, %v", p, err)
		}
		_, err = h.s.Gateway(t.Context(), edge.ID)
		h.wantKind(dstack.NotFound, err)
		if removed, err := h.s.RemoveLeftHosts(t.Context()); err != nil || !removed {
			t.Errorf("the host that left: %v, %v", removed, err)
		}
		if due := h.due(store.GatewayWork, now.Add(time.Hour)); len(due) != 1 {
			t.Errorf("%d gateways are left", len(due))
		}
	})
}

// Pods of a gateway in a cluster join with one token, are forgotten when their pods are gone, and lose their rights with the placement.
func TestGatewayPlacements_Cluster(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		edge := h.applyGateway("edge", "kubernetes")
		h.noError(h.s.AddGatewayWork(t.Context(), t0))
		host := dstack.NewClusterHost("kubernetes", edge.ID)
		now := t0.Add(2 * time.Minute)
		h.noError(h.savePlan(edge, gateway.PlacementPlan{New: []gateway.NewPlacement{{Host: host, HostName: "kubernetes"}}}, now))
		token := store.GatewayToken{Hash: "shared", Gateway: edge.ID, Host: host, User: "admin", ExpiresAt: now.Add(time.Hour), IsShared: true}
		h.noError(h.s.CreateGatewayToken(t.Context(), token, now))
		for _, name := range []string{"a", "b", "a"} { // the answer to the first was lost
			p, err := h.s.JoinGateway(t.Context(), "shared", "credential "+name, dstack.GatewayProcess{ID: "p-" + name, Name: name}, now)
			if err != nil || p.ID != "p-"+name || p.Host != host {
				t.Errorf("%s joins as %+v: %v", name, p, err)
			}
			h.noError(h.s.SaveGatewayProcess(t.Context(), p, now))
		}
		_, err := h.s.JoinGateway(t.Context(), "shared", "credential c", dstack.GatewayProcess{ID: "p-c"}, now.Add(time.Hour))
		h.wantKind(dstack.Unauthorized, err)

		now = now.Add(2 * time.Minute)
		step := gateway.PlacementStep{GatewayPlacement: h.gatewayFacts(edge.ID).Placements[0], Address: "192.0.2.9"}
		h.noError(h.savePlan(edge, gateway.PlacementPlan{Steps: []gateway.PlacementStep{step}, Gone: []string{"p-a"}}, now))
		if p, err := h.s.FindGatewayProcess(t.Context(), "credential a"); err != nil || !p.IsRemoved {
			t.Errorf("the process of a pod that is gone: %+v, %v", p, err)
		}
		if p, err := h.s.FindGatewayProcess(t.Context(), "credential b"); err != nil || p.IsRemoved || p.Address != "192.0.2.9" {
			t.Errorf("the other: %+v, %v", p, err)
		}
		if got := h.gatewayFacts(edge.ID).Gateway.Processes; len(got) != 1 || got[0].ID != "p-b" {
			t.Errorf("processes %+v", got)
		}
		h.noError(h.s.DeleteGateways(t.Context(), h.project.ID, []string{"edge"}))
		if !h.isDue(store.GatewayWork, string(edge.ID), now) {
			t.Error("a gateway that is deleted is not looked at at once")
		}
		now = now.Add(2 * time.Minute)
		step.IsGone = true
		h.noError(h.savePlan(edge, gateway.PlacementPlan{Steps: []gateway.PlacementStep{step}}, now))
		_, err = h.s.JoinGateway(t.Context(), "shared", "credential d", dstack.GatewayProcess{ID: "p-d"}, t0)
		h.wantKind(dstack.Unauthorized, err)
	})
}
