package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/decide/fleet"
	"dstack/internal/dstack"
)

// CloudFleets is the kind of the fleets whose machines are rented.
const CloudFleets Kind = "cloud_fleets"

type cloudFleetRow struct {
	bun.BaseModel `bun:"table:cloud_fleets,alias:cf"`

	ID      string `bun:",pk"`
	Profile string
	Rounds  string
	Version int64
	schedule
}

type fleetInstanceRow struct {
	bun.BaseModel `bun:"table:fleet_instances,alias:m"`

	InstanceID string `bun:",pk"`
	FleetID    string
	Num        int
	CreatedAt  int64
	Clustered  bool
	Draining   bool
	Leaving    bool
	Reason     string
}

func (r fleetInstanceRow) toFleetInstance() dstack.FleetInstance {
	return dstack.FleetInstance{Num: r.Num, CreatedAt: fromMicros(r.CreatedAt), IsClustered: r.Clustered, IsDraining: r.Draining, IsLeaving: r.Leaving, Reason: dstack.Reason(r.Reason)}
}

// ApplyCloudFleet creates a fleet of rented machines, or replaces the configuration of an existing one, whose machines
// stay. Of f, only Project, Name, Configuration, Profile and Author matter. It fails with Conflict if the fleet has hosts.
func (s *Store) ApplyCloudFleet(ctx context.Context, f dstack.Fleet, now time.Time) (dstack.Fleet, error) {
	now = orNow(now)
	if f.Profile.Name == "" {
		f.Profile.Name = "default" // a profile without a name could not be read again
	}
	profile, err := json.Marshal(f.Profile)
	if err != nil {
		return dstack.Fleet{}, fmt.Errorf("write the profile of fleet %s: %w", f.Name, err)
	}
	rounds, err := json.Marshal(dstack.FleetRounds{})
	if err != nil {
		return dstack.Fleet{}, err
	}
	var applied dstack.Fleet
	err = s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, f.Project); err != nil {
			return err
		}
		if err := s.refuseOtherType(ctx, tx, f); err != nil {
			return err
		}
		row, err := s.putFleet(ctx, tx, f, now)
		if err != nil {
			return err
		}
		_, err = tx.NewRaw(`INSERT INTO cloud_fleets (id, profile, rounds, version, live, due_at, touches, lease_owner, lease_until)
			VALUES (?, ?, ?, 0, TRUE, ?, 0, '', 0) ON CONFLICT (id) DO UPDATE
			SET profile = EXCLUDED.profile, rounds = EXCLUDED.rounds, version = cloud_fleets.version + 1, due_at = EXCLUDED.due_at, touches = cloud_fleets.touches + 1`,
			row.ID, cleanText(string(profile)), string(rounds), toMicros(now)).Exec(ctx)
		if err != nil {
			return err
		}
		applied, err = s.findFleet(ctx, tx, f.Project, f.Name)
		return err
	})
	return applied, err
}

// refuseOtherType fails with Conflict if a fleet exists, and its machines are of the other kind: rented ones, or hosts.
func (s *Store) refuseOtherType(ctx context.Context, tx bun.Tx, f dstack.Fleet) error {
	current, err := s.findFleet(ctx, tx, f.Project, f.Name)
	if dstack.KindOf(err) == dstack.NotFound || err == nil && current.IsRented() == f.IsRented() {
		return nil
	}
	if err != nil {
		return err
	}
	what := "hosts that are reached by SSH"
	if current.IsRented() {
		what = "rented machines"
	}
	return conflict("choose another name, or delete it first: dstack fleet delete "+f.Name, "the fleet %s has %s: it cannot get other machines", f.Name, what)
}

// addRented adds to cloud fleets their profile and their machines, and how far the rental is.
func addRented(ctx context.Context, db bun.IDB, fleets []dstack.Fleet) error {
	at := map[string]int{}
	for i, f := range fleets {
		if f.IsRented() {
			at[string(f.ID)] = i
		}
	}
	if len(at) == 0 {
		return nil
	}
	ids := make([]string, 0, len(at))
	for id := range at {
		ids = append(ids, id)
	}
	var rows []cloudFleetRow
	if err := db.NewSelect().Model(&rows).Where("cf.id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return err
	}
	for _, row := range rows {
		f := &fleets[at[row.ID]]
		if err := json.Unmarshal([]byte(row.Profile), &f.Profile); err != nil {
			return fmt.Errorf("read the profile of fleet %s: %w", f.Name, err)
		}
		if err := json.Unmarshal([]byte(row.Rounds), &f.Rounds); err != nil {
			return fmt.Errorf("read the rental of fleet %s: %w", f.Name, err)
		}
	}
	return addMachines(ctx, db, fleets, at, ids)
}

// addMachines adds the machines of cloud fleets, apart from those that are gone.
func addMachines(ctx context.Context, db bun.IDB, fleets []dstack.Fleet, at map[string]int, ids []string) error {
	var members []fleetInstanceRow
	if err := db.NewSelect().Model(&members).Where("m.fleet_id IN (?)", bun.List(ids)).OrderExpr("m.num, m.created_at, m.instance_id").Scan(ctx); err != nil {
		return err
	}
	if len(members) == 0 {
		return nil
	}
	names := mapRows(members, func(m fleetInstanceRow) string { return m.InstanceID })
	instances, err := findInstances(ctx, db, names)
	if err != nil {
		return err
	}
	var used []struct {
		InstanceID string
		Replicas   int
	}
	err = db.NewRaw("SELECT instance_id, COUNT(*) AS replicas FROM replicas WHERE live AND instance_id IN (?) GROUP BY instance_id", bun.List(names)).Scan(ctx, &used)
	if err != nil {
		return err
	}
	replicas := map[string]int{}
	for _, u := range used {
		replicas[u.InstanceID] = u.Replicas
	}
	for _, row := range members {
		m := row.toFleetInstance()
		var isKnown bool
		if m.Instance, isKnown = instances[dstack.InstanceID(row.InstanceID)]; !isKnown || isGone(m.Instance) {
			continue
		}
		m.Replicas = replicas[row.InstanceID]
		f := &fleets[at[row.FleetID]]
		f.Instances = append(f.Instances, m)
	}
	return nil
}

// isGone reports whether nothing is left of a machine, as far as its backend says. The instance pass looks for it for some
// minutes more.
func isGone(i dstack.Instance) bool {
	return i.Status == dstack.InstanceDeleted || i.Status == dstack.InstanceDeleting && !i.UnlistedSince.IsZero()
}

// CloudFleet returns a fleet with its rented machines, and the version of its row; NotFound.
func (s *Store) CloudFleet(ctx context.Context, id dstack.FleetID) (f dstack.Fleet, version int64, err error) {
	err = s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewRaw("SELECT COALESCE(MAX(version), 0) FROM cloud_fleets WHERE id = ?", string(id)).Scan(ctx, &version); err != nil {
			return err
		}
		fleets, err := s.findFleets(ctx, tx, func(q *bun.SelectQuery) { q.Where("f.id = ?", string(id)) })
		if err == nil && len(fleets) == 0 {
			err = &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no fleet %s", id)}
		}
		if err == nil {
			f = fleets[0]
		}
		return err
	})
	return f, version, err
}

// SaveFleetStep writes the step of a cloud fleet: the machines to rent, each with a row, and those that leave. A fleet
// that is gone is removed. It fails with Conflict if the fleet was changed meanwhile.
func (s *Store) SaveFleetStep(ctx context.Context, l Lease, seen dstack.Fleet, version int64, step fleet.RentedStep, now time.Time) error {
	rounds, err := json.Marshal(step.Rounds)
	if err != nil {
		return err
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := saveRow(ctx, tx, l, version, step.Due, "rounds = ?", cleanText(string(rounds))); err != nil {
			return err
		}
		if err := forgetGone(ctx, tx, seen); err != nil {
			return err
		}
		current := seen
		current.Instances = slices.Clone(seen.Instances)
		for _, o := range step.Rent {
			i := lifecycleInstance(o, seen, now)
			m := dstack.FleetInstance{Instance: i, Num: fleet.NextNum(current), CreatedAt: now, IsClustered: fleet.IsCluster(seen)}
			if err := s.putInstance(ctx, tx, i, now); err != nil {
				return err
			}
			if err := insertMachine(ctx, tx, seen.ID, m); err != nil {
				return err
			}
			current.Instances = append(current.Instances, m)
		}
		for _, d := range step.Leave {
			if err := markMachineLeaving(ctx, tx, d, now); err != nil {
				return err
			}
		}
		if !step.IsGone {
			return nil
		}
		_, err := tx.NewRaw("DELETE FROM fleets WHERE id = ? AND deleting", string(seen.ID)).Exec(ctx)
		return err
	})
}

// lifecycleInstance returns the instance of a machine that a fleet rents. The fleet decides how long it may be idle.
func lifecycleInstance(o dstack.Offer, f dstack.Fleet, now time.Time) dstack.Instance {
	return dstack.Instance{ID: dstack.InstanceID(uuid.NewString()), Backend: o.Key, Offer: o, Status: dstack.InstanceCreating, Since: now, IdleTime: -1,
		Project: f.Project, Fleet: f.ID}
}

func insertMachine(ctx context.Context, tx bun.Tx, id dstack.FleetID, m dstack.FleetInstance) error {
	row := fleetInstanceRow{InstanceID: string(m.Instance.ID), FleetID: string(id), Num: m.Num, CreatedAt: toMicros(m.CreatedAt), Clustered: m.IsClustered}
	_, err := tx.NewInsert().Model(&row).Exec(ctx)
	return err
}

// forgetGone removes the rows of machines of a fleet that are gone.
func forgetGone(ctx context.Context, tx bun.Tx, f dstack.Fleet) error {
	_, err := tx.NewRaw(`DELETE FROM fleet_instances WHERE fleet_id = ? AND NOT EXISTS (SELECT 1 FROM instances AS i
		WHERE i.id = fleet_instances.instance_id AND i.live AND NOT (i.status = ? AND i.unlisted_since <> 0))`,
		string(f.ID), string(dstack.InstanceDeleting)).Exec(ctx)
	return err
}

// markMachineLeaving lets a machine leave its fleet. Its idle time becomes 0, so that it is deleted even if its fleet is
// removed first.
func markMachineLeaving(ctx context.Context, tx bun.Tx, d fleet.Departure, now time.Time) error {
	_, err := tx.NewRaw("UPDATE fleet_instances SET leaving = TRUE, reason = ? WHERE instance_id = ? AND NOT leaving", cleanText(d.Reason), string(d.Instance)).Exec(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.NewRaw("UPDATE instances SET idle_time = 0 WHERE id = ?", string(d.Instance)).Exec(ctx); err != nil {
		return err
	}
	return markHostDue(ctx, tx, d.Instance, now)
}

// markFleetsDue wakes the pass over the fleet of an instance.
func markFleetsDue(ctx context.Context, tx bun.Tx, id dstack.InstanceID, now time.Time) error {
	return markDue(ctx, tx, CloudFleets, now, "id IN (SELECT fleet_id FROM fleet_instances WHERE instance_id = ?)", string(id))
}

// joinFleet makes an instance that a replica was placed on a machine of the fleet that its offer names. It does nothing
// without one, and fails with Conflict if the fleet has no room any more.
func (s *Store) joinFleet(ctx context.Context, tx bun.Tx, i dstack.Instance, project dstack.ProjectID, now time.Time) error {
	if i.Offer.Fleet == "" || i.Offer.OwnedInstance != "" {
		return nil
	}
	f, err := s.findFleet(ctx, tx, project, i.Offer.Fleet)
	if err == nil && s.kind == postgres {
		_, err = tx.NewRaw("SELECT 1 FROM cloud_fleets WHERE id = ? FOR UPDATE", string(f.ID)).Exec(ctx)
	}
	if err == nil {
		f, err = s.findFleet(ctx, tx, project, i.Offer.Fleet) // others may have added a machine while this waited for the row
	}
	if err != nil {
		return err
	}
	if !fleet.HasRoom(f) {
		return conflict(retryHint, "the fleet %s has all of its machines", f.Name)
	}
	if err := insertMachine(ctx, tx, f.ID, dstack.FleetInstance{Instance: i, Num: fleet.NextNum(f), CreatedAt: now, IsClustered: fleet.IsCluster(f)}); err != nil {
		return err
	}
	if _, err := tx.NewRaw("UPDATE instances SET idle_time = -1 WHERE id = ?", string(i.ID)).Exec(ctx); err != nil { // the fleet decides it
		return err
	}
	return markDue(ctx, tx, CloudFleets, now, "id = ?", string(f.ID))
}

// drainMachines drains rented machines of a fleet, or uses them again.
func drainMachines(ctx context.Context, tx bun.Tx, machines []dstack.FleetInstance, isDraining bool, now time.Time) error {
	for _, m := range machines {
		if _, err := tx.NewRaw("UPDATE fleet_instances SET draining = ? WHERE instance_id = ?", isDraining, string(m.Instance.ID)).Exec(ctx); err != nil {
			return err
		}
		if err := markHostDue(ctx, tx, m.Instance.ID, now); err != nil {
			return err
		}
	}
	return nil
}

// findMachine returns the place of an instance in a cloud fleet; nil: it belongs to none.
func findMachine(ctx context.Context, tx bun.Tx, i dstack.Instance) (*dstack.FleetInstance, error) {
	if i.Fleet == "" {
		return nil, nil
	}
	var rows []fleetInstanceRow
	err := tx.NewSelect().Model(&rows).Where("m.instance_id = ?", string(i.ID)).Scan(ctx)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return new(rows[0].toFleetInstance()), nil
}

// findUsedMachine returns a rented machine that unfinished replicas are on and that is not being drained; nil: there is
// none.
func findUsedMachine(machines []dstack.FleetInstance) *dstack.FleetInstance {
	for i, m := range machines {
		if m.Replicas > 0 && !m.IsDraining && !m.IsLeaving {
			return &machines[i]
		}
	}
	return nil
}

// selectMachines returns the rented machines of a fleet that have these numbers; NotFound.
func selectMachines(f dstack.Fleet, nums []int) ([]dstack.FleetInstance, error) {
	shown := slices.DeleteFunc(slices.Clone(f.Instances), func(m dstack.FleetInstance) bool { return !fleet.IsCounted(m) && !fleet.WasUsable(m) })
	return selectNumbers(shown, nums, func(m dstack.FleetInstance) int { return m.Num }, "fleet "+f.Name+" has no machine ", f.Name)
}

// deleteMachines removes rented machines from a fleet, which rents others if it has too few.
func deleteMachines(ctx context.Context, tx bun.Tx, f dstack.Fleet, nums []int, now time.Time) error {
	machines, err := selectMachines(f, nums)
	if err != nil {
		return err
	}
	if used := findUsedMachine(machines); used != nil {
		return conflict(fmt.Sprintf("stop its runs, or place them elsewhere first: dstack fleet drain %s %d", f.Name, used.Num),
			"Failed to delete instance %d of fleet %s. Instance is in use.", used.Num, f.Name)
	}
	for _, m := range machines {
		if err := markMachineLeaving(ctx, tx, fleet.Departure{Instance: m.Instance.ID, Reason: "a user deleted it"}, now); err != nil {
			return err
		}
	}
	return markDue(ctx, tx, CloudFleets, now, "id = ?", string(f.ID))
}

// checkNoCloudFleets refuses to delete projects that have fleets of rented machines: nothing would give these back.
func checkNoCloudFleets(ctx context.Context, tx bun.Tx, projects []string) error {
	var names []string
	err := tx.NewRaw(`SELECT p.name || '/' || f.name FROM cloud_fleets AS c JOIN fleets AS f ON f.id = c.id JOIN projects AS p ON p.id = f.project_id
		WHERE p.name_lower IN (?) ORDER BY p.name, f.name`, bun.List(projects)).Scan(ctx, &names)
	if err == nil && len(names) > 0 {
		err = conflict("delete these fleets first, and wait until they are gone: dstack fleet delete NAME --project PROJECT",
			"cannot delete projects: they have fleets of rented machines: %s", joinNames(names))
	}
	return err
}
