package store

import (
	"context"
	"maps"
	"slices"
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
// Unknown runs are left out. The caller must not change what the specs point to.
func (s *Store) RunDetails(ctx context.Context, ids ...dstack.RunID) ([]RunDetails, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := s.readDetails(ctx, func(query *bun.SelectQuery) { query.Where("r.id IN (?)", bun.List(ids)) })
	if err != nil {
		return nil, err
	}
	byID := make(map[dstack.RunID]RunDetails, len(found))
	for _, w := range found {
		byID[w.Run.ID] = w
	}
	all := make([]RunDetails, 0, len(found))
	for _, id := range ids {
		if w, ok := byID[id]; ok {
			all = append(all, w)
		}
		delete(byID, id)
	}
	return all, nil
}

// ListRunDetails is RunDetails for the runs that a query selects, in its order.
func (s *Store) ListRunDetails(ctx context.Context, q RunQuery) ([]RunDetails, error) {
	if q.selectsNothing() {
		return nil, nil
	}
	return s.readDetails(ctx, func(query *bun.SelectQuery) { q.narrow(query) })
}

// NamedRunDetails is RunDetails for the run of a name that is not Deleted; NotFound.
func (s *Store) NamedRunDetails(ctx context.Context, p dstack.ProjectID, name string) (RunDetails, error) {
	found, err := s.readDetails(ctx, func(query *bun.SelectQuery) { whereNamed(query, p, name) })
	if err != nil {
		return RunDetails{}, err
	}
	if len(found) == 0 {
		return RunDetails{}, noRunNamed(name)
	}
	return found[0], nil
}

// readDetails reads the runs that narrow selects, and what belongs to them, in one snapshot.
func (s *Store) readDetails(ctx context.Context, narrow func(*bun.SelectQuery)) ([]RunDetails, error) {
	var all []RunDetails
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []runRow
		query := selectRuns(tx, &rows)
		narrow(query)
		if err := query.Scan(ctx); err != nil || len(rows) == 0 {
			return err
		}
		all = make([]RunDetails, len(rows))
		ids := make([]dstack.RunID, len(rows))
		found := make(map[dstack.RunID]*RunDetails, len(rows))
		windows := make(map[dstack.RunID]time.Duration, len(rows))
		for i, run := range s.openRuns(rows) {
			all[i] = RunDetails{Run: run, Reports: map[dstack.AttemptID]dstack.Report{}, Instances: map[dstack.InstanceID]dstack.Instance{}}
			ids[i], found[run.ID] = run.ID, &all[i]
			if !run.Status.IsFinished() { // others have no load
				windows[run.ID] = windowOf(run.Spec)
			}
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
		return fillDetails(ctx, tx, ids, found)
	})
	return all, err
}

// fillDetails adds replicas, reports and instances to runs.
func fillDetails(ctx context.Context, tx bun.Tx, ids []dstack.RunID, found map[dstack.RunID]*RunDetails) error {
	replicas, err := findReplicas(ctx, tx, func(q *bun.SelectQuery) { q.Where("r.run_id IN (?)", bun.List(ids)) })
	if err != nil {
		return err
	}
	places := map[string]bool{}
	for _, r := range replicas {
		if w := found[r.Run]; w != nil {
			w.Replicas = append(w.Replicas, r)
		}
		if r.Instance != "" {
			places[string(r.Instance)] = true
		}
	}
	if len(places) == 0 { // nothing runs, so that nothing is reported
		return nil
	}
	instances, err := findInstances(ctx, tx, slices.Sorted(maps.Keys(places)))
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
