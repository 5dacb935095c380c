package store

import (
	"context"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// RunFacts reads what a decision on a run needs, in one snapshot; DesiredReplicas
// is the present number. It fails with NotFound, and if the run's spec cannot be
// read, unless the run is ending: an unreadable run must still be able to end.
func (s *Store) RunFacts(ctx context.Context, id dstack.RunID) (lifecycle.RunFacts, error) {
	var seen lifecycle.RunFacts
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var err error
		seen.Run, err = findRun(ctx, tx, id, s.openRunCached)
		ends := seen.Run.Stop != dstack.StopNone || seen.Run.Status == dstack.RunTerminating
		if err != nil && (seen.Run.ID == "" || !ends) {
			return err
		}
		seen.DesiredReplicas = seen.Run.DesiredReplicas
		seen.Replicas, err = findReplicas(ctx, tx, func(q *bun.SelectQuery) {
			q.Where("r.run_id = ? AND (r.live OR (r.status = ? AND r.shape = ?))", string(id), string(dstack.ReplicaFailed), seen.Run.TemplateRevision)
		})
		if err != nil {
			return err
		}
		if seen.Instances, err = findUnsettled(ctx, tx, id, countLive(seen.Replicas) > seen.DesiredReplicas); err != nil {
			return err
		}
		seen.Load, err = s.loadOf(ctx, tx, seen.Run)
		seen.InFlight = seen.Load.Replicas
		return err
	})
	return seen, err
}

func countLive(rs []dstack.Replica) (n int) {
	for i := range rs {
		if !rs[i].Status.IsFinished() {
			n++
		}
	}
	return n
}

// findUnsettled returns the instances of a run's replicas that are away, draining or not
// listed: usually none. With all, it returns the others, too.
func findUnsettled(ctx context.Context, tx bun.Tx, run dstack.RunID, all bool) (map[dstack.InstanceID]dstack.Instance, error) {
	var ids []string
	err := tx.NewRaw(`SELECT id FROM instances WHERE live AND (? OR status = ? OR draining OR unlisted_since > 0)
		AND id IN (SELECT instance_id FROM replicas WHERE live AND run_id = ?)`, all, string(dstack.InstanceAway), string(run)).Scan(ctx, &ids)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return findInstances(ctx, tx, ids)
}
