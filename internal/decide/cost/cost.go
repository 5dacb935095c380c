// Package cost decides what rented machines cost, and whether the budget of a project allows another one.
package cost

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dstack/internal/dstack"
)

// Group is what costs are added up by.
type Group string

// The groups.
const (
	ByRun     Group = "run"
	ByUser    Group = "user"
	ByBackend Group = "backend"
	ByFleet   Group = "fleet"
)

// Groups are all groups, for messages.
var Groups = []Group{ByRun, ByUser, ByBackend, ByFleet}

// The names of lines for what no run, user or fleet accounts for.
const (
	Idle    = "(idle)"
	NoFleet = "(no fleet)"
)

// Line is the cost of one run, user, backend or fleet.
type Line struct {
	Name     string
	Run      dstack.RunID // with ByRun; two runs may have had one name
	Cost     float64      // dollars
	Hours    float64      // of machines
	Rate     float64      // dollars per hour now
	Machines int          // that it has now
}

// Compute returns the cost of a rental between two times. A machine that its backend never listed did not exist, and one
// that still runs costs until now.
func Compute(r dstack.Rental, since, until, now time.Time) float64 {
	if r.SeenAt.IsZero() {
		return 0
	}
	return r.Price * overlap(r.RequestedAt, r.EndedAt, since, until, now).Hours()
}

// overlap returns how long an interval is within another one. An end that is zero is now.
func overlap(begin, end, since, until, now time.Time) time.Duration {
	if end.IsZero() || end.After(now) {
		end = now
	}
	if begin.Before(since) {
		begin = since
	}
	if end.After(until) {
		end = until
	}
	return max(end.Sub(begin), 0)
}

// isRunning reports whether a rental costs money at a time.
func isRunning(r dstack.Rental) bool { return r.EndedAt.IsZero() && !r.SeenAt.IsZero() }

// Sum adds up the costs of rentals since a time, the dearest first. The lines of every group have the same sum.
func Sum(rentals []dstack.Rental, by Group, since, now time.Time) []Line {
	type key struct {
		name string
		run  dstack.RunID
	}
	lines := map[key]*Line{}
	add := func(name string, run dstack.RunID, r dstack.Rental, took time.Duration, isNow bool) {
		line := lines[key{name, run}]
		if line == nil {
			line = &Line{Name: name, Run: run}
			lines[key{name, run}] = line
		}
		line.Cost += r.Price * took.Hours()
		line.Hours += took.Hours()
		if isNow {
			line.Rate += r.Price
			line.Machines++
		}
	}
	for _, r := range rentals {
		if r.SeenAt.IsZero() {
			continue
		}
		whole := overlap(r.RequestedAt, r.EndedAt, since, now, now)
		switch by {
		case ByBackend:
			add(r.Backend, "", r, whole, isRunning(r))
		case ByFleet:
			add(cmp.Or(r.Fleet, NoFleet), "", r, whole, isRunning(r))
		case ByRun, ByUser:
			addUses(add, r, by, whole, since, now)
		}
	}
	all := make([]Line, 0, len(lines))
	for _, line := range lines {
		if line.Hours > 0 || line.Machines > 0 {
			all = append(all, *line)
		}
	}
	slices.SortFunc(all, func(a, b Line) int {
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Run, b.Run))
	})
	return all
}

// addUses adds a rental to the runs or users that had it, and the rest of its time as idle.
func addUses(
	add func(string, dstack.RunID, dstack.Rental, time.Duration, bool), r dstack.Rental, by Group, whole time.Duration, since, now time.Time,
) {
	isUsed := false
	for _, use := range r.Uses {
		name, run := use.RunName, use.Run
		if by == ByUser {
			name, run = use.User, ""
		}
		end := use.Until
		if end.IsZero() {
			end = r.EndedAt
		}
		took := min(overlap(use.Since, end, since, now, now), whole)
		whole -= took
		isNow := isRunning(r) && use.Until.IsZero()
		isUsed = isUsed || isNow
		add(name, run, r, took, isNow)
	}
	add(Idle, "", r, whole, isRunning(r) && !isUsed)
}

// Dollars formats an amount: 0.71 $; 1234.50 $.
func Dollars(amount float64) string { return fmt.Sprintf("%.2f $", amount) }
