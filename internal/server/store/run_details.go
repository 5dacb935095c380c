package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// RunDetails is a run with its replicas, their reports and instances, and its load.
type RunDetails struct {
	Run       dstack.Run
	Replicas  []dstack.Replica
	Reports   map[dstack.AttemptID]dstack.Report
	Instances map[dstack.InstanceID]dstack.Instance
	Load      dstack.Load
	Failed    *dstack.Revision // the newest revision, if it failed and was rolled back
}

// RunDetails returns runs, in the order asked for, with their replicas (finished
// ones too, by number and age), present reports and loads, in one snapshot.
// Unknown runs are left out.
func (s *Store) RunDetails(ctx context.Context, ids ...dstack.RunID) ([]RunDetails, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var all []RunDetails
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []runRow
		if err := selectRuns(tx, &rows).Where("r.id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
			return err
		}
		found := make(map[dstack.RunID]*RunDetails, len(rows))
		windows := make(map[dstack.RunID]time.Duration, len(rows))
		for _, run := range s.openRuns(rows) {
			found[run.ID] = &RunDetails{Run: run, Reports: map[dstack.AttemptID]dstack.Report{}, Instances: map[dstack.InstanceID]dstack.Instance{}}
			windows[run.ID] = windowOf(run.Spec)
		}
		loads, err := findLoads(ctx, tx, windows, s.clock())
		if err != nil {
			return err
		}
		failed, err := s.newestFailed(ctx, tx, rows)
		if err != nil {
			return err
		}
		for id, w := range found {
			w.Load, w.Failed = loads[id], failed[id]
		}
		if err := fillDetails(ctx, tx, ids, found); err != nil {
			return err
		}
		all = make([]RunDetails, 0, len(found))
		for _, id := range ids {
			if w := found[id]; w != nil {
				all = append(all, *w)
			}
			delete(found, id)
		}
		return nil
	})
	return all, err
}

// fillDetails adds replicas, reports and instances to runs.
func fillDetails(ctx context.Context, tx bun.Tx, ids []dstack.RunID, found map[dstack.RunID]*RunDetails) error {
	replicas, err := findReplicas(ctx, tx, func(q *bun.SelectQuery) { q.Where("r.run_id IN (?)", bun.List(ids)) })
	if err != nil {
		return err
	}
	var places []string
	for _, r := range replicas {
		if w := found[r.Run]; w != nil {
			w.Replicas = append(w.Replicas, r)
		}
		if r.Instance != "" {
			places = append(places, string(r.Instance))
		}
	}
	instances, err := findInstances(ctx, tx, places)
	if err != nil {
		return err
	}
	reports, err := findReports(ctx, tx, func(q *bun.SelectQuery) {
		q.Where("p.replica_id IN (SELECT id FROM replicas WHERE run_id IN (?))", bun.List(ids))
	})
	if err != nil {
		return err
	}
	byAttempt := make(map[dstack.AttemptID]dstack.Report, len(reports))
	for _, rep := range reports {
		byAttempt[rep.Attempt] = rep
	}
	for _, w := range found {
		for _, r := range w.Replicas {
			if rep, ok := byAttempt[r.Attempt]; ok {
				w.Reports[r.Attempt] = rep
			}
			if i, ok := instances[r.Instance]; ok {
				w.Instances[r.Instance] = i
			}
		}
	}
	return nil
}
