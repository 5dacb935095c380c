package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/decide/route"
	"dstack/internal/decide/status"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Routes returns the route table: a route for each unfinished run, the oldest
// first, the projects that each token opens, and all projects. After changes of few runs by this server, only these
// are read. The caller sets Version;
// DrainSequence is the latest drain that the table knows. While nothing changes,
// the same table is returned. It must not be written to.
func (s *Store) Routes(ctx context.Context) (route.Table, error) {
	var table route.Table
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var now struct{ Drains, Changes int64 }
		if err := tx.NewRaw("SELECT drains, changes FROM installation").Scan(ctx, &now.Drains, &now.Changes); err != nil {
			return err
		}
		last := s.table.Load()
		if last != nil && last.changes == now.Changes {
			table = last.Table
			return nil
		}
		var err error
		if last == nil {
			table, err = s.readRoutes(ctx, tx)
		} else if changed, areAll := s.routeChanges.since(last.changes, now.Changes); areAll {
			table, err = s.patchRoutes(ctx, tx, last.Table, changed)
		} else {
			table, err = s.readRoutes(ctx, tx)
		}
		if err != nil {
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
	runs, targets, err := s.readRouteRows(ctx, tx, nil)
	if err != nil {
		return table, err
	}
	s.templates.retain(runs, func(r routeRow) string { return r.Template })
	s.rules.retain(runs, func(r routeRow) string { return r.Rules })
	if table.Gateways, err = findRouteGateways(ctx, tx); err != nil {
		return table, err
	}
	if table.Routes, err = s.buildRoutes(runs, targets, table.Gateways); err != nil {
		return table, err
	}
	if table.Tokens, err = findTokens(ctx, tx); err != nil {
		return table, err
	}
	if table.Keys, err = findRouteKeys(ctx, tx, s.clock()); err != nil {
		return table, err
	}
	err = tx.NewRaw("SELECT name_lower FROM projects ORDER BY name_lower").Scan(ctx, &table.Projects)
	return table, err
}

// locateTargets says how this server reaches replicas on the machines of other servers: through those, if they run.
func (s *Store) locateTargets(ctx context.Context, tx bun.Tx, targets []targetRow) error {
	self := s.server.Load()
	if self == nil || !s.IsShared() {
		return nil
	}
	var rows []struct {
		ID    string
		Ended bool
	}
	if err := tx.NewRaw("SELECT id, ended FROM servers WHERE id <> ?", string(*self)).Scan(ctx, &rows); err != nil {
		return err
	}
	ended := make(map[string]bool, len(rows))
	for _, row := range rows {
		ended[row.ID] = row.Ended
	}
	for i := range targets {
		t := &targets[i]
		if hasEnded, isOther := ended[t.Machine]; isOther {
			t.Via, t.IsAway = dstack.ServerID(t.Machine).MachineHost(), t.IsAway || hasEnded
		}
	}
	return nil
}

type routeRow struct {
	ID, Project, Name string
	Auth              bool
	Model, Prefix     string
	Format, Template  string
	Rules             string
	Scales            bool
	DesiredReplicas   int `bun:"wanted"`
	SubmittedAt       int64
	Status, Reason    string
	Stop              string
	Spec              string // empty if Rules has the gateway
}

type targetRow struct {
	RunID, ID      string
	Num            int
	Status, Reason string
	Report         string // empty: none yet
	IsAway         bool
	Machine        string // the server on whose machine it is; empty: every server can reach it
	Via            string // the host of its endpoint; empty: that of its report
}

// facts collects what the targets of a run's route depend on. The rows tell
// enough to decide whether the run stops, sleeps or is disabled, but not its
// state in other cases.
func (r routeRow) facts(replicas []targetRow) (route.Facts, error) {
	facts := route.Facts{Status: dstack.RunStatus(r.Status), Reason: dstack.Reason(r.Reason),
		Replicas: make([]route.ReplicaFacts, len(replicas))}
	run := status.Facts{Status: facts.Status, Stop: dstack.StopRequest(r.Stop), DesiredReplicas: r.DesiredReplicas, Scales: r.Scales}
	for i, t := range replicas {
		replica, err := t.facts()
		if err != nil {
			return facts, err
		}
		facts.Replicas[i] = replica
		run.Replicas = append(run.Replicas, status.Replica{Status: replica.Status})
	}
	state := status.Summarize(run).State
	facts.IsStopping = state == status.Stopping
	facts.IsSleeping, facts.IsDisabled = state == status.Sleeping, state == status.Disabled
	return facts, nil
}

func (t targetRow) facts() (route.ReplicaFacts, error) {
	facts := route.ReplicaFacts{ID: dstack.ReplicaID(t.ID), Num: t.Num, Status: dstack.ReplicaStatus(t.Status), Reason: dstack.Reason(t.Reason), IsAway: t.IsAway}
	if t.Report == "" {
		return facts, nil
	}
	facts.Report = &dstack.Report{}
	if err := json.Unmarshal([]byte(t.Report), facts.Report); err != nil {
		return facts, fmt.Errorf("read the report of replica %s: %w", t.ID, err)
	}
	if facts.Report.Host == "" {
		facts.Report.Host = t.Via
	}
	return facts, nil
}

func (s *Store) buildRoutes(runs []routeRow, targets []targetRow, gateways []route.Gateway) ([]route.Route, error) {
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
		if rules == nil {
			rules = &storedRules{}
		}
		r.Rules = rules.Rules
		choice, err := s.gatewayChoice(run.ID, run.Spec, rules.Gateway)
		if err != nil {
			return nil, fmt.Errorf("read the gateway of run %s: %w", run.ID, err)
		}
		r.Gateway = route.ChooseGateway(gateways, run.Project, choice)
		facts, err := run.facts(byRun[run.ID])
		if err != nil {
			return nil, err
		}
		all[i] = r.WithTargets(facts)
	}
	return all, nil
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

// findRouteGateways returns the gateways that have a domain, as the processes that serve them know them.
func findRouteGateways(ctx context.Context, tx bun.Tx) ([]route.Gateway, error) {
	var rows []struct {
		ID, Project, Name, Domain, Backend, Proxies string
		IsDefault, Plain                            bool
	}
	err := tx.NewRaw(`SELECT g.id, p.name_lower AS project, g.name, g.domain, g.backend, g.proxies, g.is_default, g.plain FROM project_gateways AS g
		JOIN projects AS p ON p.id = g.project_id WHERE g.domain <> '' ORDER BY g.domain`).Scan(ctx, &rows)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	gateways := make([]route.Gateway, len(rows))
	for i, r := range rows {
		proxies, err := readNetworks(r.Proxies)
		if err != nil {
			return nil, fmt.Errorf("read the proxies of gateway %s: %w", r.ID, err)
		}
		gateways[i] = route.Gateway{ID: dstack.GatewayID(r.ID), Project: r.Project, Name: r.Name, Domain: r.Domain, IsDefault: r.IsDefault, IsPlain: r.Plain,
			IsLocal: r.Backend == spec.BackendLocal, TrustedProxies: proxies}
	}
	return gateways, nil
}
