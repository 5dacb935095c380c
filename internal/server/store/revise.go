package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// Revision is a new revision of a run.
type Revision struct {
	Revision     int // the present one, as it was seen
	Spec         dstack.RunSpec
	User         string   // who makes it
	Author       string   // see lifecycle.NewRevision
	NeedsRollout bool     // it needs new containers
	Kept         []string // see lifecycle.NewRevision
	Restores     int      // the revision that it repeats; 0: none
	Cause        string   // see lifecycle.NewRevision
	LeftOut      []string // the links of its code that replicas do not get
	Now          time.Time
}

// ReviseRun gives an unfinished run a new revision, as lifecycle.Revise decides,
// due now. It fails with Conflict if the present revision is no longer
// r.Revision, or the run has ended or is being stopped, and with Invalid if a
// secret that the revision refers to does not exist.
func (s *Store) ReviseRun(ctx context.Context, id dstack.RunID, r Revision) (dstack.Run, error) {
	r.Now = orNow(r.Now)
	if _, err := s.sealSpec(id, r.Spec); err != nil { // fail before the transaction
		return dstack.Run{}, err
	}
	var run dstack.Run
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		row, err := s.lockRunOfProject(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := pinSecrets(ctx, tx, dstack.ProjectID(row.ProjectID), &r.Spec); err != nil {
			return err
		}
		if err := pinArchives(ctx, tx, row.ID, r.Spec.FileArchives, r.Now); err != nil {
			return err
		}
		next, events, err := s.reviseRow(ctx, tx, row, r)
		if err != nil {
			return err
		}
		run = next
		return addEvents(ctx, tx, append(events, lifecycle.LeftOutEvents(next, r.User, r.LeftOut)...), r.Now)
	})
	if err != nil {
		return dstack.Run{}, err
	}
	return run, nil
}

// reviseRow gives a locked run a new revision and returns the events to add.
func (s *Store) reviseRow(ctx context.Context, tx bun.Tx, row runRow, r Revision) (dstack.Run, []dstack.Event, error) {
	id := dstack.RunID(row.ID)
	sealed, err := s.sealSpec(id, r.Spec)
	if err != nil {
		return dstack.Run{}, nil, err
	}
	open, err := publishSpec(r.Spec)
	if err != nil {
		return dstack.Run{}, nil, err
	}
	seen, err := s.findReviseFacts(ctx, tx, row, r.NeedsRollout)
	if err != nil {
		return dstack.Run{}, nil, err
	}
	rev := lifecycle.NewRevision{Present: r.Revision, Spec: r.Spec, User: r.User, Author: r.Author,
		NeedsRollout: r.NeedsRollout, Kept: r.Kept, Restores: r.Restores, Cause: r.Cause}
	next, events, err := lifecycle.Revise(seen, rev, r.Now)
	if err != nil {
		return dstack.Run{}, nil, err
	}
	next.Version++
	row.Spec, row.publicSpec = sealed, open
	row.setRevision(next)
	if row.GroupCounts, err = writeGroupCounts(next.Groups); err != nil {
		return dstack.Run{}, nil, err
	}
	if err := keepReplicas(ctx, tx, next, r.Kept, seen.Run.TemplateRevision); err != nil {
		return dstack.Run{}, nil, err
	}
	if err := saveRevised(ctx, tx, row); err != nil {
		return dstack.Run{}, nil, err
	}
	if next.StableRevision != seen.Run.StableRevision && next.StableRevision > 0 { // it has served before this
		if err := markReady(ctx, tx, id, next.StableRevision); err != nil {
			return dstack.Run{}, nil, err
		}
	}
	if err := putRevision(ctx, tx, row, row.Username, r.Restores, r.Now); err != nil {
		return dstack.Run{}, nil, err
	}
	if err := markDue(ctx, tx, Runs, r.Now, "id = ?", string(id)); err != nil {
		return dstack.Run{}, nil, err
	}
	return next, events, bumpInstances(ctx, tx, id)
}

// lockRunOfProject locks a run's project and then the run: changes of secrets
// lock the project first, too; NotFound.
func (s *Store) lockRunOfProject(ctx context.Context, tx bun.Tx, id dstack.RunID) (runRow, error) {
	var projects []string
	if err := tx.NewRaw("SELECT project_id FROM runs WHERE id = ?", string(id)).Scan(ctx, &projects); err != nil {
		return runRow{}, err
	}
	if len(projects) > 0 {
		if err := s.lockProject(ctx, tx, dstack.ProjectID(projects[0])); err != nil {
			return runRow{}, err
		}
	}
	return s.lockRun(ctx, tx, id)
}

// lockRun reads a run's row and locks it until the transaction ends; NotFound.
func (s *Store) lockRun(ctx context.Context, tx bun.Tx, id dstack.RunID) (runRow, error) {
	var rows []runRow
	query := selectRuns(tx, &rows).Where("r.id = ?", string(id))
	if s.kind == postgres {
		query.For("UPDATE OF r")
	}
	if err := query.Scan(ctx); err != nil {
		return runRow{}, err
	}
	if len(rows) == 0 {
		return runRow{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no run %s", id)}
	}
	return rows[0], nil
}

// findReviseFacts reads what lifecycle.Revise needs. The spec of the run itself
// is not among it: a run whose spec cannot be read may get a new one.
func (s *Store) findReviseFacts(ctx context.Context, tx bun.Tx, row runRow, needsRollout bool) (lifecycle.ReviseFacts, error) {
	seen := lifecycle.ReviseFacts{Run: row.toRun(dstack.RunSpec{})}
	if !needsRollout || row.ReadyAt != 0 {
		return seen, nil
	}
	if row.StableRevision != 0 {
		stable, err := findRevision(ctx, tx, dstack.RunID(row.ID), row.StableRevision)
		if err != nil {
			return seen, err
		}
		if rev, err := s.openRevision(stable); err == nil { // an unreadable revision cannot be returned to
			seen.Stable = &rev
		}
		return seen, nil
	}
	var ids []string
	err := tx.NewRaw("SELECT id FROM replicas WHERE live AND run_id = ? AND shape = ? AND status = ? LIMIT 1",
		row.ID, row.TemplateRevision, string(dstack.ReplicaReady)).Scan(ctx, &ids)
	seen.HasReadyReplica = len(ids) > 0
	return seen, err
}

// setRevision writes what a new revision changes of a run.
func (row *runRow) setRevision(run dstack.Run) {
	row.Username, row.Revision, row.LatestRevision, row.Version = run.User, run.Revision, run.LatestRevision, run.Version
	row.TemplateRevision, row.StableRevision, row.ReadyAt = run.TemplateRevision, run.StableRevision, toMicros(run.ReadyAt)
	row.DesiredReplicas, row.ScaledAt = run.DesiredReplicas, toMicros(run.ScaledAt)
}

func saveRevised(ctx context.Context, tx bun.Tx, row runRow) error {
	args := []any{row.Spec, row.Username, row.Revision, row.LatestRevision, row.TemplateRevision, row.StableRevision, row.ReadyAt, row.DesiredReplicas, row.GroupCounts, row.ScaledAt, row.Version}
	args = append(append(args, row.args()...), row.ID)
	_, err := tx.NewRaw(`UPDATE runs SET spec = ?, username = ?, revision = ?, newest = ?, shape = ?, proven = ?, ready_at = ?,
		wanted = ?, group_counts = ?, scaled_at = ?, version = ?, `+setPublic+" WHERE id = ?", args...).Exec(ctx)
	return err
}

// event returns an event of the run as a whole.
func (row runRow) event(kind dstack.EventKind, by, message string) dstack.Event {
	return dstack.Event{
		Project: dstack.ProjectID(row.ProjectID), Run: dstack.RunID(row.ID), RunName: row.Name,
		Kind: kind, Revision: row.Revision, User: by, Message: message,
	}
}
