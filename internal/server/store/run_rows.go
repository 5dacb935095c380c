package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

type runRow struct {
	bun.BaseModel `bun:"table:runs,alias:r"`

	ID               string `bun:",pk"`
	ProjectID        string
	Project          string `bun:",scanonly"` // its name
	Username         string
	AuthorRole       string `bun:",scanonly"` // the user's global role now; empty: the user was deleted
	Name             string
	Spec             string
	Revision         int
	LatestRevision   int `bun:"newest"`
	TemplateRevision int `bun:"shape"`
	StableRevision   int `bun:"proven"`
	DesiredReplicas  int `bun:"wanted"`
	GroupCounts      string
	Status           string
	Reason           string
	Ending           string
	Stop             string
	SubmittedAt      int64
	Since            int64
	ScaledAt         int64
	StartedAt        int64
	ReadyAt          int64
	FinishedAt       int64
	Deleted          bool
	Version          int64
	publicSpec
	schedule
}

// openRun turns a row into a run. With an error, everything but the spec is there.
func (s *Store) openRun(row runRow) (dstack.Run, error) {
	spec, err := s.openSpec(row.ID, row.Spec)
	return row.toRun(spec), err
}

// openRunCached is openRun with a shared spec that must not be written to.
func (s *Store) openRunCached(row runRow) (dstack.Run, error) {
	spec, err := s.openSpecCached(specKey{run: row.ID}, row.Spec)
	return row.toRun(spec), err
}

func (row runRow) toRun(spec dstack.RunSpec) dstack.Run {
	return dstack.Run{
		ID: dstack.RunID(row.ID), ProjectID: dstack.ProjectID(row.ProjectID), Project: row.Project,
		User: row.Username, IsGlobalAdmin: row.AuthorRole == string(dstack.RoleAdmin), Name: row.Name, Spec: spec,
		Revision: row.Revision, LatestRevision: row.LatestRevision, TemplateRevision: row.TemplateRevision, StableRevision: row.StableRevision, DesiredReplicas: row.DesiredReplicas, Groups: readGroupCounts(row.GroupCounts),
		Status: dstack.RunStatus(row.Status), Reason: dstack.Reason(row.Reason),
		Ending: dstack.Ending(row.Ending), Stop: dstack.StopRequest(row.Stop),
		SubmittedAt: fromMicros(row.SubmittedAt), Since: fromMicros(row.Since), ScaledAt: fromMicros(row.ScaledAt), StartedAt: fromMicros(row.StartedAt),
		ReadyAt: fromMicros(row.ReadyAt), FinishedAt: fromMicros(row.FinishedAt),
		Deleted: row.Deleted, Version: row.Version,
	}
}

// openRuns turns rows into runs with shared specs, which must not be written to. A run
// whose spec cannot be read says so in its reason.
func (s *Store) openRuns(rows []runRow) []dstack.Run {
	return mapRows(rows, func(row runRow) dstack.Run {
		run, err := s.openRunCached(row)
		if err != nil {
			run.Reason = "its configuration cannot be read any more: " + dstack.Reason(err.Error())
		}
		return run
	})
}

// selectRuns begins a query for runs with the names of their projects and the roles of
// their users.
func selectRuns(db bun.IDB, rows *[]runRow) *bun.SelectQuery {
	const authorRole = "COALESCE((SELECT u.global_role FROM users AS u WHERE u.name = r.username), '') AS author_role"
	return db.NewSelect().Model(rows).ColumnExpr("r.*, p.name AS project, " + authorRole).
		Join("JOIN projects AS p ON p.id = r.project_id")
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

// newRunRow returns the row of a new run, due when it was submitted.
func (s *Store) newRunRow(r dstack.Run) (runRow, error) {
	spec, err := s.sealSpec(r.ID, r.Spec)
	if err != nil {
		return runRow{}, err
	}
	row := runRow{
		ID: string(r.ID), ProjectID: string(r.ProjectID), Username: r.User, Name: r.Name, Spec: spec,
		Revision: 1, LatestRevision: 1, TemplateRevision: 1, DesiredReplicas: r.Spec.Configuration.Replicas.Min,
		Status: string(dstack.RunSubmitted), Reason: cleanText(r.Reason),
		Stop: string(dstack.StopNone), SubmittedAt: toMicros(r.SubmittedAt), Since: toMicros(r.SubmittedAt), ScaledAt: toMicros(r.SubmittedAt), Version: 1,
		schedule: schedule{Live: true, DueAt: new(toMicros(r.SubmittedAt))},
	}
	if row.GroupCounts, err = writeGroupCounts(lifecycle.NewGroupCounts(r.Spec.Configuration, r.SubmittedAt)); err != nil {
		return row, err
	}
	row.publicSpec, err = publishSpec(r.Spec)
	return row, err
}

// writeGroupCounts returns the desired numbers of groups as they are stored.
func writeGroupCounts(counts map[string]dstack.GroupCount) (string, error) {
	if len(counts) == 0 {
		return "", nil
	}
	text, err := json.Marshal(counts)
	if err != nil {
		return "", fmt.Errorf("write the numbers of replicas of groups: %w", err)
	}
	return string(text), nil
}

// readGroupCounts returns stored numbers of groups. Without them, each group begins with its
// minimum again.
func readGroupCounts(text string) map[string]dstack.GroupCount {
	var counts map[string]dstack.GroupCount
	if text == "" || json.Unmarshal([]byte(text), &counts) != nil {
		return nil
	}
	return counts
}

// publicSpec is the part of a run's spec that queries and the route table need. It
// is stored unencrypted.
type publicSpec struct {
	Repo     string
	Auth     bool
	Model    string
	Prefix   string
	Format   string // of the model: openai, tgi
	Template string // JSON of a dstack.ChatTemplate; empty: none
	Rules    string // JSON of storedRules; empty: an earlier version found none
	Scales   bool   // replicas is a range
}

// storedRules are the rules of a run, and its gateway. They share a column because earlier versions read runs with all
// columns, and refuse one that they do not know.
type storedRules struct {
	route.Rules
	Gateway *string `json:"gateway,omitempty"` // see spec.Service.Gateway; nil: an earlier version wrote the row
}

// setPublic writes all columns of a publicSpec; args returns their values.
const setPublic = "repo = ?, auth = ?, model = ?, prefix = ?, format = ?, template = ?, rules = ?, scales = ?"

func (o publicSpec) args() []any {
	return []any{o.Repo, o.Auth, o.Model, o.Prefix, o.Format, o.Template, o.Rules, o.Scales}
}

// publishSpec returns the public part of a spec.
func publishSpec(rs dstack.RunSpec) (publicSpec, error) {
	conf := rs.Configuration
	o := publicSpec{Repo: rs.RepoID, Auth: conf.Auth, Scales: conf.Replicas.Min != conf.Replicas.Max}
	text, err := json.Marshal(storedRules{rulesOf(conf), new(string(conf.Gateway))})
	if err != nil {
		return o, fmt.Errorf("write the rules of the gateway: %w", err)
	}
	o.Rules = string(text)
	if conf.Model == nil {
		return o, nil
	}
	o.Model, o.Prefix, o.Format = conf.Model.Name, conf.Model.Prefix, conf.Model.Format
	if rs.Template != nil {
		text, err := json.Marshal(rs.Template)
		if err != nil {
			return o, fmt.Errorf("write the chat template of %s: %w", conf.Model.Name, err)
		}
		o.Template = string(text)
	}
	return o, nil
}

// rulesOf returns what a configuration asks of gateways.
func rulesOf(conf spec.Service) route.Rules {
	rules := route.Rules{Limits: conf.RateLimits}
	if scaling := conf.FindScaling(); scaling != nil && scaling.Window != nil { // the same in all groups
		rules.Window = time.Duration(*scaling.Window) * time.Second
	}
	if conf.Hold != nil {
		rules.Hold = *conf.Hold
	}
	return rules
}

// orNow returns t, or the present time if t is zero.
func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now()
	}
	return t
}
