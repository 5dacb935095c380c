package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// RunMachine is a rented machine that belongs to no fleet.
type RunMachine struct {
	Machine     dstack.FleetInstance // numbered within its run
	Project     dstack.ProjectID
	ProjectName string
	Run         dstack.RunID // the run that has it, or had it last
	RunName     string
}

// RunMachines returns the rented machines of projects that belong to no fleet, by project, run and age. Those that are
// gone, as far as their backend says, are left out.
func (s *Store) RunMachines(ctx context.Context, projects []dstack.ProjectID) ([]RunMachine, error) {
	if len(projects) == 0 {
		return nil, nil
	}
	var rows []struct {
		ID, ProjectID, ProjectName, RunID, RunName string
		CreatedAt                                  int64
		Replicas                                   int
	}
	var instances map[dstack.InstanceID]dstack.Instance
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		rows = nil
		err := tx.NewRaw(`SELECT i.id, p.id AS project_id, p.name AS project_name, runs.id AS run_id, runs.name AS run_name,
				COALESCE((SELECT rh.created_at FROM rented_hosts AS rh WHERE rh.instance_id = i.id), i.since) AS created_at,
				(SELECT COUNT(*) FROM replicas AS live WHERE live.live AND live.instance_id = i.id) AS replicas
			FROM instances AS i JOIN rented_instances AS ri ON ri.instance_id = i.id JOIN projects AS p ON p.id = ri.project_id
			JOIN replicas AS r ON r.id = (SELECT last.id FROM replicas AS last WHERE last.instance_id = i.id ORDER BY last.live DESC, last.submitted_at DESC, last.id LIMIT 1)
			JOIN runs ON runs.id = r.run_id
			WHERE i.live AND p.id IN (?) AND NOT EXISTS (SELECT 1 FROM fleet_instances AS m WHERE m.instance_id = i.id) ORDER BY p.name, runs.name, runs.id, created_at, i.id`, bun.List(toStrings(projects))).Scan(ctx, &rows)
		if err != nil || len(rows) == 0 {
			return err
		}
		ids := make([]string, len(rows))
		for k, row := range rows {
			ids[k] = row.ID
		}
		instances, err = findInstances(ctx, tx, ids)
		return err
	})
	var all []RunMachine
	next := map[dstack.RunID]int{}
	for _, row := range rows {
		i, isKnown := instances[dstack.InstanceID(row.ID)]
		if !isKnown || isGone(i) {
			continue
		}
		run := dstack.RunID(row.RunID)
		all = append(all, RunMachine{Project: dstack.ProjectID(row.ProjectID), ProjectName: row.ProjectName, Run: run, RunName: row.RunName,
			Machine: dstack.FleetInstance{Instance: i, Num: next[run], CreatedAt: fromMicros(row.CreatedAt), Replicas: row.Replicas}})
		next[run]++
	}
	return all, err
}

// ReleaseIdle gives machines back as soon as they have no replicas, whatever their idle time was.
func (s *Store) ReleaseIdle(ctx context.Context, ids []dstack.InstanceID, now time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error { return releaseIdle(ctx, tx, toStrings(ids), now) })
}

func releaseIdle(ctx context.Context, tx bun.Tx, ids []string, now time.Time) error {
	if _, err := tx.NewRaw("UPDATE instances SET idle_time = 0 WHERE live AND id IN (?)", bun.List(ids)).Exec(ctx); err != nil {
		return err
	}
	return markDue(ctx, tx, Instances, now, "id IN (?)", bun.List(ids))
}

// releaseMachines gives back the rented machines of projects that are being deleted: nobody would see what they cost, and those
// that were to stay idle would stay for ever.
func releaseMachines(ctx context.Context, tx bun.Tx, projects []string, now time.Time) error {
	var ids []string
	err := tx.NewRaw(`SELECT i.id FROM instances AS i JOIN rented_instances AS ri ON ri.instance_id = i.id JOIN projects AS p ON p.id = ri.project_id
		WHERE i.live AND p.name_lower IN (?)`, bun.List(projects)).Scan(ctx, &ids)
	if err != nil || len(ids) == 0 {
		return err
	}
	return releaseIdle(ctx, tx, ids, now)
}
