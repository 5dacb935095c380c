package store

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/uptrace/bun"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// transactionChange is what a transaction changes that a route table contains.
type transactionChange struct {
	isCounted bool            // it changes something
	number    int64           // installation.changes after it
	runs      map[string]bool // the only runs whose routes it changes; nil: not known
	isWide    bool            // it changes more than the routes of runs
}

type transactionChangeKey struct{}

// withChange returns a context for a transaction; countChange and limitChange write to change.
func withChange(ctx context.Context, change *transactionChange) context.Context {
	return context.WithValue(ctx, transactionChangeKey{}, change)
}

// limitChange says that the transaction of ctx changes, of all that a route table contains, only the routes of these runs.
// Without it, the next table is read as a whole.
func limitChange(ctx context.Context, runs ...string) {
	change, ok := ctx.Value(transactionChangeKey{}).(*transactionChange)
	if !ok {
		return
	}
	if change.runs == nil {
		change.runs = map[string]bool{}
	}
	for _, run := range runs {
		change.runs[run] = true
	}
}

// widenChange takes back what limitChange said, and will say, of the transaction of ctx.
func widenChange(ctx context.Context) {
	if change, ok := ctx.Value(transactionChangeKey{}).(*transactionChange); ok {
		change.isWide = true
	}
}

// routeChanges remembers the latest changes of this process that concern the routes of few runs. It is safe for concurrent
// use. Changes of other servers are not in it.
type routeChanges struct {
	mu   sync.Mutex
	runs map[int64][]string // by transactionChange.number
}

const (
	maxRouteChanges = 4096
	maxPatchedRuns  = 64 // more are read faster with the whole table
)

// add remembers a committed change.
func (c *routeChanges) add(change transactionChange) {
	if change.runs == nil || change.isWide || len(change.runs) > maxPatchedRuns {
		return
	}
	runs := make([]string, 0, len(change.runs))
	for run := range change.runs {
		runs = append(runs, run)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs == nil || len(c.runs) >= maxRouteChanges {
		c.runs = map[int64][]string{}
	}
	c.runs[change.number] = runs
}

// since returns the runs whose routes changed after one number up to another, if these were all changes.
func (c *routeChanges) since(after, last int64) (runs []string, areAll bool) {
	if last < after || last-after > maxRouteChanges {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for number := after + 1; number <= last; number++ {
		changed, isKnown := c.runs[number]
		if !isKnown {
			return nil, false
		}
		runs = append(runs, changed...)
	}
	slices.Sort(runs)
	runs = slices.Compact(runs)
	return runs, len(runs) <= maxPatchedRuns
}

// patchRoutes returns a table with the present routes of some runs. All other parts are those of the table before.
func (s *Store) patchRoutes(ctx context.Context, tx bun.Tx, before route.Table, changed []string) (route.Table, error) {
	runs, targets, err := s.readRouteRows(ctx, tx, changed)
	if err != nil {
		return route.Table{}, err
	}
	fresh, err := s.buildRoutes(runs, targets, before.Gateways)
	if err != nil {
		return route.Table{}, err
	}
	table := before
	table.Routes = make([]route.Route, 0, len(before.Routes)+len(fresh))
	for _, r := range before.Routes {
		if _, isChanged := slices.BinarySearch(changed, string(r.Run)); !isChanged {
			table.Routes = append(table.Routes, r)
			continue
		}
		if at := slices.IndexFunc(fresh, func(f route.Route) bool { return f.Run == r.Run }); at >= 0 {
			table.Routes = append(table.Routes, fresh[at])
			fresh = slices.Delete(fresh, at, at+1)
		}
	}
	if len(fresh) > 0 { // a run that was not live before: such a change is never limited
		return s.readRoutes(ctx, tx)
	}
	return table, nil
}

// readRouteRows reads the rows of live runs and replicas that routes are made of: of some runs, or of all if ids is nil.
func (s *Store) readRouteRows(ctx context.Context, tx bun.Tx, ids []string) (runs []routeRow, targets []targetRow, err error) {
	ofRuns, ofTargets, args := "", "", []any{}
	if ids != nil {
		ofRuns, ofTargets, args = "AND r.id IN (?)", "AND r.run_id IN (?)", []any{bun.List(ids)}
	}
	err = tx.NewRaw(strings.Replace(routeRowsQuery, "$OF", ofRuns, 1), args...).Scan(ctx, &runs)
	if err != nil {
		return nil, nil, err
	}
	err = tx.NewRaw(strings.Replace(targetRowsQuery, "$OF", ofTargets, 1), append([]any{string(dstack.InstanceAway)}, args...)...).Scan(ctx, &targets)
	if err != nil {
		return nil, nil, err
	}
	return runs, targets, s.locateTargets(ctx, tx, targets)
}

const (
	routeRowsQuery = `SELECT r.id, p.name_lower AS project, r.name, r.auth, r.model, r.prefix, r.format, r.template, r.rules, r.scales,
		r.wanted, r.submitted_at, r.status, r.reason, r.stop, CASE WHEN r.rules LIKE '%"gateway":%' THEN '' ELSE r.spec END AS spec
		FROM runs AS r JOIN projects AS p ON p.id = r.project_id WHERE r.live $OF ORDER BY r.submitted_at, r.id`
	targetRowsQuery = `SELECT r.run_id, r.id, r.num, r.status, r.reason, COALESCE(p.report, '') AS report, COALESCE(i.status, '') IN (?, 'deleting') AS is_away, COALESCE(i.host, '') AS machine
		FROM replicas AS r LEFT JOIN reports AS p ON p.attempt_id = r.attempt_id LEFT JOIN instances AS i ON i.id = r.instance_id
		WHERE r.live $OF ORDER BY r.num, r.submitted_at, r.id`
)
