package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// ListHosts returns the hosts of all fleets, with their keys and what their fleets
// ask of them. A host of which that cannot be opened has no key.
func (s *Store) ListHosts(ctx context.Context) ([]dstack.Host, error) {
	var rows []hostWithFleet
	if err := selectHosts(s.reader).Scan(ctx, &rows); err != nil {
		return nil, wrapError(err)
	}
	resources, err := s.listFleetResources(ctx)
	if err != nil {
		return nil, wrapError(err)
	}
	hosts := make([]dstack.Host, 0, len(rows))
	for _, row := range rows {
		h, err := s.openHost(row)
		wanted, isKnown := resources[row.FleetID]
		if err != nil || !isKnown {
			h.Login.PrivateKey = ""
		}
		h.Resources = wanted
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// listFleetResources returns what each fleet asks its hosts for, by the ID of the
// fleet. A fleet whose configuration cannot be opened is missing.
func (s *Store) listFleetResources(ctx context.Context) (map[string]spec.Resources, error) {
	var rows []fleetRow
	if err := s.reader.NewSelect().Model(&rows).Column("id", "configuration").Scan(ctx); err != nil {
		return nil, err
	}
	of := make(map[string]spec.Resources, len(rows))
	for _, row := range rows {
		var configuration struct{ Resources spec.Resources }
		text, err := s.sealer.open(row.Configuration, row.sealName())
		if err == nil {
			err = json.Unmarshal([]byte(text), &configuration)
		}
		if err == nil {
			of[row.ID] = configuration.Resources
		}
	}
	return of, nil
}

// HostEnv returns the environment variables of every run on a host; none if the
// instance is no host of a fleet.
func (s *Store) HostEnv(ctx context.Context, id dstack.InstanceID) (map[string]string, error) {
	var rows []hostWithFleet
	if err := selectHosts(s.reader).Where("h.id = ?", string(id)).Scan(ctx, &rows); err != nil {
		return nil, wrapError(err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	h, err := s.openHost(rows[0])
	return h.Env, err
}

// PinHostKey records the first key that a host, or its jump host, showed, and
// returns the pinned one: that of another caller if it was faster. The key of a
// jump host is that of all hosts of the fleet behind it. It fails with NotFound
// if the host does not exist.
func (s *Store) PinHostKey(ctx context.Context, id dstack.InstanceID, isJump bool, key string) (string, error) {
	var pinned []string
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		set := "UPDATE hosts SET host_key = ? WHERE id = ? AND host_key = ''"
		get := "SELECT host_key FROM hosts WHERE id = ?"
		if isJump {
			set = `UPDATE hosts SET jump_host_key = ? WHERE jump_host_key = '' AND jump_address <> '' AND (fleet_id, jump_address) IN
				(SELECT fleet_id, jump_address FROM hosts WHERE id = ?)`
			get = "SELECT jump_host_key FROM hosts WHERE id = ?"
		}
		if _, err := tx.NewRaw(set, key, string(id)).Exec(ctx); err != nil {
			return err
		}
		pinned = nil
		return tx.NewRaw(get, string(id)).Scan(ctx, &pinned)
	})
	if err != nil {
		return "", err
	}
	if len(pinned) == 0 {
		return "", &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the host %s is not there any more", id)}
	}
	return pinned[0], nil
}

// SaveHostCheck records a check of a host. It does nothing if the host does not
// exist any more, or was applied again after the check began.
func (s *Store) SaveHostCheck(ctx context.Context, id dstack.InstanceID, check dstack.HostCheck) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []hostRow
		if err := tx.NewSelect().Model(&rows).Where("id = ?", string(id)).Scan(ctx); err != nil || len(rows) == 0 {
			return err
		}
		row := rows[0]
		if isBefore(check, row.AppliedAt) {
			return nil
		}
		if err := row.setCheck(check); err != nil {
			return err
		}
		_, err := tx.NewRaw("UPDATE hosts SET status = ?, health = ? WHERE id = ? AND applied_at = ?", row.Status, row.Health, row.ID, row.AppliedAt).Exec(ctx)
		return err
	})
}

// RemoveLeftHosts removes the hosts that leave and on which nothing is left, and
// the fleets that are deleted and have no hosts. It reports whether it removed any.
func (s *Store) RemoveLeftHosts(ctx context.Context) (bool, error) {
	var leaving int
	err := s.reader.NewRaw("SELECT (SELECT COUNT(*) FROM hosts WHERE leaving) + (SELECT COUNT(*) FROM fleets WHERE deleting)").Scan(ctx, &leaving)
	if err != nil || leaving == 0 {
		return false, wrapError(err)
	}
	var removed int64
	err = s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		removed, err = removeLeft(ctx, tx)
		return err
	})
	return removed > 0, err
}

// removeLeft removes hosts that leave, once no unfinished replica is on them and
// what its engine reported is forgotten, and no gateway process. A host that does not answer reports
// nothing any more, so its replicas alone count.
func removeLeft(ctx context.Context, tx bun.Tx) (removed int64, err error) {
	hosts, err := rowsAffected(tx.NewRaw(`DELETE FROM hosts WHERE leaving
		AND NOT EXISTS (SELECT 1 FROM replicas AS r WHERE r.live AND r.instance_id = hosts.id)
		AND NOT EXISTS (SELECT 1 FROM gateway_placements AS g WHERE g.host_id = hosts.id)
		AND (status <> ? OR NOT EXISTS (SELECT 1 FROM reports AS p WHERE p.instance_id = hosts.id))`, string(dstack.HostReady)).Exec(ctx))
	if err != nil {
		return 0, err
	}
	fleets, err := rowsAffected(tx.NewRaw(`DELETE FROM fleets WHERE deleting
		AND NOT EXISTS (SELECT 1 FROM hosts AS h WHERE h.fleet_id = fleets.id)
		AND NOT EXISTS (SELECT 1 FROM cloud_fleets AS c WHERE c.id = fleets.id)`).Exec(ctx))
	return hosts + fleets, err
}
