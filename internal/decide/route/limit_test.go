package route_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// A process of a gateway reports for its project alone.
func TestTable_FilterReport(t *testing.T) {
	table := route.Table{
		Gateways: []route.Gateway{{ID: "g", Project: "main"}},
		Routes:   []route.Route{{Run: "1", Project: "main"}, {Run: "2", Project: "team"}},
		Keys:     []route.Key{{ID: "a", Project: "main"}, {ID: "b", Project: "team"}},
	}
	given := dstack.LoadReport{
		Gateway: "process", Runs: map[dstack.RunID]dstack.RunLoad{"1": {Held: 1}, "2": {Held: 2}, "3": {Held: 3}},
		Keys:        map[dstack.CallerKeyID]dstack.KeyCounts{"a": {Requests: 1}, "b": {Requests: 2}, "revoked": {Refused: 3}},
		EarlierKeys: map[string]map[dstack.CallerKeyID]dstack.KeyCounts{"before": {"a": {Requests: 4}, "b": {Requests: 5}}},
		Demands: map[dstack.LimitID]dstack.Demand{route.RunLimitID("1"): 1, route.RunLimitID("2"): 2, route.KeyLimitID("a") + "x": 3,
			route.KeyLimitID("b") + "x": 4, "": 5, "run/": 6, "other/1/": 7},
	}
	want := dstack.LoadReport{
		Gateway: "process", Runs: map[dstack.RunID]dstack.RunLoad{"1": {Held: 1}},
		Keys:        map[dstack.CallerKeyID]dstack.KeyCounts{"a": {Requests: 1}, "revoked": {Refused: 3}},
		EarlierKeys: map[string]map[dstack.CallerKeyID]dstack.KeyCounts{"before": {"a": {Requests: 4}}},
		Demands:     map[dstack.LimitID]dstack.Demand{route.RunLimitID("1"): 1, route.KeyLimitID("a") + "x": 3},
	}
	if diff := cmp.Diff(want, table.FilterReport("g", given)); diff != "" {
		t.Error(diff)
	}
	none := table.FilterReport("unknown", given)
	if len(none.Runs)+len(none.Keys)+len(none.EarlierKeys["before"])+len(none.Demands) != 0 {
		t.Errorf("a gateway that is not in the table: %+v", none)
	}
}
