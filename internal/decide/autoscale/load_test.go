package autoscale_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
)

func TestSumReports(t *testing.T) {
	now := time.Unix(1e6, 0)
	recent, old := now.Add(-time.Second), now.Add(-autoscale.ReportFreshFor)
	counts := dstack.RunLoad{Watched: time.Minute, Requests: 3, Concurrency: 1.5, InFlight: 2, Held: 1, Replicas: map[dstack.ReplicaID]int{"r": 2}}
	type replicas = map[dstack.ReplicaID]int
	type drained = map[dstack.ReplicaID]bool
	report := func(name string, sequence int64, at time.Time) autoscale.GatewayReport {
		return autoscale.GatewayReport{Gateway: name, DrainSequence: sequence, Watched: 10 * time.Second, At: at}
	}
	tests := []struct {
		name  string
		facts autoscale.LoadFacts
		want  dstack.Load
	}{
		{"no gateway", autoscale.LoadFacts{Draining: map[dstack.ReplicaID]int64{"d": 1}}, dstack.Load{}},
		{"two gateways",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 0, recent), report("b", 0, recent)},
				Counts: map[string]dstack.RunLoad{"a": counts, "b": counts}},
			dstack.Load{Known: true, Watched: time.Minute, Requests: 6, Concurrency: 3, InFlight: 4, Held: 2, Replicas: replicas{"r": 4}}},
		{"a gateway without a request for the run has watched since it began",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 0, recent), report("b", 0, recent)},
				Counts: map[string]dstack.RunLoad{"a": counts}},
			dstack.Load{Known: true, Watched: 10 * time.Second, Requests: 3, Concurrency: 1.5, InFlight: 2, Held: 1, Replicas: replicas{"r": 2}}},
		{"of an old report, only requests in flight to replicas count",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 0, old)}, Counts: map[string]dstack.RunLoad{"a": counts}},
			dstack.Load{Watched: time.Minute, Replicas: replicas{"r": 2}}},
		{"drained once every route table is without the replica",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 2, recent), report("b", 3, recent)},
				Draining: map[dstack.ReplicaID]int64{"none": 0, "first": 1, "second": 2, "third": 3}},
			dstack.Load{Known: true, Watched: 10 * time.Second, Drained: drained{"first": true, "second": true}}},
		{"not with a request in flight",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 2, recent)},
				Counts: map[string]dstack.RunLoad{"a": {Watched: time.Minute, Replicas: replicas{"first": 1}}}, Draining: map[dstack.ReplicaID]int64{"first": 1}},
			dstack.Load{Known: true, Watched: time.Minute, Replicas: replicas{"first": 1}}},
		{"not while a gateway is silent: it may use an old route table",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 2, recent), report("b", 2, old)},
				Draining: map[dstack.ReplicaID]int64{"first": 1}},
			dstack.Load{Known: true, Watched: 10 * time.Second}},
		{"a shorter window of a gateway counts",
			autoscale.LoadFacts{Gateways: []autoscale.GatewayReport{report("a", 0, recent)},
				Counts: map[string]dstack.RunLoad{"a": {Window: 30 * time.Second, Watched: time.Minute}}},
			dstack.Load{Known: true, Window: 30 * time.Second, Watched: 30 * time.Second}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.facts.Window = time.Minute
			want := test.want
			if want.Window == 0 {
				want.Window = time.Minute
			}
			if !want.Known && want.Watched == 0 {
				want.Watched = time.Minute
			}
			if want.Replicas == nil {
				want.Replicas = replicas{}
			}
			if want.Drained == nil {
				want.Drained = drained{}
			}
			if diff := cmp.Diff(want, autoscale.SumReports(test.facts, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
