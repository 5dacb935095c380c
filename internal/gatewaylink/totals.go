package gatewaylink

import (
	"maps"
	"slices"
	"sync"

	"dstack/internal/dstack"
)

// savedCounts is what the folder keeps of what processes in it counted. It is immutable.
type savedCounts struct {
	Runs map[dstack.RunID]dstack.RunMetrics `json:"runs,omitempty"`
	Keys keyCounters                        `json:"keys,omitempty"` // that no server accepted yet
}

// keyCounters are counts of keys for callers by dstack.LoadReport.Counter.
type keyCounters map[string]map[dstack.CallerKeyID]dstack.KeyCounts

func (c savedCounts) equal(other savedCounts) bool {
	return maps.Equal(c.Runs, other.Runs) && maps.EqualFunc(c.Keys, other.Keys, func(a, b map[dstack.CallerKeyID]dstack.KeyCounts) bool {
		return maps.Equal(a, b)
	})
}

// loadTotals adds the counts of earlier processes in the same folder to those of this one, so that a server that was
// away hears of every request. It is safe for concurrent use.
type loadTotals struct {
	mu      sync.Mutex
	before  map[dstack.RunID]dstack.RunMetrics // of earlier processes
	now     map[dstack.RunID]dstack.RunMetrics // with those of this one
	earlier keyCounters                        // of earlier processes, that no server accepted yet
	counter string                             // of this process
	keys    map[dstack.CallerKeyID]dstack.KeyCounts
	told    map[dstack.CallerKeyID]dstack.KeyCounts // what of keys a server accepted
}

func newLoadTotals(before savedCounts) *loadTotals {
	return &loadTotals{before: before.Runs, now: maps.Clone(before.Runs), earlier: maps.Clone(before.Keys),
		keys: map[dstack.CallerKeyID]dstack.KeyCounts{}, told: map[dstack.CallerKeyID]dstack.KeyCounts{}}
}

// maxEarlierCounters is of how many earlier processes one report tells.
const maxEarlierCounters = 100

// add returns the report with the counts of earlier processes, and with those of keys that a report had which was not accepted.
func (t *loadTotals) add(report dstack.LoadReport) dstack.LoadReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	runs := make(map[dstack.RunID]dstack.RunLoad, len(report.Runs))
	t.now = make(map[dstack.RunID]dstack.RunMetrics, len(report.Runs))
	for id, load := range report.Runs {
		if earlier, ok := t.before[id]; ok {
			load.Metrics.Requests += earlier.Requests
			load.Metrics.TokensIn += earlier.TokensIn
			load.Metrics.TokensOut += earlier.TokensOut
		}
		runs[id] = load
		t.now[id] = dstack.RunMetrics{Requests: load.Metrics.Requests, TokensIn: load.Metrics.TokensIn, TokensOut: load.Metrics.TokensOut}
	}
	report.Runs = runs
	maps.DeleteFunc(t.keys, func(id dstack.CallerKeyID, counts dstack.KeyCounts) bool { return t.told[id] == counts })
	maps.Copy(t.keys, report.Keys)
	maps.DeleteFunc(t.told, func(id dstack.CallerKeyID, _ dstack.KeyCounts) bool {
		_, isCounted := t.keys[id]
		return !isCounted
	})
	t.counter, report.Keys = report.Counter, maps.Clone(t.keys)
	for i, counter := range slices.Sorted(maps.Keys(t.earlier)) {
		if i == 0 {
			report.EarlierKeys = keyCounters{}
		}
		if i < maxEarlierCounters {
			report.EarlierKeys[counter] = t.earlier[counter]
		}
	}
	return report
}

// accept notes that a server has a report that add returned.
func (t *loadTotals) accept(report dstack.LoadReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for counter := range report.EarlierKeys {
		delete(t.earlier, counter)
	}
	maps.Copy(t.told, report.Keys)
}

// toSave returns what the next process in the folder needs to know.
func (t *loadTotals) toSave() savedCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	saved := savedCounts{Runs: t.now, Keys: maps.Clone(t.earlier)}
	untold := maps.Clone(t.keys)
	maps.DeleteFunc(untold, func(id dstack.CallerKeyID, counts dstack.KeyCounts) bool { return t.told[id] == counts })
	if len(untold) == 0 {
		return saved
	}
	if saved.Keys == nil {
		saved.Keys = keyCounters{}
	}
	saved.Keys[t.counter] = untold
	return saved
}
