package store

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// RunFacts reads all that a decision on a run needs, in one reading; Wanted is
// what it was. One whose spec cannot be read is an error, unless it is being
// ended: that must go on.
func (s *Store) RunFacts(ctx context.Context, id dstack.RunID) (lifecycle.RunFacts, error) {
	var seen lifecycle.RunFacts
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var err error
		seen.Run, err = findRun(ctx, tx, id, s.seeRun)
		ends := seen.Run.Stop != dstack.StopNone || seen.Run.Status == dstack.RunTerminating
		if err != nil && (seen.Run.ID == "" || !ends) {
			return err
		}
		seen.Wanted = seen.Run.Wanted
		seen.Replicas, err = findReplicas(ctx, tx, func(q *bun.SelectQuery) {
			q.Where("r.run_id = ? AND (r.live OR (r.status = ? AND r.shape = ?))", string(id), string(dstack.ReplicaFailed), seen.Run.Shape)
		})
		if err != nil {
			return err
		}
		seen.Load, err = s.loadOf(ctx, tx, seen.Run)
		seen.InFlight = seen.Load.Replicas
		return err
	})
	return seen, err
}

// InstanceFacts reads all that a decision on an instance needs, in one
// reading, except Machine and Listed.
func (s *Store) InstanceFacts(ctx context.Context, id dstack.InstanceID) (lifecycle.InstanceFacts, error) {
	var seen lifecycle.InstanceFacts
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		found, err := findInstances(ctx, tx, []string{string(id)})
		if err != nil {
			return err
		}
		var ok bool
		if seen.Instance, ok = found[id]; !ok {
			return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no instance %s", id)}
		}
		seen.Reports, err = findReports(ctx, tx, func(q *bun.SelectQuery) { q.Where("p.instance_id = ?", string(id)) })
		if err != nil {
			return err
		}
		seen.Replicas, err = s.placedOn(ctx, tx, id)
		return err
	})
	return seen, err
}

// placedOn returns the unfinished replicas of an instance with their runs. One
// whose spec cannot be read must not stop the machine's other replicas: it is
// shown as ready, so that what runs of it is kept and nothing is started from
// a configuration that nobody could read.
func (s *Store) placedOn(ctx context.Context, tx bun.Tx, id dstack.InstanceID) ([]lifecycle.Placed, error) {
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
	old, err := oldSpecs(ctx, tx, replicas, runs)
	if err != nil {
		return nil, err
	}
	placed := make([]lifecycle.Placed, len(replicas))
	for i, r := range replicas {
		row := runs[r.Run]
		key, sealed := specKey{run: row.ID}, row.Spec
		if r.Shape != row.Shape {
			key.revision = r.Revision
			sealed = old[key]
		}
		rs, err := s.knownSpec(key, sealed)
		if err != nil && r.Status == dstack.ReplicaStarting {
			r.Status = dstack.ReplicaReady
		}
		placed[i] = lifecycle.Placed{Replica: r, Run: row.noun(rs)}
	}
	return placed, nil
}

// oldSpecs reads the sealed specs of those replicas that have not the shape of
// their run.
func oldSpecs(ctx context.Context, tx bun.Tx, replicas []dstack.Replica, runs map[dstack.RunID]runRow) (map[specKey]string, error) {
	var ids []string
	for _, r := range replicas {
		if r.Shape != runs[r.Run].Shape {
			ids = append(ids, string(r.ID))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []revisionRow
	err := tx.NewSelect().Model(&rows).ColumnExpr("DISTINCT v.run_id, v.num, v.spec").
		Join("JOIN replicas AS r ON r.run_id = v.run_id AND r.revision = v.num").Where("r.id IN (?)", bun.List(ids)).Scan(ctx)
	old := make(map[specKey]string, len(rows))
	for _, row := range rows {
		old[specKey{row.RunID, row.Num}] = row.Spec
	}
	return old, err
}
