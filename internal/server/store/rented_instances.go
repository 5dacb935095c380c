package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// putRented writes what is known of a rented machine alone. The row of its instance is written already.
func putRented(ctx context.Context, tx bun.Tx, i dstack.Instance) error {
	_, err := tx.NewRaw(`INSERT INTO rented_instances (instance_id, project_id, taken_back_at) VALUES (?, ?, ?)
		ON CONFLICT (instance_id) DO UPDATE SET taken_back_at = excluded.taken_back_at`,
		string(i.ID), string(i.Project), toMicros(i.TakenBackAt)).Exec(ctx)
	return err
}

// takeIdle reserves an idle rented machine for a replica. Its row keeps its offer. It fails with Conflict if the
// machine cannot run replicas any more; a step that would delete it, decided before, then cannot be saved.
func takeIdle(ctx context.Context, tx bun.Tx, id dstack.InstanceID, now time.Time) error {
	n, err := rowsAffected(tx.NewRaw("UPDATE instances SET version = version + 1 WHERE id = ? AND live AND status = ? AND NOT draining",
		string(id), string(dstack.InstanceUp)).Exec(ctx))
	if err != nil {
		return err
	}
	if n == 0 {
		return conflict(retryHint, "cannot place anything on instance %s: it is not idle any more", id)
	}
	return markDue(ctx, tx, Instances, now, "id = ?", string(id))
}

// IdleInstances returns the rented machines of a project that run nothing and can take a replica.
func (s *Store) IdleInstances(ctx context.Context, project dstack.ProjectID) ([]dstack.Instance, error) {
	var rows []instanceRow
	err := selectInstances(s.reader, &rows).
		Where("i.live AND i.status = ? AND NOT i.draining AND i.unlisted_since = 0 AND i.fails = 0", string(dstack.InstanceUp)).
		Where("COALESCE(fl.project_id, ri.project_id) = ? AND NOT COALESCE(m.leaving, FALSE) AND NOT COALESCE(m.draining, FALSE)", string(project)).
		Where("NOT EXISTS (SELECT 1 FROM replicas AS r WHERE r.live AND r.instance_id = i.id)").OrderExpr("i.id").Scan(ctx)
	if err != nil {
		return nil, wrapError(err)
	}
	all := make([]dstack.Instance, 0, len(rows))
	for _, row := range rows {
		i, err := row.toInstance()
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// releaseRentedOf gives the idle machines of projects back, whatever their idle time was: nothing can use them any more when
// the projects are deleted, and nobody would see what they cost.
func releaseRentedOf(ctx context.Context, tx bun.Tx, projects []string, now time.Time) error {
	var ids []string
	err := tx.NewRaw(`SELECT i.id FROM instances AS i JOIN rented_instances AS ri ON ri.instance_id = i.id JOIN projects AS p ON p.id = ri.project_id
		WHERE i.live AND p.name_lower IN (?)`, bun.List(projects)).Scan(ctx, &ids)
	if err != nil || len(ids) == 0 {
		return err
	}
	if _, err := tx.NewRaw("UPDATE instances SET idle_time = 0 WHERE id IN (?)", bun.List(ids)).Exec(ctx); err != nil {
		return err
	}
	return markDue(ctx, tx, Instances, now, "id IN (?)", bun.List(ids))
}
