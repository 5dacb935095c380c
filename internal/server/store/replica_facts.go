package store

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// SeenReplica is the facts about one replica, or why they could not be read.
type SeenReplica struct {
	lifecycle.ReplicaFacts
	Err error
}

// ReplicaFacts is ReplicasFacts for one replica.
func (s *Store) ReplicaFacts(ctx context.Context, id dstack.ReplicaID) (lifecycle.ReplicaFacts, error) {
	all, err := s.ReplicasFacts(ctx, []dstack.ReplicaID{id})
	if err != nil {
		return lifecycle.ReplicaFacts{}, err
	}
	return all[0].ReplicaFacts, all[0].Err
}

// ReplicasFacts reads what decisions on replicas need, in one snapshot and in the
// order of ids, except Placements, Rejections and Limits. As with RunFacts, a
// replica that is ending needs no readable spec. An error of one replica does
// not affect the others.
func (s *Store) ReplicasFacts(ctx context.Context, ids []dstack.ReplicaID) ([]SeenReplica, error) {
	var all []SeenReplica
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		near, err := s.readNeighbourhood(ctx, tx, ids)
		if err != nil {
			return err
		}
		all = make([]SeenReplica, len(ids))
		for i, id := range ids {
			if all[i], err = near.factsOf(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// neighbourhood is the rows that belong to some replicas, each read once.
type neighbourhood struct {
	store     *Store
	replicas  map[dstack.ReplicaID]dstack.Replica
	runs      map[dstack.RunID]runRow
	instances map[dstack.InstanceID]dstack.Instance
	reports   map[dstack.AttemptID]dstack.Report
	old       map[specKey]oldRevision // of earlier templates

	// Read when the first replica needs them.
	loads    map[dstack.RunID]dstack.Load
	siblings map[siblingGroup][]dstack.Replica
}

// siblingGroup is the unfinished replicas of a run, except those of the template
// other; 0: all.
type siblingGroup struct {
	run   dstack.RunID
	other int
}

func (s *Store) readNeighbourhood(ctx context.Context, tx bun.Tx, ids []dstack.ReplicaID) (*neighbourhood, error) {
	replicas, err := findReplicas(ctx, tx, func(q *bun.SelectQuery) { q.Where("r.id IN (?)", bun.List(toStrings(ids))) })
	if err != nil {
		return nil, err
	}
	a := &neighbourhood{
		store: s, replicas: make(map[dstack.ReplicaID]dstack.Replica, len(replicas)), runs: map[dstack.RunID]runRow{},
		reports: map[dstack.AttemptID]dstack.Report{}, loads: map[dstack.RunID]dstack.Load{}, siblings: map[siblingGroup][]dstack.Replica{},
	}
	runs, places, attempts := map[string]bool{}, map[string]bool{}, []string{}
	for _, r := range replicas {
		a.replicas[r.ID] = r
		runs[string(r.Run)] = true
		if r.Instance != "" {
			places[string(r.Instance)] = true
			attempts = append(attempts, string(r.Attempt))
		}
	}
	if len(replicas) == 0 {
		return a, nil
	}
	var rows []runRow
	if err := selectRuns(tx, &rows).Where("r.id IN (?)", bun.List(slices.Collect(maps.Keys(runs)))).Scan(ctx); err != nil {
		return nil, err
	}
	for _, row := range rows {
		a.runs[dstack.RunID(row.ID)] = row
	}
	if a.old, err = findOldRevisions(ctx, tx, replicas, a.runs); err != nil {
		return nil, err
	}
	if len(places) == 0 {
		return a, nil
	}
	if a.instances, err = findInstances(ctx, tx, slices.Collect(maps.Keys(places))); err != nil {
		return nil, err
	}
	reports, err := findReports(ctx, tx, func(q *bun.SelectQuery) { q.Where("p.attempt_id IN (?)", bun.List(attempts)) })
	for _, rep := range reports {
		a.reports[rep.Attempt] = rep
	}
	return a, err
}

// factsOf returns the facts about one replica. err is an error of the database.
func (a *neighbourhood) factsOf(ctx context.Context, tx bun.Tx, id dstack.ReplicaID) (seen SeenReplica, err error) {
	var ok bool
	if seen.Replica, ok = a.replicas[id]; !ok {
		seen.Err = &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no replica %s", id)}
		return seen, nil
	}
	status := seen.Replica.Status
	ends := status == dstack.ReplicaDraining || status == dstack.ReplicaTerminating
	var unread error
	if seen.Run, unread = a.runOf(seen.Replica); unread != nil && (seen.Run.ID == "" || !ends) {
		seen.Err = wrapError(unread)
		return seen, nil
	}
	if status == dstack.ReplicaDraining {
		if seen.Load, err = a.loadOf(ctx, tx, seen.Run); err != nil {
			return seen, err
		}
	}
	a.addPlacement(&seen.ReplicaFacts)
	failsProbes := seen.Report != nil && seen.Report.Probes != nil && !seen.Report.Probes.Ready
	switch {
	case status == dstack.ReplicaWaiting: // they may hold the place that it needs
		seen.Siblings, err = a.siblingsOf(ctx, tx, id, siblingGroup{seen.Replica.Run, seen.Replica.TemplateRevision})
	case status == dstack.ReplicaUnhealthy, failsProbes && !ends:
		seen.Siblings, err = a.siblingsOf(ctx, tx, id, siblingGroup{run: seen.Replica.Run})
	}
	return seen, err
}

// runOf returns a replica's run with the spec and the author of the replica's own
// revision.
func (a *neighbourhood) runOf(r dstack.Replica) (dstack.Run, error) {
	row, ok := a.runs[r.Run]
	if !ok {
		return dstack.Run{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no run " + string(r.Run)}
	}
	if row.TemplateRevision == r.TemplateRevision {
		run, err := a.store.openRunCached(row)
		return forReplica(run, r, err)
	}
	key := specKey{string(r.Run), r.Revision}
	old, ok := a.old[key]
	if !ok {
		return row.toRun(dstack.RunSpec{}), &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("run %s has no revision %d", r.Run, r.Revision)}
	}
	rs, err := a.store.openSpecCached(key, old.Spec)
	return forReplica(old.of(row).toRun(rs), r, err)
}

// forReplica returns a run with the specification that a replica of it runs: that of its group.
// An earlier error stays.
func forReplica(run dstack.Run, r dstack.Replica, err error) (dstack.Run, error) {
	if err != nil {
		return run, err
	}
	rs, ok := run.Spec.ForGroup(r.Group)
	if !ok {
		return run, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("revision %d of run %s has no group %s", r.Revision, run.Name, r.Group)}
	}
	run.Spec = rs
	return run, nil
}

// addPlacement adds a replica's instance and the report of its attempt.
func (a *neighbourhood) addPlacement(seen *lifecycle.ReplicaFacts) {
	if seen.Replica.Instance == "" {
		return
	}
	if i, ok := a.instances[seen.Replica.Instance]; ok {
		seen.Instance = &i
	}
	if rep, ok := a.reports[seen.Replica.Attempt]; ok {
		seen.Report = &rep
	}
}

func (a *neighbourhood) loadOf(ctx context.Context, tx bun.Tx, run dstack.Run) (dstack.Load, error) {
	if load, ok := a.loads[run.ID]; ok {
		return load, nil
	}
	load, err := a.store.loadOf(ctx, tx, run)
	a.loads[run.ID] = load
	return load, err
}

// siblingsOf returns a sibling group without the replica id.
func (a *neighbourhood) siblingsOf(ctx context.Context, tx bun.Tx, id dstack.ReplicaID, of siblingGroup) (some []dstack.Replica, err error) {
	all, ok := a.siblings[of]
	if !ok {
		all, err = findReplicas(ctx, tx, func(q *bun.SelectQuery) {
			q.Where("r.run_id = ? AND r.live AND r.shape <> ?", string(of.run), of.other)
		})
		if err != nil {
			return nil, err
		}
		a.siblings[of] = all
	}
	for _, r := range all {
		if r.ID != id {
			some = append(some, r)
		}
	}
	return some, nil
}
