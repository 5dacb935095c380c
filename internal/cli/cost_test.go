package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

func TestCost(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	costs := api.Costs{Project: "main", By: "run", Since: time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC), Cost: 13.45, PerHour: 0.8,
		Lines:  []api.CostLine{{Name: "llama31", Cost: 12.34, Hours: 15.4, PerHour: 0.8, Machines: 1}, {Name: "(idle)", Cost: 1.11, Hours: 1.4}},
		Budget: &api.CostBudget{PerDay: 50, Spent: 13.45, Committed: 8, Left: 28.55}}
	f.refusals["get"] = refusal{200, costs}
	u.run("cost").check(t, ExitDone, []string{"RUN", "llama31", "$12.34", "15.4", "$0.80/h", "(idle)", "$1.11", "total", "$13.45"}, nil)
	u.run("cost").check(t, ExitDone, nil, []string{"since 2026-11-29 00:00 UTC", "budget: $50.00 a day; $13.45 spent today, $8.00 for the machines", "$28.55 left"})
	got := api.Costs{}
	if err := json.Unmarshal([]byte(u.run("cost", "--since", "7d", "--by", "user", "-o", "json").out), &got); err != nil || got.Cost != 13.45 || len(got.Lines) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	u.run("cost", "--by", "zone").check(t, ExitInvalid, nil, []string{"--by", "run, user, backend, fleet"})
	u.run("cost", "--since", "yesterday-ish").check(t, ExitInvalid, nil, []string{"--since"})
	f.refusals["get"] = refusal{200, api.Costs{Project: "main", Since: costs.Since}}
	if result := u.run("cost"); !strings.Contains(result.err, "no machine was rented in project main") {
		t.Errorf("%+v", result)
	}
}
