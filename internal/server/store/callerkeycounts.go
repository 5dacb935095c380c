package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type keyCountRow struct {
	bun.BaseModel `bun:"table:caller_key_counts"`

	KeyID        string `bun:",pk"`
	Gateway      string `bun:",pk"`
	Requests     int64
	Refused      int64
	LastRequests int64
	LastRefused  int64
	UsedAt       int64
}

// add adds what a gateway counted since it told its counters last. Counters of a
// gateway that began anew are new as a whole. Those that have a name of their own only
// rise: lower ones were told before.
func (r *keyCountRow) add(counts dstack.KeyCounts, c counters, now time.Time) (changed bool) {
	requests, refused := int64(counts.Requests), int64(counts.Refused)
	if c.isNamed {
		requests, refused = max(requests, r.LastRequests), max(refused, r.LastRefused)
	} else if c.beganAnew || requests < r.LastRequests || refused < r.LastRefused {
		r.LastRequests, r.LastRefused = 0, 0
	}
	if requests == r.LastRequests && refused == r.LastRefused {
		return false
	}
	if requests > r.LastRequests {
		r.UsedAt = toMicros(now)
	}
	r.Requests += requests - r.LastRequests
	r.Refused += refused - r.LastRefused
	r.LastRequests, r.LastRefused = requests, refused
	return true
}

// counters is whose counters a report has.
type counters struct {
	name      string // in the column gateway
	isNamed   bool   // by LoadReport.Counter
	beganAnew bool
}

// maxEarlierCounters is of how many earlier processes one report is read. The gateway tells the others again.
const maxEarlierCounters = 100

// saveKeyCounts adds what a gateway counted of keys for callers. It comes before the
// gateway's row in gateways changes, which tells whether the gateway began anew.
func saveKeyCounts(ctx context.Context, tx bun.Tx, c dstack.LoadReport, now time.Time) error {
	for i, counter := range slices.Sorted(maps.Keys(c.EarlierKeys)) {
		if i == maxEarlierCounters {
			break
		}
		if err := saveCounters(ctx, tx, counters{name: cleanText(counter), isNamed: true}, c.EarlierKeys[counter], now); err != nil {
			return err
		}
	}
	if c.Counter != "" {
		return saveCounters(ctx, tx, counters{name: cleanText(c.Counter), isNamed: true}, c.Keys, now)
	}
	if len(c.Keys) == 0 {
		return nil
	}
	gateway := cleanText(c.Gateway)
	var watched []int64
	if err := tx.NewRaw("SELECT watched FROM gateways WHERE name = ?", gateway).Scan(ctx, &watched); err != nil {
		return err
	}
	beganAnew := len(watched) > 0 && c.Watched.Microseconds() < watched[0]
	return saveCounters(ctx, tx, counters{name: gateway, beganAnew: beganAnew}, c.Keys, now)
}

func saveCounters(ctx context.Context, tx bun.Tx, c counters, counts map[dstack.CallerKeyID]dstack.KeyCounts, now time.Time) error {
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(counts)), 500) {
		if err := saveSomeKeyCounts(ctx, tx, c, ids, counts, now); err != nil {
			return err
		}
	}
	return nil
}

func saveSomeKeyCounts(ctx context.Context, tx bun.Tx, c counters, ids []dstack.CallerKeyID,
	counts map[dstack.CallerKeyID]dstack.KeyCounts, now time.Time,
) error {
	var known []string
	err := tx.NewRaw("SELECT id FROM caller_keys WHERE id IN (?) ORDER BY id", bun.List(toStrings(ids))).Scan(ctx, &known)
	if err != nil || len(known) == 0 {
		return err
	}
	var rows []keyCountRow
	if err := tx.NewSelect().Model(&rows).Where("gateway = ? AND key_id IN (?)", c.name, bun.List(known)).Scan(ctx); err != nil {
		return err
	}
	saved := make(map[string]keyCountRow, len(rows))
	for _, row := range rows {
		saved[row.KeyID] = row
	}
	var changed []keyCountRow
	for _, id := range known {
		row := saved[id]
		row.KeyID, row.Gateway = id, c.name
		if row.add(counts[dstack.CallerKeyID(id)], c, now) {
			changed = append(changed, row)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	_, err = tx.NewInsert().Model(&changed).On("CONFLICT (key_id, gateway) DO UPDATE").
		Set("requests = EXCLUDED.requests, refused = EXCLUDED.refused, last_requests = EXCLUDED.last_requests").
		Set("last_refused = EXCLUDED.last_refused, used_at = EXCLUDED.used_at").Exec(ctx)
	return err
}
