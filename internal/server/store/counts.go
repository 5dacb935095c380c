package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// saveReportEvery is how often a gateway's report is written when nothing in it
// has changed.
const saveReportEvery = 3 * time.Second

type countRow struct {
	bun.BaseModel `bun:"table:counts"`

	Gateway string `bun:",pk"`
	RunID   string `bun:",pk"`
	Counted string
}

// lastReports caches the last report of each gateway, so that the same report
// again is not written.
type lastReports struct {
	mu       sync.Mutex
	gateways map[string]lastReport
}

type lastReport struct {
	counts  map[string]string
	demands map[dstack.LimitID]dstack.Demand
	keys    map[dstack.CallerKeyID]dstack.KeyCounts
	drains  int64
	at      time.Time // when it was written
}

// hasSame reports whether a report counts what this one did.
func (r lastReport) hasSame(c dstack.LoadReport, counts map[string]string) bool {
	return maps.Equal(r.counts, counts) && maps.Equal(r.keys, c.Keys) && len(c.EarlierKeys) == 0 && len(r.demands) == 0 && len(c.Demands) == 0
}

func (c *lastReports) get(gateway string) lastReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gateways[gateway]
}

func (c *lastReports) put(gateway string, last lastReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gateways == nil {
		c.gateways = map[string]lastReport{}
	}
	maps.DeleteFunc(c.gateways, func(_ string, t lastReport) bool { return last.at.Sub(t.at).Abs() > reportKeptFor })
	c.gateways[gateway] = last
}

// SaveLoadReport replaces everything that is known from a gateway by its report,
// for unfinished runs. It marks due what the report may change: runs that scale,
// runs without a replica for which requests wait, and draining replicas that get
// no more requests; woke says whether there is any. An unchanged report is
// written only every three seconds, unless its drain sequence has changed while
// a replica drains, or limits are asked for. Reports are deleted after a minute;
// what they count of keys is kept.
func (s *Store) SaveLoadReport(ctx context.Context, c dstack.LoadReport, now time.Time) (woke bool, err error) {
	counts, err := marshalCounts(c.Runs)
	if err != nil {
		return false, err
	}
	if last := s.lastReports.get(c.Gateway); last.hasSame(c, counts) && now.Sub(last.at).Abs() < saveReportEvery {
		if last.drains == c.DrainSequence {
			return false, nil
		}
		if any, err := s.hasDraining(ctx); err != nil || !any {
			return false, err
		}
	}
	err = s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		var err error
		woke, err = saveCounts(ctx, tx, c, counts, now)
		return err
	})
	if err != nil {
		return false, err
	}
	if woke {
		s.markChanged()
	}
	s.lastReports.put(c.Gateway, lastReport{counts: counts, demands: c.Demands, keys: c.Keys, drains: c.DrainSequence, at: now})
	return woke, nil
}

// ForgetGateway deletes the report of a gateway that has ended.
func (s *Store) ForgetGateway(ctx context.Context, name string) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		for _, query := range []string{"DELETE FROM counts WHERE gateway = ?", "DELETE FROM gateways WHERE name = ?"} {
			if _, err := tx.NewRaw(query, cleanText(name)).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

func marshalCounts(runs map[dstack.RunID]dstack.RunLoad) (map[string]string, error) {
	all := make(map[string]string, len(runs))
	for id, count := range runs {
		text, err := json.Marshal(count)
		if err != nil {
			return nil, fmt.Errorf("write what was counted of run %s: %w", id, err)
		}
		all[string(id)] = string(text)
	}
	return all, nil
}

func (s *Store) hasDraining(ctx context.Context) (bool, error) {
	var ids []string
	err := s.reader.NewRaw("SELECT id FROM replicas WHERE live AND status = 'draining' LIMIT 1").Scan(ctx, &ids)
	return len(ids) > 0, wrapError(err)
}

func saveCounts(ctx context.Context, tx bun.Tx, c dstack.LoadReport, counts map[string]string, now time.Time) (woke bool, err error) {
	if err := saveKeyCounts(ctx, tx, c, now); err != nil {
		return false, err
	}
	_, err = tx.NewRaw(`INSERT INTO gateways (name, drains, watched, at) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET drains = EXCLUDED.drains, watched = EXCLUDED.watched, at = EXCLUDED.at`,
		cleanText(c.Gateway), c.DrainSequence, c.Watched.Microseconds(), toMicros(now)).Exec(ctx)
	if err != nil {
		return false, err
	}
	_, err = tx.NewRaw("DELETE FROM gateways WHERE at < ? OR at > ?", toMicros(now.Add(-reportKeptFor)), toMicros(now.Add(reportKeptFor))).Exec(ctx)
	if err != nil {
		return false, err
	}
	if err := saveDemands(ctx, tx, c); err != nil {
		return false, err
	}
	changed, err := replaceCounts(ctx, tx, cleanText(c.Gateway), counts)
	if err != nil {
		return false, err
	}
	var held []string
	for id, count := range c.Runs {
		if count.Held > 0 {
			held = append(held, string(id))
		}
	}
	return markCountsDue(ctx, tx, changed, held, now)
}

// replaceCounts replaces a gateway's rows with counts, limited to unfinished
// runs, and returns the runs whose row changed.
func replaceCounts(ctx context.Context, tx bun.Tx, gateway string, counts map[string]string) (changed []string, err error) {
	var rows []countRow
	if err := tx.NewSelect().Model(&rows).Where("gateway = ?", gateway).Scan(ctx); err != nil {
		return nil, err
	}
	saved := make(map[string]string, len(rows))
	for _, row := range rows {
		saved[row.RunID] = row.Counted
	}
	var live []string
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(counts)), 1000) {
		var some []string
		if err := tx.NewRaw("SELECT id FROM runs WHERE live AND id IN (?)", bun.List(ids)).Scan(ctx, &some); err != nil {
			return nil, err
		}
		live = append(live, some...)
	}
	slices.Sort(live)
	var fresh []countRow
	for _, id := range live {
		if old, ok := saved[id]; !ok || old != counts[id] {
			fresh = append(fresh, countRow{Gateway: gateway, RunID: id, Counted: counts[id]})
			changed = append(changed, id)
		}
		delete(saved, id)
	}
	for some := range slices.Chunk(fresh, 500) {
		_, err := tx.NewInsert().Model(&some).On("CONFLICT (gateway, run_id) DO UPDATE").Set("counted = EXCLUDED.counted").Exec(ctx)
		if err != nil {
			return nil, err
		}
	}
	gone := slices.Sorted(maps.Keys(saved))
	for ids := range slices.Chunk(gone, 1000) {
		if _, err := tx.NewRaw("DELETE FROM counts WHERE gateway = ? AND run_id IN (?)", gateway, bun.List(ids)).Exec(ctx); err != nil {
			return nil, err
		}
	}
	return append(changed, gone...), nil
}

// markCountsDue marks due what changed counts may change.
func markCountsDue(ctx context.Context, tx bun.Tx, changed, held []string, now time.Time) (woke bool, err error) {
	quiet, err := findDrainedIDs(ctx, tx, now)
	if err != nil {
		return false, err
	}
	for _, t := range []struct {
		kind  Kind
		where string
		ids   []string
	}{
		{Runs, "scales AND id IN (?)", changed},
		{Runs, `id IN (?) AND NOT EXISTS (SELECT 1 FROM replicas AS x WHERE x.run_id = runs.id AND x.live
			AND x.status <> 'draining' AND x.status <> 'terminating')`, held},
		{Replicas, "id IN (?)", quiet},
	} {
		for ids := range slices.Chunk(t.ids, 1000) {
			n, err := markDueCount(ctx, tx, t.kind, now, t.where, bun.List(ids))
			if err != nil {
				return false, err
			}
			woke = woke || n > 0
		}
	}
	return woke, nil
}

// findDrainedIDs returns all draining replicas that get no more requests.
func findDrainedIDs(ctx context.Context, tx bun.Tx, now time.Time) (ids []string, err error) {
	var runs []string
	if err := tx.NewRaw("SELECT DISTINCT run_id FROM replicas WHERE live AND status = 'draining'").Scan(ctx, &runs); err != nil {
		return nil, err
	}
	windows := make(map[dstack.RunID]time.Duration, len(runs))
	for _, id := range runs {
		windows[dstack.RunID(id)] = defaultWindow // not used here
	}
	loads, err := findLoads(ctx, tx, windows, now)
	for _, load := range loads {
		for id := range load.Drained {
			ids = append(ids, string(id))
		}
	}
	return ids, err
}
