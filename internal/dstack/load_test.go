package dstack_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dstack/internal/dstack"
)

func TestSumMetrics(t *testing.T) {
	median := func(first time.Duration, streams int) dstack.RunMetrics {
		return dstack.RunMetrics{Requests: 1, TokensIn: 2, TokensOut: 3, FirstToken: first, Streams: streams}
	}
	for _, c := range []struct {
		name    string
		reports []dstack.RunMetrics
		want    dstack.RunMetrics
	}{
		{"no gateway", nil, dstack.RunMetrics{}},
		{"one gateway", []dstack.RunMetrics{median(5, 7)}, median(5, 7)},
		{"no streams", []dstack.RunMetrics{median(0, 0), median(0, 0)}, dstack.RunMetrics{Requests: 2, TokensIn: 4, TokensOut: 6}},
		{"the one with more streams", []dstack.RunMetrics{median(9, 10), median(1, 3)}, dstack.RunMetrics{Requests: 2, TokensIn: 4, TokensOut: 6, FirstToken: 9, Streams: 13}},
		{"the middle of three", []dstack.RunMetrics{median(9, 1), median(5, 1), median(1, 1)}, dstack.RunMetrics{Requests: 3, TokensIn: 6, TokensOut: 9, FirstToken: 5, Streams: 3}},
		{"one without streams", []dstack.RunMetrics{median(0, 0), median(4, 2)}, dstack.RunMetrics{Requests: 2, TokensIn: 4, TokensOut: 6, FirstToken: 4, Streams: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, dstack.SumMetrics(c.reports)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadReport_JSONForm(t *testing.T) {
	report := dstack.LoadReport{Gateway: "east", TableVersion: 7, DrainSequence: 3, Watched: time.Minute, Runs: map[dstack.RunID]dstack.RunLoad{
		"a": {Window: time.Second, Watched: time.Second, Requests: 4, Concurrency: 0.5, InFlight: 1, Held: 2, Replicas: map[dstack.ReplicaID]int{"r": 1},
			Metrics: dstack.RunMetrics{Requests: 9, TokensIn: 10, TokensOut: 20, FirstToken: time.Millisecond, Streams: 5}},
	}}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"gateway":"east","table_version":7,"drain_sequence":3,"watched":60000000000,"runs":{"a":` +
		`{"window":1000000000,"watched":1000000000,"requests":4,"busy":0.5,"in_flight":1,"held":2,"replicas":{"r":1},` +
		`"metrics":{"requests":9,"tokens_in":10,"tokens_out":20,"first_token":1000000,"streams":5}}}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var read dstack.LoadReport
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report, read); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The median over gateways is a value that a gateway reported, whatever their
// order.
func TestSumMetrics_MedianIsReported(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reports := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) dstack.RunMetrics {
			return dstack.RunMetrics{FirstToken: time.Duration(rapid.Int64Range(1, 100).Draw(t, "first")), Streams: rapid.IntRange(1, 64).Draw(t, "streams")}
		}), 1, 5).Draw(t, "reports")
		sum := dstack.SumMetrics(reports)
		below, above := 0, 0
		for _, m := range reports {
			if m.FirstToken < sum.FirstToken {
				below += m.Streams
			}
			if m.FirstToken > sum.FirstToken {
				above += m.Streams
			}
		}
		if 2*below > sum.Streams || 2*above > sum.Streams {
			t.Fatalf("%d streams are faster than the median, %d slower, of %d", below, above, sum.Streams)
		}
	})
}
