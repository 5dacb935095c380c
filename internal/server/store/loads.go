package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/autoscale"
	"dstack/internal/dstack"
)

const (
	reportKeptFor = time.Minute // how long a gateway's report is kept; it counts for autoscale.ReportFreshFor
	defaultWindow = time.Minute // over which load is averaged where the configuration does not say
)

// windowOf returns the time over which a run's load is averaged.
func windowOf(rs dstack.RunSpec) time.Duration {
	if w := rulesOf(rs.Configuration).Window; w > 0 {
		return w
	}
	return defaultWindow
}

// findLoads sums the gateways' reports of runs, each with its window.
func findLoads(ctx context.Context, db bun.IDB, windows map[dstack.RunID]time.Duration, now time.Time) (map[dstack.RunID]dstack.Load, error) {
	loads := make(map[dstack.RunID]dstack.Load, len(windows))
	if len(windows) == 0 {
		return loads, nil
	}
	gateways, err := findGateways(ctx, db, now)
	if err != nil || len(gateways) == 0 {
		return loads, err
	}
	ids := toStrings(slices.Sorted(maps.Keys(windows))) // sorted, so that the same runs give the same query
	counts, err := findCounts(ctx, db, ids)
	if err != nil {
		return nil, err
	}
	draining, err := findDraining(ctx, db, ids)
	if err != nil {
		return nil, err
	}
	for id, window := range windows {
		loads[id] = autoscale.SumReports(autoscale.LoadFacts{
			Gateways: gateways, Counts: counts[id], Draining: draining[id], Window: window,
		}, now)
	}
	return loads, nil
}

// findGateways reads the gateways that reported within reportKeptFor.
func findGateways(ctx context.Context, db bun.IDB, now time.Time) ([]autoscale.GatewayReport, error) {
	var rows []struct {
		Name                string
		Drains, Watched, At int64
	}
	// The times are compared here: a query with them would be another one every time, and would be prepared again.
	err := db.NewRaw("SELECT name, drains, watched, at FROM gateways").Scan(ctx, &rows)
	all := make([]autoscale.GatewayReport, 0, len(rows))
	for _, row := range rows {
		if at := fromMicros(row.At); now.Sub(at).Abs() < reportKeptFor {
			all = append(all, autoscale.GatewayReport{Gateway: row.Name, DrainSequence: row.Drains,
				Watched: time.Duration(row.Watched) * time.Microsecond, At: at})
		}
	}
	return all, err
}

// findCounts reads each gateway's counts of runs.
func findCounts(ctx context.Context, db bun.IDB, ids []string) (map[dstack.RunID]map[string]dstack.RunLoad, error) {
	var rows []countRow
	if err := db.NewSelect().Model(&rows).Where("run_id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, err
	}
	all := map[dstack.RunID]map[string]dstack.RunLoad{}
	for _, row := range rows {
		var c dstack.RunLoad
		if err := json.Unmarshal([]byte(row.Counted), &c); err != nil {
			return nil, fmt.Errorf("read what gateway %s counted of run %s: %w", row.Gateway, row.RunID, err)
		}
		id := dstack.RunID(row.RunID)
		if all[id] == nil {
			all[id] = map[string]dstack.RunLoad{}
		}
		all[id][row.Gateway] = c
	}
	return all, nil
}

// findDraining returns the draining replicas of runs, with their drain sequence
// numbers.
func findDraining(ctx context.Context, db bun.IDB, runs []string) (map[dstack.RunID]map[dstack.ReplicaID]int64, error) {
	var rows []struct {
		ID, RunID string
		Drained   int64
	}
	err := db.NewRaw("SELECT id, run_id, drained FROM replicas WHERE live AND status = 'draining' AND run_id IN (?)", bun.List(runs)).Scan(ctx, &rows)
	if err != nil {
		return nil, err
	}
	all := map[dstack.RunID]map[dstack.ReplicaID]int64{}
	for _, row := range rows {
		id := dstack.RunID(row.RunID)
		if all[id] == nil {
			all[id] = map[dstack.ReplicaID]int64{}
		}
		all[id][dstack.ReplicaID(row.ID)] = row.Drained
	}
	return all, nil
}

// loadOf is findLoads for one run.
func (s *Store) loadOf(ctx context.Context, db bun.IDB, run dstack.Run) (dstack.Load, error) {
	loads, err := findLoads(ctx, db, map[dstack.RunID]time.Duration{run.ID: windowOf(run.Spec)}, s.clock())
	return loads[run.ID], err
}
