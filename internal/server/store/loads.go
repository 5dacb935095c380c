package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

const (
	reportFreshFor = 10 * time.Second // how long a gateway's report counts
	reportKeptFor  = time.Minute      // then it is deleted
	defaultWindow  = time.Minute      // over which load is averaged where the configuration does not say
)

// windowOf returns the time over which a run's load is averaged.
func windowOf(rs dstack.RunSpec) time.Duration {
	if w := rulesOf(rs.Configuration).Window; w > 0 {
		return w
	}
	return defaultWindow
}

// gatewayReport is the part of a gateway's last report that concerns no run.
type gatewayReport struct {
	Name    string
	Drains  int64
	Watched int64
	At      int64
}

// isRecent reports whether a gateway's report counts. A gateway without a recent
// report may still forward requests, by an old route table.
func (g gatewayReport) isRecent(now time.Time) bool {
	return now.Sub(fromMicros(g.At)).Abs() < reportFreshFor
}

// findLoads sums the gateways' reports of runs, each with its window.
func findLoads(ctx context.Context, db bun.IDB, windows map[dstack.RunID]time.Duration, now time.Time) (map[dstack.RunID]dstack.Load, error) {
	loads := make(map[dstack.RunID]dstack.Load, len(windows))
	if len(windows) == 0 {
		return loads, nil
	}
	var gateways []gatewayReport
	err := db.NewRaw("SELECT name, drains, watched, at FROM gateways WHERE at > ? AND at < ?", toMicros(now.Add(-reportKeptFor)), toMicros(now.Add(reportKeptFor))).Scan(ctx, &gateways)
	if err != nil || len(gateways) == 0 {
		return loads, err
	}
	ids := make([]string, 0, len(windows))
	for id := range windows {
		ids = append(ids, string(id))
	}
	counts, err := findCounts(ctx, db, ids)
	if err != nil {
		return nil, err
	}
	drained, err := findDrained(ctx, db, ids)
	if err != nil {
		return nil, err
	}
	for id, window := range windows {
		loads[id] = sumLoads(gateways, counts[id], drained[id], window, now)
	}
	return loads, nil
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

// findDrained returns the draining replicas of runs, with their drain sequence
// numbers.
func findDrained(ctx context.Context, db bun.IDB, runs []string) (map[dstack.RunID]map[dstack.ReplicaID]int64, error) {
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

// sumLoads adds the counts of one run from all gateways with a recent report. A
// gateway without counts of the run has had no requests for it since it began. A
// draining replica is drained when all gateways say so, those without a recent
// report included.
func sumLoads(gateways []gatewayReport, counts map[string]dstack.RunLoad, drained map[dstack.ReplicaID]int64, window time.Duration, now time.Time) dstack.Load {
	load := dstack.Load{Window: window, Watched: window, Replicas: map[dstack.ReplicaID]int{}, Drained: map[dstack.ReplicaID]bool{}}
	oldest, silent := gateways[0].Drains, false
	var metrics []dstack.RunMetrics
	for _, g := range gateways {
		oldest = min(oldest, g.Drains)
		c, ok := counts[g.Name]
		for id, n := range c.Replicas {
			load.Replicas[id] += n
		}
		if !g.isRecent(now) {
			silent = true
			continue
		}
		load.Known = true
		if !ok {
			load.Watched = min(load.Watched, time.Duration(g.Watched)*time.Microsecond)
			continue
		}
		if c.Window > 0 {
			load.Window = min(load.Window, c.Window)
		}
		load.Watched = min(load.Watched, c.Watched)
		load.Requests += c.Requests
		load.Concurrency += c.Concurrency
		load.InFlight += c.InFlight
		load.Held += c.Held
		metrics = append(metrics, c.Metrics)
	}
	load.Metrics = dstack.SumMetrics(metrics)
	load.Watched = min(load.Watched, load.Window)
	if silent {
		return load
	}
	for id, order := range drained {
		if order > 0 && order <= oldest && load.Replicas[id] == 0 {
			load.Drained[id] = true
		}
	}
	return load
}

// loadOf is findLoads for one run.
func (s *Store) loadOf(ctx context.Context, db bun.IDB, run dstack.Run) (dstack.Load, error) {
	loads, err := findLoads(ctx, db, map[dstack.RunID]time.Duration{run.ID: windowOf(run.Spec)}, s.clock())
	return loads[run.ID], err
}
