package route

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// RunLimitID returns the ID that stands for all limits of a run, and with which those
// of its callers begin.
func RunLimitID(run dstack.RunID) dstack.LimitID { return dstack.LimitID("run/" + string(run) + "/") }

// KeyLimitID is RunLimitID for a key for callers.
func KeyLimitID(key string) dstack.LimitID { return dstack.LimitID("key/" + key + "/") }

// LimitOwner returns the run or the key that a limit belongs to; neither for a
// malformed ID.
func LimitOwner(id dstack.LimitID) (run dstack.RunID, key dstack.CallerKeyID) {
	kind, rest, _ := strings.Cut(string(id), "/")
	owner, _, _ := strings.Cut(rest, "/")
	switch kind {
	case "run":
		return dstack.RunID(owner), ""
	case "key":
		return "", dstack.CallerKeyID(owner)
	}
	return "", ""
}

// FilterReport returns what a process of one gateway may report: of runs and keys of
// its project alone. One that reports more would change what others do.
func (t Table) FilterReport(id dstack.GatewayID, report dstack.LoadReport) dstack.LoadReport {
	at := slices.IndexFunc(t.Gateways, func(g Gateway) bool { return g.ID == id })
	project := "" // no project has this name
	if at >= 0 {
		project = t.Gateways[at].Project
	}
	runs, keys, foreign := map[dstack.RunID]bool{}, map[dstack.CallerKeyID]bool{}, map[dstack.CallerKeyID]bool{}
	for _, r := range t.Routes {
		if r.Project == project {
			runs[r.Run] = true
		}
	}
	for _, k := range t.Keys {
		keys[dstack.CallerKeyID(k.ID)] = k.Project == project
		foreign[dstack.CallerKeyID(k.ID)] = k.Project != project
	}
	report.Runs = keepIf(report.Runs, func(id dstack.RunID) bool { return runs[id] })
	// The last counts of a key come after it left the table; IDs of keys cannot be guessed.
	isOwn := func(id dstack.CallerKeyID) bool { return !foreign[id] && project != "" }
	report.Keys = keepIf(report.Keys, isOwn)
	if earlier := report.EarlierKeys; earlier != nil {
		report.EarlierKeys = make(map[string]map[dstack.CallerKeyID]dstack.KeyCounts, len(earlier))
		for counter, counts := range earlier {
			report.EarlierKeys[counter] = keepIf(counts, isOwn)
		}
	}
	report.Demands = keepIf(report.Demands, func(id dstack.LimitID) bool {
		run, key := LimitOwner(id)
		return runs[run] || keys[key]
	})
	return report
}

func keepIf[K comparable, V any](all map[K]V, may func(K) bool) map[K]V {
	kept := make(map[K]V, len(all))
	for key, value := range all {
		if may(key) {
			kept[key] = value
		}
	}
	return kept
}
