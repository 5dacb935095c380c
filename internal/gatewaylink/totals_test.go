package gatewaylink

import (
	"testing"

	"dstack/internal/dstack"
)

func TestLoadTotals_CountOverProcesses(t *testing.T) {
	totals := newLoadTotals(savedCounts{Runs: map[dstack.RunID]dstack.RunMetrics{"a": {Requests: 5, TokensOut: 7}}})
	report := totals.add(dstack.LoadReport{Runs: map[dstack.RunID]dstack.RunLoad{"a": {Metrics: dstack.RunMetrics{Requests: 2}}, "b": {Metrics: dstack.RunMetrics{Requests: 1}}}})
	if a := report.Runs["a"].Metrics; a.Requests != 7 || a.TokensOut != 7 || report.Runs["b"].Metrics.Requests != 1 {
		t.Errorf("%+v", report.Runs)
	}
	if got := totals.toSave().Runs["a"].Requests; got != 7 {
		t.Errorf("to save: %d", got)
	}
}

// What no server accepted of keys for callers is told by the next process, once.
func TestLoadTotals_TellKeysOfProcessesWithoutAServer(t *testing.T) {
	type keys = map[dstack.CallerKeyID]dstack.KeyCounts
	dir, key := t.TempDir(), newIdentity().Key
	restart := func(before *loadTotals) *loadTotals {
		t.Helper()
		if err := saveLoads(dir, key, before.toSave()); err != nil {
			t.Fatal(err)
		}
		saved, err := readLoads(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		return newLoadTotals(saved)
	}
	first := newLoadTotals(savedCounts{})
	first.accept(first.add(dstack.LoadReport{Counter: "1", Keys: keys{"told": {Requests: 4}, "ci": {Requests: 1}}}))
	first.add(dstack.LoadReport{Counter: "1", Keys: keys{"told": {Requests: 4}, "ci": {Requests: 3}, "gone": {Refused: 1}}})
	if got := first.add(dstack.LoadReport{Counter: "1", Keys: keys{"ci": {Requests: 3}}}).Keys["gone"]; got.Refused != 1 {
		t.Error("the last counts of a key were not told again")
	}
	second := restart(first)
	second.add(dstack.LoadReport{Counter: "2", Keys: keys{"ci": {Requests: 7}}})
	third := restart(second)
	report := third.add(dstack.LoadReport{Counter: "3"})
	if len(report.EarlierKeys) != 2 || len(report.EarlierKeys["1"]) != 2 || report.EarlierKeys["1"]["ci"].Requests != 3 ||
		report.EarlierKeys["2"]["ci"].Requests != 7 {
		t.Errorf("the third process tells %+v", report.EarlierKeys)
	}
	third.accept(report)
	if again := third.add(dstack.LoadReport{Counter: "3"}); len(again.EarlierKeys) != 0 || len(restart(third).earlier) != 0 {
		t.Errorf("told again: %+v", again.EarlierKeys)
	}
}
