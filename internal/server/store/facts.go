package store

import (
	"context"

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
		seen.Load, err = s.loadOf(ctx, tx, seen.Run)
		seen.InFlight = seen.Load.Replicas
		return err
	})
	return seen, err
}
