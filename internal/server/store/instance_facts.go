package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// InstanceFacts reads what a decision on an instance needs, in one snapshot,
// except Machine and Listed. The result may be shared with later callers and
// must not be written to. It fails with NotFound.
func (s *Store) InstanceFacts(ctx context.Context, id dstack.InstanceID) (lifecycle.InstanceFacts, error) {
	var seen lifecycle.InstanceFacts
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []instanceRow
		if err := selectInstances(tx, &rows).Where("i.id = ?", string(id)).Scan(ctx); err != nil {
			return err
		}
		if len(rows) == 0 {
			return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no instance %s", id)}
		}
		var err error
		if seen.Instance, err = rows[0].toInstance(); err != nil {
			return err
		}
		if seen.Member, err = findMachine(ctx, tx, seen.Instance); err != nil {
			return err
		}
		state := rowState{rows[0].Version, rows[0].Touches}
		on, known := s.placed.get(id, state)
		if !known {
			if on, err = s.readPlaced(ctx, tx, id); err != nil {
				return err
			}
			on.state = state
			s.placed.put(id, on)
		}
		seen.Reports, seen.Replicas = on.reports, on.replicas
		return nil
	})
	return seen, err
}

// placedCache caches the replicas and reports of each instance. Every transaction
// that changes them also marks the instance due or raises its version: while the
// row's state is the same, the cached facts are valid.
type placedCache struct {
	mu        sync.Mutex
	instances map[dstack.InstanceID]placedOn
}

type placedOn struct {
	state    rowState
	replicas []lifecycle.PlacedReplica
	reports  []dstack.Report
}

// rowState is how often the row of an instance was saved and touched.
type rowState struct{ version, touches int64 }

func (c *placedCache) get(id dstack.InstanceID, now rowState) (placedOn, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	on, ok := c.instances[id]
	return on, ok && on.state == now
}

// maxPlacedCached limits the cache, which is emptied when it is full.
const maxPlacedCached = 4096

func (c *placedCache) put(id dstack.InstanceID, on placedOn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.instances == nil {
		c.instances = map[dstack.InstanceID]placedOn{}
	}
	if len(c.instances) >= maxPlacedCached {
		clear(c.instances)
	}
	c.instances[id] = on
}

// advance records that an instance of version before was saved. Its cached facts
// stay valid if no report changed.
func (c *placedCache) advance(id dstack.InstanceID, before int64, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	on, ok := c.instances[id]
	if !ok || changed || on.state.version != before {
		delete(c.instances, id)
		return
	}
	on.state.version++
	c.instances[id] = on
}

func (s *Store) readPlaced(ctx context.Context, tx bun.Tx, id dstack.InstanceID) (on placedOn, err error) {
	on.reports, err = findReports(ctx, tx, func(q *bun.SelectQuery) { q.Where("p.instance_id = ?", string(id)) })
	if err != nil {
		return on, err
	}
	on.replicas, err = s.findPlaced(ctx, tx, id)
	return on, err
}

// findPlaced returns the unfinished replicas of an instance with their runs. A
// replica whose spec cannot be read must not stop the others: it is returned as
// ready instead of starting, so that a running attempt is kept and none is
// started.
func (s *Store) findPlaced(ctx context.Context, tx bun.Tx, id dstack.InstanceID) ([]lifecycle.PlacedReplica, error) {
	replicas, err := findReplicas(ctx, tx, func(q *bun.SelectQuery) {
		q.Where("r.live AND r.instance_id = ?", string(id)).OrderExpr("r.run_id")
	})
	if err != nil || len(replicas) == 0 {
		return nil, err
	}
	var rows []runRow
	err = selectRuns(tx, &rows).Where("r.id IN (SELECT run_id FROM replicas WHERE live AND instance_id = ?)", string(id)).Scan(ctx)
	if err != nil {
		return nil, err
	}
	runs := make(map[dstack.RunID]runRow, len(rows))
	for _, row := range rows {
		runs[dstack.RunID(row.ID)] = row
	}
	old, err := findOldRevisions(ctx, tx, replicas, runs)
	if err != nil {
		return nil, err
	}
	placed := make([]lifecycle.PlacedReplica, len(replicas))
	for i, r := range replicas {
		row := runs[r.Run]
		key := specKey{run: row.ID}
		if r.TemplateRevision != row.TemplateRevision {
			key.revision = r.Revision
			row = old[key].of(row)
		}
		rs, err := s.openSpecCached(key, row.Spec)
		run, err := forReplica(row.toRun(rs), r, err)
		if err != nil && r.Status == dstack.ReplicaStarting {
			r.Status = dstack.ReplicaReady
		}
		placed[i] = lifecycle.PlacedReplica{Replica: r, Run: run}
	}
	return placed, nil
}

// oldRevision is an earlier revision of a run, of which a replica is left.
type oldRevision struct {
	RunID, Spec, Username string
	Num                   int
	AuthorRole            string // as in runRow
}

// of returns the row of its run with what this revision has instead: its spec and its
// author, whose rights decide where it may run.
func (r oldRevision) of(row runRow) runRow {
	row.Spec, row.Username, row.AuthorRole = r.Spec, r.Username, r.AuthorRole
	return row
}

// findOldRevisions reads the revisions of replicas that have not the present template
// of their run.
func findOldRevisions(
	ctx context.Context, tx bun.Tx, replicas []dstack.Replica, runs map[dstack.RunID]runRow,
) (map[specKey]oldRevision, error) {
	var ids []string
	for _, r := range replicas {
		if r.TemplateRevision != runs[r.Run].TemplateRevision {
			ids = append(ids, string(r.ID))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []oldRevision
	err := tx.NewRaw(`SELECT v.run_id, v.num, v.spec, v.username,
		COALESCE((SELECT u.global_role FROM users AS u WHERE u.name = v.username), '') AS author_role
		FROM revisions AS v WHERE EXISTS (SELECT 1 FROM replicas AS r
			WHERE r.run_id = v.run_id AND r.revision = v.num AND r.id IN (?))`, bun.List(ids)).Scan(ctx, &rows)
	old := make(map[specKey]oldRevision, len(rows))
	for _, row := range rows {
		old[specKey{row.RunID, row.Num}] = row
	}
	return old, err
}
