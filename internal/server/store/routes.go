package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// Routes returns the route table of everything: one route for each unfinished
// run, the oldest first, and whom each token is known by. Its version is left
// for the caller to number.
func (s *Store) Routes(ctx context.Context) (route.Table, error) {
	var table route.Table
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var runs []routeRow
		err := tx.NewRaw(`SELECT r.id, p.name_lower AS project, r.name, r.auth, r.model, r.prefix, r.format, r.template, r.submitted_at, r.status, r.reason
			FROM runs AS r JOIN projects AS p ON p.id = r.project_id WHERE r.live ORDER BY r.submitted_at, r.id`).Scan(ctx, &runs)
		if err != nil {
			return err
		}
		var targets []targetRow
		err = tx.NewRaw(`SELECT r.run_id, r.id, r.num, r.status, r.reason, COALESCE(p.report, '') AS report
			FROM replicas AS r LEFT JOIN reports AS p ON p.attempt_id = r.attempt_id WHERE r.live ORDER BY r.num, r.submitted_at, r.id`).Scan(ctx, &targets)
		if err != nil {
			return err
		}
		if table.Routes, err = s.routes(runs, targets); err != nil {
			return err
		}
		table.Tokens, err = tokens(ctx, tx)
		return err
	})
	return table, err
}

type routeRow struct {
	ID, Project, Name string
	Auth              bool
	Model, Prefix     string
	Format, Template  string
	SubmittedAt       int64
	Status, Reason    string
}

type targetRow struct {
	RunID, ID      string
	Num            int
	Status, Reason string
	Report         string // empty: none yet
}

func (s *Store) routes(runs []routeRow, targets []targetRow) ([]route.Route, error) {
	s.templates.keep(runs)
	byRun := map[string][]targetRow{}
	for _, t := range targets {
		byRun[t.RunID] = append(byRun[t.RunID], t)
	}
	all := make([]route.Route, len(runs))
	for i, run := range runs {
		r := route.Route{
			Run: dstack.RunID(run.ID), Project: run.Project, Name: run.Name, Auth: run.Auth,
			Model: run.Model, Prefix: run.Prefix, Format: run.Format, Since: at(run.SubmittedAt).Unix(),
		}
		var err error
		if r.Template, err = s.templates.open(run.ID, run.Template); err != nil {
			return nil, err
		}
		for _, t := range byRun[run.ID] {
			address, err := addressOf(t)
			if err != nil {
				return nil, err
			}
			if address != "" {
				r.Ready = append(r.Ready, route.Target{Replica: dstack.ReplicaID(t.ID), Num: t.Num, Address: address})
			}
		}
		if len(r.Ready) == 0 {
			r.State = stateOf(run, byRun[run.ID])
		}
		all[i] = r
	}
	return all, nil
}

// addressOf is where a replica answers; empty when it is not ready, or when
// its engine says that it is not any more.
func addressOf(t targetRow) (string, error) {
	if dstack.ReplicaStatus(t.Status) != dstack.ReplicaReady || t.Report == "" {
		return "", nil
	}
	var rep dstack.Report
	if err := json.Unmarshal([]byte(t.Report), &rep); err != nil {
		return "", fmt.Errorf("read the report of replica %s: %w", t.ID, err)
	}
	if !rep.Ready || rep.Outcome != dstack.OutcomeRunning {
		return "", nil
	}
	return rep.Address, nil
}

// stateOf says why a run has no ready replica. It is never empty.
func stateOf(run routeRow, replicas []targetRow) dstack.Reason {
	if dstack.RunStatus(run.Status) == dstack.RunTerminating || len(replicas) == 0 {
		return worded(run.Status, run.Reason)
	}
	said := make([]string, 0, 1)
	for _, r := range replicas {
		text := string(worded(r.Status, r.Reason))
		if len(said) == 0 || said[len(said)-1] != text {
			said = append(said, text)
		}
	}
	return dstack.Reason(list(said))
}

func worded(status, reason string) dstack.Reason {
	if reason == "" {
		return dstack.Reason(status)
	}
	return dstack.Reason(strings.Join([]string{status, reason}, ": "))
}

// tokens maps each token's hash to the projects that it opens. A user without
// a project is there too: known, and allowed nothing.
func tokens(ctx context.Context, tx bun.Tx) (map[string][]string, error) {
	var rows []struct{ TokenHash, GlobalRole, Project string }
	err := tx.NewRaw(`SELECT u.token_hash, u.global_role, COALESCE(p.name_lower, '') AS project FROM users AS u
		LEFT JOIN members AS m ON m.user_id = u.id LEFT JOIN projects AS p ON p.id = m.project_id ORDER BY p.name_lower`).Scan(ctx, &rows)
	if err != nil {
		return nil, err
	}
	opens := make(map[string][]string, len(rows))
	for _, row := range rows {
		switch {
		case dstack.Role(row.GlobalRole) == dstack.RoleAdmin:
			opens[row.TokenHash] = []string{"*"}
		case row.Project == "":
			opens[row.TokenHash] = []string{}
		default:
			opens[row.TokenHash] = append(opens[row.TokenHash], row.Project)
		}
	}
	return opens, nil
}
