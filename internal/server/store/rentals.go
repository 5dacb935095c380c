package store

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/cost"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

type rentalRow struct {
	bun.BaseModel `bun:"table:rentals,alias:re"`

	InstanceID  string `bun:",pk"`
	ProjectID   string
	Project     string
	Fleet       string
	Backend     string
	Region      string
	Zone        string
	Type        string
	Spot        bool
	Price       float64
	RequestedAt int64
	SeenAt      int64
	EndedAt     int64
}

type rentalUseRow struct {
	bun.BaseModel `bun:"table:rental_uses,alias:ru"`

	InstanceID string `bun:",pk"`
	RunID      string `bun:",pk"`
	Run        string
	Username   string
	Since      int64 `bun:",pk"`
	Until      int64
}

func (r rentalRow) toRental() dstack.Rental {
	return dstack.Rental{
		Instance: dstack.InstanceID(r.InstanceID), Project: dstack.ProjectID(r.ProjectID), ProjectName: r.Project, Fleet: r.Fleet, Backend: r.Backend,
		Region: r.Region, Zone: r.Zone, Type: r.Type, Spot: r.Spot, Price: r.Price, RequestedAt: fromMicros(r.RequestedAt),
		SeenAt: fromMicros(r.SeenAt), EndedAt: fromMicros(r.EndedAt),
	}
}

// SetBudgets sets how many dollars projects may spend on rented machines on a day, by their names in lower case. A project
// without a budget has no limit.
func (s *Store) SetBudgets(perDay map[string]float64) { s.budgets.Store(&perDay) }

// findBudget returns the budget of a project, and whether it has one.
func (s *Store) findBudget(project string) (perDay float64, has bool) {
	budgets := s.budgets.Load()
	if budgets == nil {
		return 0, false
	}
	perDay, has = (*budgets)[strings.ToLower(project)]
	return perDay, has
}

// startRental records a rented machine before it is requested. It fails with Conflict if the budget of its project does not
// allow it: placements that were decided on the same facts are checked one after the other.
func (s *Store) startRental(ctx context.Context, tx bun.Tx, i dstack.Instance, now time.Time) error {
	var project, fleet string
	if err := tx.NewRaw("SELECT COALESCE((SELECT name FROM projects WHERE id = ?), '')", string(i.Project)).Scan(ctx, &project); err != nil {
		return err
	}
	if err := tx.NewRaw("SELECT COALESCE((SELECT name FROM fleets WHERE id = ?), '')", string(i.Fleet)).Scan(ctx, &fleet); err != nil {
		return err
	}
	if perDay, has := s.findBudget(project); has {
		if err := s.lockProject(ctx, tx, i.Project); err != nil {
			return err
		}
		rentals, err := findBudgeted(ctx, tx, i.Project, project, cost.Midnight(now))
		if err != nil {
			return err
		}
		budget := cost.NewBudget(project, perDay, rentals, now)
		if why := budget.Refuse(i.Offer.Price); why != "" {
			return conflict(budget.Advice(i.Offer.Price), "%s", why)
		}
	}
	row := rentalRow{
		InstanceID: string(i.ID), ProjectID: string(i.Project), Project: project, Fleet: fleet, Backend: i.Backend, Region: i.Offer.Region, Zone: i.Offer.Zone,
		Type: i.Offer.Type, Spot: i.Offer.Spot, Price: i.Offer.Price, RequestedAt: toMicros(now),
	}
	_, err := tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx)
	return err
}

// saveRental records what a step of a rented machine means for its costs: that it exists, which run has it, and its end.
func saveRental(ctx context.Context, tx bun.Tx, seen lifecycle.InstanceFacts, next dstack.Instance, now time.Time) error {
	if next.Offer.OwnedInstance != "" {
		return nil
	}
	var rows []rentalRow
	if err := tx.NewSelect().Model(&rows).Where("instance_id = ?", string(next.ID)).Scan(ctx); err != nil || len(rows) == 0 {
		return err // an earlier version rented it
	}
	row := rows[0]
	if row.SeenAt == 0 && seen.Machine != nil {
		if _, err := tx.NewRaw("UPDATE rentals SET seen_at = ? WHERE instance_id = ?", toMicros(now), row.InstanceID).Exec(ctx); err != nil {
			return err
		}
	}
	if err := saveRentalUse(ctx, tx, row, seen, next, now); err != nil {
		return err
	}
	ended := toMicros(rentalEnd(next, now))
	if ended == row.EndedAt {
		return nil
	}
	_, err := tx.NewRaw("UPDATE rentals SET ended_at = ? WHERE instance_id = ?", ended, row.InstanceID).Exec(ctx)
	return err
}

// rentalEnd returns since when a rented machine has cost nothing; zero: it may cost something. A machine that is being deleted
// has ended when its backend does not list it any more; if it is listed again, it has not.
func rentalEnd(i dstack.Instance, now time.Time) time.Time {
	switch {
	case i.Status != dstack.InstanceDeleting && i.Status != dstack.InstanceDeleted:
		return time.Time{}
	case !i.UnlistedSince.IsZero() && !i.UnlistedSince.After(now):
		return i.UnlistedSince
	case i.Status == dstack.InstanceDeleted:
		return now
	default:
		return time.Time{}
	}
}

// saveRentalUse records which run has a rented machine now. The run that it was rented for has had it since it was requested.
func saveRentalUse(ctx context.Context, tx bun.Tx, row rentalRow, seen lifecycle.InstanceFacts, next dstack.Instance, now time.Time) error {
	var uses []rentalUseRow
	if err := tx.NewSelect().Model(&uses).Where("instance_id = ?", row.InstanceID).OrderExpr("since DESC").Limit(1).Scan(ctx); err != nil {
		return err
	}
	var run dstack.Run
	if len(seen.Replicas) > 0 && next.Status != dstack.InstanceDeleted {
		run = seen.Replicas[0].Run
	}
	isOpen := len(uses) > 0 && uses[0].Until == 0
	if isOpen && uses[0].RunID == string(run.ID) || !isOpen && run.ID == "" {
		return nil
	}
	if isOpen {
		_, err := tx.NewRaw("UPDATE rental_uses SET until = ? WHERE instance_id = ? AND until = 0", toMicros(now), row.InstanceID).Exec(ctx)
		if err != nil || run.ID == "" {
			return err
		}
	}
	use := rentalUseRow{InstanceID: row.InstanceID, RunID: string(run.ID), Run: run.Name, Username: run.User, Since: toMicros(now)}
	if len(uses) == 0 && row.Fleet == "" {
		use.Since = row.RequestedAt
	}
	_, err := tx.NewInsert().Model(&use).On("CONFLICT DO NOTHING").Exec(ctx)
	return err
}

// Rentals returns the rentals of projects that had not ended at a time, the oldest first. No projects: those of all.
func (s *Store) Rentals(ctx context.Context, since time.Time, projects ...dstack.ProjectID) (found []dstack.Rental, err error) {
	err = s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		found, err = findRentals(ctx, tx, projects, since)
		return err
	})
	return found, err
}

func findRentals(ctx context.Context, tx bun.Tx, projects []dstack.ProjectID, since time.Time) ([]dstack.Rental, error) {
	var rows []rentalRow
	query := tx.NewSelect().Model(&rows).Where("(ended_at = 0 OR ended_at > ?)", toMicros(since)).OrderExpr("requested_at, instance_id")
	if len(projects) > 0 {
		query.Where("project_id IN (?)", bun.List(toStrings(projects)))
	}
	if err := query.Scan(ctx); err != nil || len(rows) == 0 {
		return nil, err
	}
	found, at := make([]dstack.Rental, len(rows)), map[string]int{}
	for i, row := range rows {
		found[i], at[row.InstanceID] = row.toRental(), i
	}
	var uses []rentalUseRow
	few := tx.NewSelect().Model(&uses).Join("JOIN rentals AS re ON re.instance_id = ru.instance_id").
		Where("(re.ended_at = 0 OR re.ended_at > ?)", toMicros(since)).OrderExpr("ru.since, ru.run_id")
	if len(projects) > 0 {
		few.Where("re.project_id IN (?)", bun.List(toStrings(projects)))
	}
	if err := few.Scan(ctx); err != nil {
		return nil, err
	}
	for _, use := range uses {
		i, ok := at[use.InstanceID]
		if !ok {
			continue
		}
		found[i].Uses = append(found[i].Uses, dstack.RentalUse{Run: dstack.RunID(use.RunID), RunName: use.Run, User: use.Username,
			Since: fromMicros(use.Since), Until: fromMicros(use.Until)})
	}
	return found, nil
}

// Budget returns the budget of a project with what today costs so far. has is false for a project without one.
func (s *Store) Budget(ctx context.Context, id dstack.ProjectID, now time.Time) (b cost.Budget, has bool, err error) {
	if budgets := s.budgets.Load(); budgets == nil || len(*budgets) == 0 {
		return b, false, nil
	}
	var project string
	if err := s.reader.NewRaw("SELECT COALESCE((SELECT name FROM projects WHERE id = ?), '')", string(id)).Scan(ctx, &project); err != nil {
		return b, false, wrapError(err)
	}
	perDay, has := s.findBudget(project)
	if !has {
		return b, false, nil
	}
	var rentals []dstack.Rental
	err = s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		rentals, err = findBudgeted(ctx, tx, id, project, cost.Midnight(now))
		return err
	})
	return cost.NewBudget(project, perDay, rentals, now), true, err
}

// findBudgeted returns the rentals that the budget of a project has to pay: also those of deleted projects that had its name,
// or whoever may make projects could begin every day several times.
func findBudgeted(ctx context.Context, tx bun.Tx, id dstack.ProjectID, name string, since time.Time) ([]dstack.Rental, error) {
	var ids []string
	err := tx.NewRaw("SELECT DISTINCT project_id FROM rentals WHERE LOWER(project) = ? AND (ended_at = 0 OR ended_at > ?)",
		strings.ToLower(name), toMicros(since)).Scan(ctx, &ids)
	if err != nil {
		return nil, err
	}
	projects := []dstack.ProjectID{id}
	for _, other := range ids {
		projects = append(projects, dstack.ProjectID(other))
	}
	return findRentals(ctx, tx, projects, since)
}
