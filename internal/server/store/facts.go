package store

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// RunFacts reads all that a decision on a run needs, in one reading. One whose
// spec cannot be read is an error, unless it is being ended: that must go on.
func (s *Store) RunFacts(ctx context.Context, id dstack.RunID) (lifecycle.RunFacts, error) {
	var seen lifecycle.RunFacts
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var err error
		seen.Run, err = findRun(ctx, tx, id, s.seeRun)
		ends := seen.Run.Stop != dstack.StopNone || seen.Run.Status == dstack.RunTerminating
		if err != nil && (seen.Run.ID == "" || !ends) {
			return err
		}
		seen.Replicas, err = findReplicas(ctx, tx, func(q *bun.SelectQuery) {
			q.Where("r.run_id = ? AND (r.live OR (r.status = ? AND r.revision = ?))", string(id), string(dstack.ReplicaFailed), seen.Run.Revision)
		})
		return err
	})
	return seen, err
}

// ReplicaFacts reads all that a decision on a replica needs, in one reading,
// except Places, Misfits and Limits. As with RunFacts, what ends may end.
func (s *Store) ReplicaFacts(ctx context.Context, id dstack.ReplicaID) (lifecycle.ReplicaFacts, error) {
	var seen lifecycle.ReplicaFacts
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var err error
		if seen.Replica, err = findReplica(ctx, tx, id); err != nil {
			return err
		}
		seen.Run, err = findRun(ctx, tx, seen.Replica.Run, s.seeRun)
		if err != nil && (seen.Run.ID == "" || seen.Replica.Status != dstack.ReplicaTerminating) {
			return err
		}
		if seen.Replica.Instance == "" {
			return nil
		}
		found, err := findInstances(ctx, tx, []string{string(seen.Replica.Instance)})
		if err != nil {
			return err
		}
		if i, ok := found[seen.Replica.Instance]; ok {
			seen.Instance = &i
		}
		reports, err := findReports(ctx, tx, func(q *bun.SelectQuery) { q.Where("p.attempt_id = ?", string(seen.Replica.Attempt)) })
		if len(reports) > 0 {
			seen.Report = &reports[0]
		}
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
// whose run cannot be read must not stop the machine's other replicas: it is
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
	runs, unread := make(map[dstack.RunID]dstack.Run, len(rows)), map[dstack.RunID]bool{}
	for _, row := range rows {
		run, err := s.seeRun(row)
		runs[run.ID], unread[run.ID] = run, err != nil
	}
	placed := make([]lifecycle.Placed, len(replicas))
	for i, r := range replicas {
		if unread[r.Run] && r.Status == dstack.ReplicaStarting {
			r.Status = dstack.ReplicaReady
		}
		placed[i] = lifecycle.Placed{Replica: r, Run: runs[r.Run]}
	}
	return placed, nil
}
