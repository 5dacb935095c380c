package server

import (
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// A view has the sum of the latest reports of all gateways.
func TestMetrics_SumOfAllGateways(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	web, idle := h.submitRun("web"), h.submitRun("idle")
	view := func(name string) api.RunView {
		t.Helper()
		var v api.RunView
		h.mustCall(api.PathView, api.RunViewRequest{RunName: name}, &v)
		return v
	}
	report := func(gateway string, run dstack.RunLoad) {
		t.Helper()
		runs := map[dstack.RunID]dstack.RunLoad{web.ID: run}
		if _, err := h.server.Report(t.Context(), dstack.LoadReport{Gateway: gateway, Runs: runs}); err != nil {
			t.Fatal(err)
		}
	}
	if v := view("web"); v.Metrics != nil {
		t.Errorf("without a report: %+v", v.Metrics)
	}
	report("east", dstack.RunLoad{InFlight: 2, Held: 1, Metrics: dstack.RunMetrics{
		Requests: 10, TokensIn: 100, TokensOut: 50, FirstToken: 200 * time.Millisecond, Streams: 8}})
	got := view("web").Metrics
	if got == nil || got.Requests != 10 || got.InFlight != 2 || got.Held != 1 || got.TokensIn != 100 || got.TokensOut != 50 ||
		got.FirstToken == nil || *got.FirstToken != 0.2 {
		t.Fatalf("one gateway: %+v", got)
	}
	report("west", dstack.RunLoad{InFlight: 1, Metrics: dstack.RunMetrics{
		Requests: 5, TokensIn: 1, TokensOut: 2, FirstToken: 3 * time.Second, Streams: 2}})
	got = view("web").Metrics
	if got == nil || got.Requests != 15 || got.InFlight != 3 || got.Held != 1 || got.TokensIn != 101 || got.TokensOut != 52 ||
		got.FirstToken == nil || *got.FirstToken != 0.2 {
		t.Fatalf("two gateways: %+v", got)
	}
	report("west", dstack.RunLoad{})
	if got := view("web").Metrics; got == nil || got.Requests != 10 {
		t.Errorf("a later report replaces the one before: %+v", got)
	}
	if got := view("idle").Metrics; got == nil || *got != (api.RunMetrics{}) {
		t.Errorf("a run that no gateway reports: %+v of %s", got, idle.ID)
	}
}
