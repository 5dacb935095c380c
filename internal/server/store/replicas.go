package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type replicaRow struct {
	bun.BaseModel `bun:"table:replicas,alias:r"`

	ID               string `bun:",pk"`
	RunID            string
	Num              int
	Group            string `bun:"replica_group"`
	Revision         int
	TemplateRevision int `bun:"shape"`
	Status           string
	Reason           string
	Since            int64
	InstanceID       string
	Claim            string
	AttemptID        string
	AttemptNum       int
	AttemptAt        int64
	Crashes          int
	FirstCrashAt     int64 `bun:"crashed_at"`
	RetryAt          int64 `bun:"backoff_at"`
	Graceful         bool  `bun:"grace"`
	DrainDeadline    int64 `bun:"drain_by"`
	DrainSequence    int64 `bun:"drained"` // the drain sequence number; 0: none
	ReadyAt          int64
	Blocked          bool
	PastAttempts     string `bun:"past"`
	SubmittedAt      int64
	FinishedAt       int64
	Version          int64
	schedule
}

func (r replicaRow) toReplica() (dstack.Replica, error) {
	replica := dstack.Replica{
		ID: dstack.ReplicaID(r.ID), Run: dstack.RunID(r.RunID), Num: r.Num, Group: r.Group, Revision: r.Revision, TemplateRevision: r.TemplateRevision,
		Status: dstack.ReplicaStatus(r.Status), Reason: dstack.Reason(r.Reason), Since: fromMicros(r.Since),
		Instance: dstack.InstanceID(r.InstanceID), Attempt: dstack.AttemptID(r.AttemptID), AttemptNum: r.AttemptNum,
		AttemptAt: fromMicros(r.AttemptAt), Crashes: r.Crashes, FirstCrashAt: fromMicros(r.FirstCrashAt), RetryAt: fromMicros(r.RetryAt),
		Graceful: r.Graceful, DrainDeadline: fromMicros(r.DrainDeadline), ReadyAt: fromMicros(r.ReadyAt), Blocked: r.Blocked, SubmittedAt: fromMicros(r.SubmittedAt), FinishedAt: fromMicros(r.FinishedAt), Version: r.Version,
	}
	if r.Claim != "{}" {
		if err := json.Unmarshal([]byte(r.Claim), &replica.Claim); err != nil {
			return replica, fmt.Errorf("read what replica %s holds: %w", r.ID, err)
		}
	}
	if replica.PastAttempts = []dstack.Attempt{}; r.PastAttempts != "[]" {
		if err := json.Unmarshal([]byte(r.PastAttempts), &replica.PastAttempts); err != nil {
			return replica, fmt.Errorf("read the attempts of replica %s: %w", r.ID, err)
		}
	}
	return replica, nil
}

// findReplicas reads the replicas that narrow selects, by number and age.
func findReplicas(ctx context.Context, db bun.IDB, narrow func(*bun.SelectQuery)) ([]dstack.Replica, error) {
	var rows []replicaRow
	query := db.NewSelect().Model(&rows).OrderExpr("r.num, r.submitted_at, r.id")
	narrow(query)
	if err := query.Scan(ctx); err != nil {
		return nil, err
	}
	replicas := make([]dstack.Replica, len(rows))
	for i, row := range rows {
		var err error
		if replicas[i], err = row.toReplica(); err != nil {
			return nil, err
		}
	}
	return replicas, nil
}

func findReplica(ctx context.Context, db bun.IDB, id dstack.ReplicaID) (dstack.Replica, error) {
	found, err := findReplicas(ctx, db, func(q *bun.SelectQuery) { q.Where("r.id = ?", string(id)) })
	if err != nil {
		return dstack.Replica{}, err
	}
	if len(found) == 0 {
		return dstack.Replica{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no replica %s", id)}
	}
	return found[0], nil
}

// AttemptOf finds the run and replica of an attempt, present or past; NotFound.
// It also finds attempts of deleted runs, so that a reader of their output is
// not cut off.
func (s *Store) AttemptOf(ctx context.Context, p dstack.ProjectID, run string, a dstack.AttemptID) (dstack.Run, dstack.Replica, error) {
	var of dstack.Run
	var replica dstack.Replica
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []struct{ ReplicaID, RunID string }
		err := tx.NewRaw(`SELECT a.replica_id, r.run_id FROM attempts AS a JOIN replicas AS r ON r.id = a.replica_id
			JOIN runs ON runs.id = r.run_id WHERE a.attempt_id = ? AND runs.project_id = ? AND runs.name = ?`, string(a), string(p), run).Scan(ctx, &rows)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("run %q has no such attempt", run)}
		}
		if of, err = findRun(ctx, tx, dstack.RunID(rows[0].RunID), s.openRun); err != nil {
			return err
		}
		replica, err = findReplica(ctx, tx, dstack.ReplicaID(rows[0].ReplicaID))
		return err
	})
	return of, replica, err
}

// RunOfAttempt finds the run of an attempt, present or past, in all projects;
// NotFound. It also finds deleted runs. The caller must not change what the spec
// points to.
func (s *Store) RunOfAttempt(ctx context.Context, a dstack.AttemptID) (dstack.Run, error) {
	var run dstack.Run
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var ids []string
		err := tx.NewRaw(`SELECT r.run_id FROM attempts AS a JOIN replicas AS r ON r.id = a.replica_id
			WHERE a.attempt_id = ?`, string(a)).Scan(ctx, &ids)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no attempt %s", a)}
		}
		run, err = findRun(ctx, tx, dstack.RunID(ids[0]), s.openRunCached)
		return err
	})
	return run, err
}
