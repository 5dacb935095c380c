package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/decide/fleet"
	"dstack/internal/dstack"
)

// ListFleets returns the fleets of projects with their hosts, the oldest first.
// Keys and environment variables of hosts are left out.
func (s *Store) ListFleets(ctx context.Context, projects []dstack.ProjectID) ([]dstack.Fleet, error) {
	if len(projects) == 0 {
		return nil, nil
	}
	var fleets []dstack.Fleet
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		fleets, err = s.findFleets(ctx, tx, func(q *bun.SelectQuery) { q.Where("f.project_id IN ?", bun.Tuple(projects)) })
		return err
	})
	return fleets, err
}

// FindFleet returns a fleet of a project with its hosts, as ListFleets does; NotFound.
func (s *Store) FindFleet(ctx context.Context, p dstack.ProjectID, name string) (dstack.Fleet, error) {
	var fleet dstack.Fleet
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		fleet, err = s.findFleet(ctx, tx, p, name)
		return err
	})
	return fleet, err
}

func (s *Store) findFleet(ctx context.Context, db bun.IDB, p dstack.ProjectID, name string) (dstack.Fleet, error) {
	fleets, err := s.findFleets(ctx, db, func(q *bun.SelectQuery) { q.Where("f.project_id = ? AND f.name = ?", string(p), name) })
	if err != nil {
		return dstack.Fleet{}, err
	}
	if len(fleets) == 0 {
		return dstack.Fleet{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no fleet named %q", name),
			Hint: "list them: dstack fleet list"}
	}
	return fleets[0], nil
}

// ApplyFleet creates a fleet, or replaces the configuration of an existing one.
// A host that is in the fleet already, with the same address and user, keeps its
// ID, its number, its pinned key and what its checks found; other hosts are new.
// Hosts that are missing are marked as leaving. All are checked at once. A kept
// host without a key in f keeps the one that it has.
//
// Of f, only Project, Name, Configuration, Author and Hosts matter; of a host,
// only Name, Login and Jump without HostKey, and Env. It fails with Invalid if a
// new host has no key.
func (s *Store) ApplyFleet(ctx context.Context, f dstack.Fleet, now time.Time) (dstack.Fleet, error) {
	now = orNow(now)
	var applied dstack.Fleet
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
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
		if err := s.putHosts(ctx, tx, row, f.Hosts, now); err != nil {
			return err
		}
		if _, err := removeLeft(ctx, tx); err != nil {
			return err
		}
		applied, err = s.findFleet(ctx, tx, f.Project, f.Name)
		return err
	})
	if err != nil {
		return dstack.Fleet{}, err
	}
	return applied, nil
}

// putFleet writes the row of a fleet.
func (s *Store) putFleet(ctx context.Context, tx bun.Tx, f dstack.Fleet, now time.Time) (fleetRow, error) {
	var rows []fleetRow
	err := tx.NewSelect().Model(&rows).Where("project_id = ? AND name = ?", string(f.Project), f.Name).Scan(ctx)
	if err != nil {
		return fleetRow{}, err
	}
	row := fleetRow{ID: uuid.NewString(), ProjectID: string(f.Project), Name: f.Name, CreatedAt: toMicros(now)}
	if len(rows) > 0 {
		row = rows[0]
	}
	row.Username, row.AppliedAt, row.Deleting = f.Author, toMicros(now), false
	if err := s.sealFleet(&row, f); err != nil {
		return row, err
	}
	_, err = tx.NewInsert().Model(&row).On("CONFLICT (id) DO UPDATE").
		Set("configuration = EXCLUDED.configuration, username = EXCLUDED.username, applied_at = EXCLUDED.applied_at, deleting = EXCLUDED.deleting").Exec(ctx)
	return row, err
}

// putHosts writes the hosts of a fleet, and marks those that are missing as leaving.
func (s *Store) putHosts(ctx context.Context, tx bun.Tx, row fleetRow, wanted []dstack.Host, now time.Time) error {
	var rows []hostWithFleet
	if err := selectHosts(tx).Where("h.fleet_id = ?", row.ID).Scan(ctx, &rows); err != nil {
		return err
	}
	known := make([]dstack.Host, len(rows))
	for i, one := range rows {
		var err error
		if known[i], err = s.openHost(one); err != nil {
			return err
		}
	}
	next := fleet.MergeHosts(known, wanted, row.NextNum, newHostID, now)
	for _, h := range next {
		if !h.IsLeaving && h.Login.PrivateKey == "" {
			return &dstack.Error{Kind: dstack.Invalid, Message: "No ssh key specified for host " + h.Name, Hint: "write identity_file:"}
		}
		if h.Jump != nil && !h.IsLeaving && h.Jump.PrivateKey == "" {
			return &dstack.Error{Kind: dstack.Invalid, Message: "No ssh key specified for jump host " + h.Jump.Address, Hint: "write identity_file: below proxy_jump:"}
		}
		sealed, err := s.sealHost(row.ID, h)
		if err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(&sealed).On("CONFLICT (id) DO UPDATE").
			Set(`name = EXCLUDED.name, address = EXCLUDED.address, username = EXCLUDED.username, jump_address = EXCLUDED.jump_address,
				jump_username = EXCLUDED.jump_username, access = EXCLUDED.access, host_key = EXCLUDED.host_key, jump_host_key = EXCLUDED.jump_host_key,
				leaving = EXCLUDED.leaving, status = EXCLUDED.status, health = EXCLUDED.health, applied_at = EXCLUDED.applied_at`).Exec(ctx)
		if err != nil {
			return err
		}
		row.NextNum = max(row.NextNum, h.Num+1)
		if err := markHostDue(ctx, tx, h.ID, now); err != nil {
			return err
		}
	}
	_, err := tx.NewRaw("UPDATE fleets SET next_num = ? WHERE id = ?", row.NextNum, row.ID).Exec(ctx)
	return err
}

func newHostID() dstack.InstanceID { return dstack.InstanceID(uuid.NewString()) }

// DeleteFleets removes fleets of a project. Their hosts leave as soon as nothing
// runs on them. It deletes none and fails with NotFound if one does not exist, and
// with Conflict if replicas run on hosts that are not drained.
func (s *Store) DeleteFleets(ctx context.Context, p dstack.ProjectID, names []string, now time.Time) error {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		for _, name := range names {
			f, err := s.findFleet(ctx, tx, p, name)
			if err != nil {
				return err
			}
			used, err := findUsedHost(ctx, tx, f.Hosts)
			if err != nil {
				return err
			}
			if used != nil || findUsedMachine(f.Instances) != nil {
				return conflict(fmt.Sprintf("stop its runs, or place them elsewhere first: dstack fleet drain %s --all", name),
					"Failed to delete fleet %s. Fleet is in use.", name)
			}
			if _, err := tx.NewRaw("UPDATE fleets SET deleting = TRUE WHERE id = ?", string(f.ID)).Exec(ctx); err != nil {
				return err
			}
			if err := markLeaving(ctx, tx, f.Hosts, now); err != nil {
				return err
			}
			if err := markDue(ctx, tx, CloudFleets, now, "id = ?", string(f.ID)); err != nil {
				return err
			}
		}
		_, err := removeLeft(ctx, tx)
		return err
	})
}

// DeleteHosts removes hosts of a fleet by number, as DeleteFleets does with all.
func (s *Store) DeleteHosts(ctx context.Context, p dstack.ProjectID, name string, nums []int, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		f, err := s.findFleet(ctx, tx, p, name)
		if err != nil {
			return err
		}
		if f.IsRented() {
			return deleteMachines(ctx, tx, f, nums, now)
		}
		hosts, err := selectByNum(f, nums)
		if err != nil {
			return err
		}
		if used, err := findUsedHost(ctx, tx, hosts); err != nil {
			return err
		} else if used != nil {
			return conflict(fmt.Sprintf("stop its runs, or place them elsewhere first: dstack fleet drain %s %s", name, used.Name),
				"Failed to delete instance %d of fleet %s. Instance is in use.", used.Num, name)
		}
		if err := markLeaving(ctx, tx, hosts, now); err != nil {
			return err
		}
		_, err = removeLeft(ctx, tx)
		return err
	})
}

// SetDraining drains hosts of a fleet by number, all if there are no numbers, or
// uses them again. It returns the fleet. It fails with NotFound if one does not exist.
func (s *Store) SetDraining(
	ctx context.Context, p dstack.ProjectID, name string, nums []int, isDraining bool, now time.Time,
) (dstack.Fleet, error) {
	var f dstack.Fleet
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		var err error
		if f, err = s.findFleet(ctx, tx, p, name); err != nil {
			return err
		}
		if f.IsRented() {
			machines := f.Instances
			if len(nums) > 0 {
				if machines, err = selectMachines(f, nums); err != nil {
					return err
				}
			}
			if err := drainMachines(ctx, tx, machines, isDraining, now); err != nil {
				return err
			}
			f, err = s.findFleet(ctx, tx, p, name)
			return err
		}
		hosts := f.Hosts
		if len(nums) > 0 {
			if hosts, err = selectByNum(f, nums); err != nil {
				return err
			}
		}
		for _, h := range hosts {
			if _, err := tx.NewRaw("UPDATE hosts SET draining = ? WHERE id = ?", isDraining, string(h.ID)).Exec(ctx); err != nil {
				return err
			}
			if err := markHostDue(ctx, tx, h.ID, now); err != nil {
				return err
			}
		}
		f, err = s.findFleet(ctx, tx, p, name)
		return err
	})
	return f, err
}

// maxMissingHosts is how many numbers of hosts that do not exist an error names.
const maxMissingHosts = 10

// selectByNum returns the hosts of a fleet that have these numbers, each once; NotFound.
func selectByNum(f dstack.Fleet, nums []int) ([]dstack.Host, error) {
	return selectNumbers(f.Hosts, nums, func(h dstack.Host) int { return h.Num }, "fleet "+f.Name+" has no host ", f.Name)
}

// selectNumbers returns the items that have these numbers, each once; NotFound, with a message that begins with what.
func selectNumbers[T any](items []T, nums []int, numOf func(T) int, what, fleet string) ([]T, error) {
	var found []T
	var missing []string
	for _, num := range slices.Compact(slices.Sorted(slices.Values(nums))) {
		i := slices.IndexFunc(items, func(item T) bool { return numOf(item) == num })
		if i < 0 {
			missing = append(missing, fmt.Sprint(num))
			continue
		}
		found = append(found, items[i])
	}
	if n := len(missing) - maxMissingHosts; n > 0 {
		missing = append(missing[:maxMissingHosts], fmt.Sprintf("and %d more", n))
	}
	if len(missing) > 0 {
		return nil, &dstack.Error{Kind: dstack.NotFound, Message: what + strings.Join(missing, ", "), Hint: "list them: dstack fleet get " + fleet}
	}
	return found, nil
}

// findUsedHost returns a host that unfinished replicas are on and that is not
// being drained; nil: there is none.
func findUsedHost(ctx context.Context, tx bun.Tx, hosts []dstack.Host) (*dstack.Host, error) {
	for i, h := range hosts {
		var replicas int
		err := tx.NewRaw("SELECT COUNT(*) FROM replicas WHERE live AND instance_id = ?", string(h.ID)).Scan(ctx, &replicas)
		if err != nil {
			return nil, err
		}
		if replicas > 0 && !h.IsDraining && !h.IsLeaving {
			return &hosts[i], nil
		}
	}
	return nil, nil
}

func markLeaving(ctx context.Context, tx bun.Tx, hosts []dstack.Host, now time.Time) error {
	for _, h := range hosts {
		if _, err := tx.NewRaw("UPDATE hosts SET leaving = TRUE WHERE id = ?", string(h.ID)).Exec(ctx); err != nil {
			return err
		}
		if err := markHostDue(ctx, tx, h.ID, now); err != nil {
			return err
		}
	}
	return nil
}

// markHostDue wakes the passes of a host's instance, its replicas and their runs.
func markHostDue(ctx context.Context, tx bun.Tx, id dstack.InstanceID, now time.Time) error {
	if err := markDue(ctx, tx, Runs, now, "id IN (SELECT run_id FROM replicas WHERE live AND instance_id = ?)", string(id)); err != nil {
		return err
	}
	if err := markDue(ctx, tx, Replicas, now, "instance_id = ?", string(id)); err != nil {
		return err
	}
	return markDue(ctx, tx, Instances, now, "id = ?", string(id))
}
