package cost

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
)

// Budget is what a project may spend on rented machines on a day of UTC, and what that day costs so far.
type Budget struct {
	Project   string
	PerDay    float64 // dollars; zero or less: nothing may be rented
	Spent     float64 // today
	Committed float64 // what the machines that exist cost until midnight, if they stay
	Now       time.Time
}

// NewBudget returns the budget of a project with what its rentals cost today. A machine that was requested counts although
// its backend does not list it yet.
func NewBudget(project string, perDay float64, rentals []dstack.Rental, now time.Time) Budget {
	b := Budget{Project: project, PerDay: perDay, Now: now}
	begin := Midnight(now)
	for _, r := range rentals {
		b.Spent += Compute(r, begin, now, now)
		if r.EndedAt.IsZero() {
			b.Committed += r.Price * b.hoursLeft()
			if r.SeenAt.IsZero() {
				b.Spent += r.Price * overlap(r.RequestedAt, time.Time{}, begin, now, now).Hours()
			}
		}
	}
	return b
}

// Midnight returns the beginning of a day of UTC.
func Midnight(now time.Time) time.Time {
	year, month, day := now.UTC().Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// hoursLeft returns how many hours the day still has.
func (b Budget) hoursLeft() float64 { return Midnight(b.Now).AddDate(0, 0, 1).Sub(b.Now).Hours() }

// Left returns what is neither spent nor needed for the machines that exist.
func (b Budget) Left() float64 { return b.PerDay - b.Spent - b.Committed }

// Refuse says why a machine with a price per hour may not be rented now; empty: it may. It counts until midnight, so that
// a day never costs more than its budget, except for machines that were rented before that day.
func (b Budget) Refuse(price float64) string {
	added := price * b.hoursLeft()
	if price <= 0 || added <= b.Left() {
		return ""
	}
	return fmt.Sprintf("the budget of project %s is %s a day: %s are spent today, %s are for its machines until midnight (UTC), and this one would add %s",
		b.Project, Dollars(b.PerDay), Dollars(b.Spent), Dollars(b.Committed), Dollars(added))
}

// Advice says what a user can do about a machine that was refused.
func (b Budget) Advice(price float64) string {
	needed := b.Spent + b.Committed + price*b.hoursLeft()
	return fmt.Sprintf("stop runs, or raise `budget: {per_day: %.2f}` in the server's config.yml, or wait until midnight (UTC)", needed+0.005)
}
