package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"dstack/internal/decide/route"
	"dstack/internal/decide/status"
	"dstack/internal/dstack"
)

// Routes returns the route table: a route for each unfinished run, the oldest
// first, and the projects that each token opens. The caller sets Version;
// DrainSequence is the latest drain that the table knows. While nothing changes,
// the same table is returned. It must not be written to.
func (s *Store) Routes(ctx context.Context) (route.Table, error) {
	var table route.Table
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var now struct{ Drains, Changes int64 }
		if err := tx.NewRaw("SELECT drains, changes FROM installation").Scan(ctx, &now.Drains, &now.Changes); err != nil {
			return err
		}
		if last := s.table.Load(); last != nil && last.changes == now.Changes {
			table = last.Table
			return nil
		}
		var err error
		if table, err = s.readRoutes(ctx, tx); err != nil {
			return err
		}
		table.DrainSequence = now.Drains
		s.table.Store(&cachedTable{table, now.Changes})
		return nil
	})
	return table, err
}

// cachedTable is a route table and the number of changes that it contains.
type cachedTable struct {
	route.Table
	changes int64
}

func (s *Store) readRoutes(ctx context.Context, tx bun.Tx) (table route.Table, err error) {
	var runs []routeRow
	err = tx.NewRaw(`SELECT r.id, p.name_lower AS project, r.name, r.auth, r.model, r.prefix, r.format, r.template, r.rules, r.scales,
		r.wanted, r.submitted_at, r.status, r.reason, r.stop
		FROM runs AS r JOIN projects AS p ON p.id = r.project_id WHERE r.live ORDER BY r.submitted_at, r.id`).Scan(ctx, &runs)
	if err != nil {
		return table, err
	}
	var targets []targetRow
	err = tx.NewRaw(`SELECT r.run_id, r.id, r.num, r.status, r.reason, COALESCE(p.report, '') AS report
		FROM replicas AS r LEFT JOIN reports AS p ON p.attempt_id = r.attempt_id WHERE r.live ORDER BY r.num, r.submitted_at, r.id`).Scan(ctx, &targets)
	if err != nil {
		return table, err
	}
	if table.Routes, err = s.buildRoutes(runs, targets); err != nil {
		return table, err
	}
	table.Tokens, err = findTokens(ctx, tx)
	return table, err
}

type routeRow struct {
	ID, Project, Name string
	Auth              bool
	Model, Prefix     string
	Format, Template  string
	Rules             string
	Scales            bool
	Wanted            int
	SubmittedAt       int64
	Status, Reason    string
	Stop              string
}

type targetRow struct {
	RunID, ID      string
	Num            int
	Status, Reason string
	Report         string // empty: none yet
}

// summarize decides the state of a run, as the rows of its route tell it:
// enough to tell whether it stops, sleeps or is disabled.
func (r routeRow) summarize(replicas []targetRow) status.State {
	facts := status.Facts{Status: dstack.RunStatus(r.Status), Stop: dstack.StopRequest(r.Stop), DesiredReplicas: r.Wanted, Scales: r.Scales}
	for _, t := range replicas {
		facts.Replicas = append(facts.Replicas, status.Replica{Status: dstack.ReplicaStatus(t.Status)})
	}
	return status.Summarize(facts).State
}

func (s *Store) buildRoutes(runs []routeRow, targets []targetRow) ([]route.Route, error) {
	s.templates.retain(runs, func(r routeRow) string { return r.Template })
	s.rules.retain(runs, func(r routeRow) string { return r.Rules })
	byRun := map[string][]targetRow{}
	for _, t := range targets {
		byRun[t.RunID] = append(byRun[t.RunID], t)
	}
	all := make([]route.Route, len(runs))
	for i, run := range runs {
		r := route.Route{
			Run: dstack.RunID(run.ID), Project: run.Project, Name: run.Name, Auth: run.Auth,
			Model: run.Model, Prefix: run.Prefix, Format: run.Format, Since: fromMicros(run.SubmittedAt).Unix(),
		}
		var err error
		if r.Template, err = s.templates.open(run.ID, run.Template); err != nil {
			return nil, fmt.Errorf("read the chat template of run %s: %w", run.ID, err)
		}
		rules, err := s.rules.open(run.ID, run.Rules)
		if err != nil {
			return nil, fmt.Errorf("read the gateway's rules of run %s: %w", run.ID, err)
		}
		if rules != nil {
			r.Rules = *rules
		}
		if err := fillTargets(&r, run, byRun[run.ID]); err != nil {
			return nil, err
		}
		all[i] = r
	}
	return all, nil
}

// routeReasons tells clients why a run without replicas has none, by its
// state. In any other state the reasons of its replicas tell it.
var routeReasons = map[status.State]dstack.Reason{
	status.Sleeping: "asleep: nobody asked for it lately; the next request starts a replica",
	status.Disabled: "it has no replicas: its configuration says replicas: 0",
}

// fillTargets sets the targets of a route, or why there are none.
func fillTargets(r *route.Route, run routeRow, replicas []targetRow) error {
	state := run.summarize(replicas)
	r.IsStopping = state == status.Stopping
	var err error
	if r.Ready, err = targetsOf(replicas, dstack.ReplicaReady); err != nil || len(r.Ready) > 0 {
		return err
	}
	if r.Ready, err = targetsOf(replicas, dstack.ReplicaUnhealthy); err != nil {
		return err
	}
	if r.PanicMode = len(r.Ready) > 0; r.PanicMode {
		return nil
	}
	r.IsSleeping, r.NeverServes = state == status.Sleeping, state == status.Disabled
	if r.State = routeReasons[state]; r.State == "" {
		r.State = describeReplicas(run, replicas)
	}
	return nil
}

// targetsOf returns the replicas of a status that have an endpoint.
func targetsOf(replicas []targetRow, status dstack.ReplicaStatus) (targets []route.Target, err error) {
	for _, t := range replicas {
		if dstack.ReplicaStatus(t.Status) != status {
			continue
		}
		endpoint, err := findEndpoint(t)
		if err != nil {
			return nil, err
		}
		if endpoint.Address != "" {
			targets = append(targets, route.Target{Replica: dstack.ReplicaID(t.ID), Num: t.Num, Endpoint: endpoint})
		}
	}
	return targets, nil
}

// findEndpoint returns where a replica accepts connections; empty: it does not
// run, or its port is closed. Probes count in the replica's status.
func findEndpoint(t targetRow) (dstack.Endpoint, error) {
	if t.Report == "" {
		return dstack.Endpoint{}, nil
	}
	var rep dstack.Report
	if err := json.Unmarshal([]byte(t.Report), &rep); err != nil {
		return dstack.Endpoint{}, fmt.Errorf("read the report of replica %s: %w", t.ID, err)
	}
	if !rep.Ready || rep.State != dstack.AttemptRunning {
		return dstack.Endpoint{}, nil
	}
	return rep.Endpoint, nil
}

// describeReplicas returns why a run has no ready replica; never empty.
func describeReplicas(run routeRow, replicas []targetRow) dstack.Reason {
	if dstack.RunStatus(run.Status) == dstack.RunTerminating || len(replicas) == 0 {
		return joinReason(run.Status, run.Reason)
	}
	said := make([]string, 0, 1)
	for _, r := range replicas {
		text := string(joinReason(r.Status, r.Reason))
		if len(said) == 0 || said[len(said)-1] != text {
			said = append(said, text)
		}
	}
	return dstack.Reason(joinNames(said))
}

func joinReason(status, reason string) dstack.Reason {
	if reason == "" {
		return dstack.Reason(status)
	}
	return dstack.Reason(strings.Join([]string{status, reason}, ": "))
}

// findTokens maps each token's hash to the projects that it opens. A user without
// a project has an empty list.
func findTokens(ctx context.Context, tx bun.Tx) (map[string][]string, error) {
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
