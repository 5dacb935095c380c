package gateway_test

import (
	"testing"
	"time"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestCountPlacements(t *testing.T) {
	three := 3
	for name, c := range map[string]struct {
		g    dstack.Gateway
		want int
	}{
		"one by default":     {dstack.Gateway{Configuration: spec.Gateway{Backend: spec.BackendSSH}}, 1},
		"as many as written": {dstack.Gateway{Configuration: spec.Gateway{Backend: spec.BackendSSH, LaterGateway: spec.LaterGateway{Replicas: &three}}}, 3},
		"it is deleted":      {dstack.Gateway{IsDeleting: true, Configuration: spec.Gateway{Backend: spec.BackendSSH, LaterGateway: spec.LaterGateway{Replicas: &three}}}, 0},
		"the server serves":  {dstack.Gateway{Configuration: spec.Gateway{Backend: spec.BackendLocal}}, 0},
	} {
		if got := gateway.CountPlacements(c.g); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestPlacementPlan_NextLook(t *testing.T) {
	now := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	serving := dstack.GatewayPlacement{Phase: dstack.GatewayServing, Program: dstack.GatewayProgram{Digest: "a"}}
	leaving, renewed := serving, serving
	leaving.Phase, renewed.Program.Digest = dstack.GatewayLeaving, "b"
	for name, c := range map[string]struct {
		plan gateway.PlacementPlan
		want time.Duration
	}{
		"all serve":           {gateway.PlacementPlan{Steps: []gateway.PlacementStep{{GatewayPlacement: serving}}}, 2 * time.Second},
		"one is to be placed": {gateway.PlacementPlan{New: []gateway.NewPlacement{{Host: "h"}}}, 0},
		"one begins to leave": {gateway.PlacementPlan{Steps: []gateway.PlacementStep{{GatewayPlacement: leaving}}}, 0},
		"another program":     {gateway.PlacementPlan{Steps: []gateway.PlacementStep{{GatewayPlacement: renewed}}}, 0},
		"an action":           {gateway.PlacementPlan{Steps: []gateway.PlacementStep{{GatewayPlacement: serving, Action: gateway.StartContainer}}}, time.Second},
	} {
		if got := c.plan.NextLook([]dstack.GatewayPlacement{serving}, now).Sub(now); got != c.want {
			t.Errorf("%s: after %v", name, got)
		}
	}
}
