package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// maxRevisions is how many revisions of a run are kept, besides the revisions
// that are still needed.
const maxRevisions = 100

type revisionRow struct {
	bun.BaseModel `bun:"table:revisions,alias:v"`

	RunID            string `bun:",pk"`
	Num              int    `bun:",pk"`
	TemplateRevision int    `bun:"shape"`
	Spec             string
	Username         string
	At               int64
	Restores         int `bun:"brings_back"`
	Status           string
	Reason           string
	Replica          int
	LastOutput       string `bun:"last_out"`
}

// openRevision turns a row into a revision. With an error, everything but the
// spec is there.
func (s *Store) openRevision(row revisionRow) (dstack.Revision, error) {
	rev := dstack.Revision{
		Run: dstack.RunID(row.RunID), Num: row.Num, TemplateRevision: row.TemplateRevision, User: row.Username, At: fromMicros(row.At), Restores: row.Restores,
		Status: dstack.RevisionStatus(row.Status), Reason: dstack.Reason(row.Reason), Replica: row.Replica,
	}
	if err := json.Unmarshal([]byte(row.LastOutput), &rev.LastOutput); err != nil {
		return rev, fmt.Errorf("read the last output of revision %d of run %s: %w", row.Num, row.RunID, err)
	}
	var err error
	rev.Spec, err = s.openSpec(row.RunID, row.Spec)
	return rev, err
}

// openRevisions converts rows to revisions. If the spec of a revision cannot be
// read, its reason says so.
func (s *Store) openRevisions(rows []revisionRow) []dstack.Revision {
	return mapRows(rows, func(row revisionRow) dstack.Revision {
		rev, err := s.openRevision(row)
		if err != nil {
			rev.Reason = "its configuration cannot be read any more: " + dstack.Reason(err.Error())
		}
		return rev
	})
}

// Revisions returns a run's revisions, the newest first; NotFound. It has the
// latest 100 and older ones that are still needed.
func (s *Store) Revisions(ctx context.Context, run dstack.RunID) ([]dstack.Revision, error) {
	var rows []revisionRow
	if err := s.reader.NewSelect().Model(&rows).Where("run_id = ?", string(run)).OrderExpr("num DESC").Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	if len(rows) == 0 {
		return nil, &dstack.Error{Kind: dstack.NotFound, Message: "there is no run " + string(run)}
	}
	return s.openRevisions(rows), nil
}

// Revision returns one revision of a run; NotFound.
func (s *Store) Revision(ctx context.Context, run dstack.RunID, num int) (dstack.Revision, error) {
	row, err := findRevision(ctx, s.reader, run, num)
	if err != nil {
		return dstack.Revision{}, wrapError(err)
	}
	return s.openRevision(row)
}

func findRevision(ctx context.Context, db bun.IDB, run dstack.RunID, num int) (revisionRow, error) {
	var rows []revisionRow
	if err := db.NewSelect().Model(&rows).Where("run_id = ? AND num = ?", string(run), num).Scan(ctx); err != nil {
		return revisionRow{}, err
	}
	if len(rows) == 0 {
		return revisionRow{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("this run has no revision %d", num)}
	}
	return rows[0], nil
}

// putRevision inserts the present revision of a run's row, and deletes old ones
// that are not needed.
func putRevision(ctx context.Context, tx bun.Tx, run runRow, by string, of int, now time.Time) error {
	row := revisionRow{
		RunID: run.ID, Num: run.Revision, TemplateRevision: run.TemplateRevision, Spec: run.Spec, Username: by, At: toMicros(now), Restores: of,
		Status: string(dstack.RevisionPending), LastOutput: "[]",
	}
	if run.ReadyAt != 0 {
		row.Status = string(dstack.RevisionReady)
	}
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return err
	}
	_, err := tx.NewRaw(`DELETE FROM revisions WHERE run_id = ? AND num <= ? AND num <> ?
		AND num NOT IN (SELECT revision FROM replicas WHERE run_id = ? AND live)`,
		run.ID, run.Revision-maxRevisions, run.StableRevision, run.ID).Exec(ctx)
	return err
}

// markReady records that a revision has served, and with it the earlier ones of
// the same template.
func markReady(ctx context.Context, tx bun.Tx, run dstack.RunID, num int) error {
	_, err := tx.NewRaw(`UPDATE revisions SET status = ? WHERE run_id = ? AND num <= ? AND status = ?
		AND shape = (SELECT shape FROM revisions WHERE run_id = ? AND num = ?)`,
		string(dstack.RevisionReady), string(run), num, string(dstack.RevisionPending), string(run), num).Exec(ctx)
	return err
}

// markFailed marks the revisions above the run's present one that never served
// as failed, with the reason.
func markFailed(ctx context.Context, tx bun.Tx, run dstack.Run, back lifecycle.Rollback) error {
	last, err := json.Marshal(append([]string{}, back.LastOutput...))
	if err != nil {
		return fmt.Errorf("write the last output of run %s: %w", run.ID, err)
	}
	_, err = tx.NewRaw("UPDATE revisions SET status = ?, reason = ?, replica = ?, last_out = ? WHERE run_id = ? AND num > ? AND status = ?",
		string(dstack.RevisionFailed), cleanText(back.Reason), back.Replica, string(last), string(run.ID), run.Revision, string(dstack.RevisionPending)).Exec(ctx)
	return err
}

// rollbackTarget is a revision that becomes the present one again, with its
// spec as it is stored.
type rollbackTarget struct {
	revision   dstack.Revision
	sealedSpec string
	open       publicSpec
}

func (s *Store) findRollbackTarget(ctx context.Context, tx bun.Tx, run dstack.RunID, num int) (t rollbackTarget, err error) {
	row, err := findRevision(ctx, tx, run, num)
	if err != nil {
		return t, err
	}
	t.sealedSpec = row.Spec
	if t.revision, err = s.openRevision(row); err != nil {
		return t, err
	}
	t.open, err = publishSpec(t.revision.Spec)
	return t, err
}

// newestFailed returns the newest revision of each run where it failed and was
// rolled back.
func (s *Store) newestFailed(ctx context.Context, db bun.IDB, runs []runRow) (map[dstack.RunID]*dstack.Revision, error) {
	var ids []string
	for _, run := range runs {
		if run.LatestRevision > run.Revision {
			ids = append(ids, run.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []revisionRow
	err := db.NewSelect().Model(&rows).Join("JOIN runs ON runs.id = v.run_id AND runs.newest = v.num").
		Where("v.run_id IN (?) AND v.status = ?", bun.List(ids), string(dstack.RevisionFailed)).Scan(ctx)
	if err != nil {
		return nil, err
	}
	failed := make(map[dstack.RunID]*dstack.Revision, len(rows))
	for _, rev := range s.openRevisions(rows) {
		failed[rev.Run] = &rev
	}
	return failed, nil
}
