package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type runRow struct {
	bun.BaseModel `bun:"table:runs,alias:r"`

	ID          string `bun:",pk"`
	ProjectID   string
	Project     string `bun:",scanonly"` // its name
	Username    string
	Name        string
	Repo        string
	Spec        string
	Auth        bool
	Model       string
	Prefix      string
	Format      string // of the model: openai, tgi
	Template    string // JSON of a dstack.ChatTemplate; empty: none
	Revision    int
	Status      string
	Reason      string
	Ending      string
	Stop        string
	SubmittedAt int64
	Since       int64
	ReadyAt     int64
	FinishedAt  int64
	Deleted     bool
	Version     int64
	turn
}

// openRun turns a row into a run; it fails when the spec cannot be read.
func (s *Store) openRun(row runRow) (dstack.Run, error) {
	spec, err := s.openSpec(row.ID, row.Spec)
	return row.noun(spec), err
}

// seeRun is openRun for a decision, which never changes what it sees.
func (s *Store) seeRun(row runRow) (dstack.Run, error) {
	spec, err := s.knownSpec(row.ID, row.Spec)
	return row.noun(spec), err
}

func (row runRow) noun(spec dstack.RunSpec) dstack.Run {
	return dstack.Run{
		ID: dstack.RunID(row.ID), ProjectID: dstack.ProjectID(row.ProjectID), Project: row.Project,
		User: row.Username, Name: row.Name, Spec: spec, Revision: row.Revision,
		Status: dstack.RunStatus(row.Status), Reason: dstack.Reason(row.Reason),
		Ending: dstack.Ending(row.Ending), Stop: dstack.StopRequest(row.Stop),
		SubmittedAt: at(row.SubmittedAt), Since: at(row.Since), ReadyAt: at(row.ReadyAt), FinishedAt: at(row.FinishedAt),
		Deleted: row.Deleted, Version: row.Version,
	}
}

// openRuns is for lists: one run that cannot be read says so in its reason
// and does not hide the others.
func (s *Store) openRuns(rows []runRow) []dstack.Run {
	return nouns(rows, func(row runRow) dstack.Run {
		run, err := s.openRun(row)
		if err != nil {
			run.Reason = "its configuration cannot be read any more: " + dstack.Reason(err.Error())
		}
		return run
	})
}

// selectRuns begins a query for whole runs.
func selectRuns(db bun.IDB, rows *[]runRow) *bun.SelectQuery {
	return db.NewSelect().Model(rows).ColumnExpr("r.*, p.name AS project").Join("JOIN projects AS p ON p.id = r.project_id")
}

// findRun returns one run by its ID; NotFound.
func findRun(ctx context.Context, db bun.IDB, id dstack.RunID, open func(runRow) (dstack.Run, error)) (dstack.Run, error) {
	var rows []runRow
	if err := selectRuns(db, &rows).Where("r.id = ?", string(id)).Scan(ctx); err != nil {
		return dstack.Run{}, err
	}
	if len(rows) == 0 {
		return dstack.Run{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no run " + string(id)}
	}
	return open(rows[0])
}

// rowOf is the row of a new run.
func (s *Store) rowOf(r dstack.Run) (runRow, error) {
	spec, err := s.sealSpec(r.ID, r.Spec)
	if err != nil {
		return runRow{}, err
	}
	row := runRow{
		ID: string(r.ID), ProjectID: string(r.ProjectID), Username: r.User, Name: r.Name, Repo: r.Spec.RepoID, Spec: spec,
		Revision: max(r.Revision, 1), Status: string(dstack.RunSubmitted), Reason: clean(r.Reason),
		Stop: string(dstack.StopNone), SubmittedAt: micros(r.SubmittedAt), Since: micros(r.SubmittedAt), Version: 1,
		turn: turn{Live: true, DueAt: new(micros(r.SubmittedAt))},
	}
	row.Auth = r.Spec.Configuration.Auth
	row.Model, row.Prefix, row.Format, row.Template, err = published(r.Spec)
	return row, err
}

// published is what the gateway needs to know of a run's model, kept in the
// open so that the route table is made without unsealing anything.
func published(spec dstack.RunSpec) (model, prefix, format, template string, err error) {
	m := spec.Configuration.Model
	if m == nil {
		return "", "", "", "", nil
	}
	if spec.Template != nil {
		text, err := json.Marshal(spec.Template)
		if err != nil {
			return "", "", "", "", fmt.Errorf("write the chat template of %s: %w", m.Name, err)
		}
		template = string(text)
	}
	return m.Name, m.Prefix, m.Format, template, nil
}

// orNow is for times that the caller left out.
func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now()
	}
	return t
}
