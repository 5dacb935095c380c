package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type rentedHostRow struct {
	bun.BaseModel `bun:"table:rented_hosts,alias:rh"`

	InstanceID string `bun:",pk"`
	Backend    string
	Ref        string
	Region     string
	Zone       string
	Address    string
	Username   string
	HostKey    string
	Access     string
	CreatedAt  int64
	ReadyAt    int64
	Health     string
}

// sealName returns the name of the row for the Sealer.
func (r rentedHostRow) sealName() string { return "rented host/" + r.InstanceID }

// sealedMachineKeys is what a row of rented_hosts contains in its sealed column.
type sealedMachineKeys struct {
	LoginKey string `json:"login_key"`
	HostKey  string `json:"host_key"`
}

// rentedHostWithInstance is a machine with what its instance says.
type rentedHostWithInstance struct {
	rentedHostRow
	Offer  string
	Status string
}

// openRentedHost returns the machine of a row. One whose keys cannot be opened has none.
func (s *Store) openRentedHost(row rentedHostWithInstance) (dstack.RentedHost, error) {
	h := dstack.RentedHost{
		Instance: dstack.InstanceID(row.InstanceID), Backend: row.Backend, Status: dstack.InstanceStatus(row.Status), Ref: row.Ref,
		Region: row.Region, Zone: row.Zone, Login: dstack.SSHLogin{Address: row.Address, User: row.Username, HostKey: row.HostKey},
		CreatedAt: fromMicros(row.CreatedAt), ReadyAt: fromMicros(row.ReadyAt),
	}
	if err := json.Unmarshal([]byte(row.Health), &h.Check); err != nil {
		return h, fmt.Errorf("read the check of the machine of instance %s: %w", row.InstanceID, err)
	}
	if row.Offer != "" {
		if err := json.Unmarshal([]byte(row.Offer), &h.Offer); err != nil {
			return h, fmt.Errorf("read the offer of instance %s: %w", row.InstanceID, err)
		}
	}
	var access sealedMachineKeys
	text, err := s.sealer.open(row.Access, row.sealName())
	if err == nil && json.Unmarshal([]byte(text), &access) == nil {
		h.Login.PrivateKey, h.HostSecret = access.LoginKey, access.HostKey
	}
	return h, nil
}

// sealRentedHost returns the row of a machine.
func (s *Store) sealRentedHost(h dstack.RentedHost) (rentedHostRow, error) {
	row := rentedHostRow{
		InstanceID: string(h.Instance), Backend: h.Backend, Ref: h.Ref, Region: h.Region, Zone: h.Zone, Address: h.Login.Address,
		Username: h.Login.User, HostKey: h.Login.HostKey, CreatedAt: toMicros(h.CreatedAt), ReadyAt: toMicros(h.ReadyAt),
	}
	health, err := json.Marshal(h.Check)
	if err != nil {
		return row, fmt.Errorf("write the check of the machine of instance %s: %w", h.Instance, err)
	}
	access, err := json.Marshal(sealedMachineKeys{LoginKey: h.Login.PrivateKey, HostKey: h.HostSecret})
	if err != nil {
		return row, fmt.Errorf("write the keys of the machine of instance %s: %w", h.Instance, err)
	}
	row.Health = string(health)
	row.Access, err = s.sealer.seal(string(access), row.sealName())
	return row, err
}

// AddRentedHost records a machine before it is requested. It returns the recorded one: another one if the instance has one
// already, and isNew is false then.
func (s *Store) AddRentedHost(ctx context.Context, h dstack.RentedHost) (recorded dstack.RentedHost, isNew bool, err error) {
	row, err := s.sealRentedHost(h)
	if err != nil {
		return h, false, err
	}
	var found []rentedHostWithInstance
	err = s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if isNew = n == 1; err != nil || isNew {
			return err
		}
		found = nil
		return tx.NewSelect().TableExpr("rented_hosts AS rh").ColumnExpr("rh.*").Where("rh.instance_id = ?", row.InstanceID).Scan(ctx, &found)
	})
	if err != nil || isNew {
		return h, isNew, err
	}
	if len(found) == 0 {
		return h, false, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the machine of instance %s is being forgotten", h.Instance)}
	}
	recorded, err = s.openRentedHost(found[0])
	recorded.Offer, recorded.Status = h.Offer, h.Status
	return recorded, false, err
}

// ListRentedHosts returns the machines of a backend whose instances are not deleted, with their private keys.
func (s *Store) ListRentedHosts(ctx context.Context, backend string) ([]dstack.RentedHost, error) {
	var rows []rentedHostWithInstance
	err := s.reader.NewSelect().TableExpr("rented_hosts AS rh").ColumnExpr("rh.*, i.offer, i.status").Join("JOIN instances AS i ON i.id = rh.instance_id").
		Where("rh.backend = ? AND i.live", backend).Scan(ctx, &rows)
	if err != nil {
		return nil, wrapError(err)
	}
	hosts := make([]dstack.RentedHost, 0, len(rows))
	for _, row := range rows {
		h, err := s.openRentedHost(row)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// SaveRentedHost records where a machine is, how it is reached, since when it is ready, and its check. What another server knows
// and this one does not stays. It does nothing if the machine is not recorded any more.
func (s *Store) SaveRentedHost(ctx context.Context, h dstack.RentedHost) error {
	health, err := json.Marshal(h.Check)
	if err != nil {
		return fmt.Errorf("write the check of the machine of instance %s: %w", h.Instance, err)
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw(`UPDATE rented_hosts SET health = ?, region = ?, zone = ?,
			ref = CASE WHEN ? = '' THEN ref ELSE ? END, address = CASE WHEN ? = '' THEN address ELSE ? END,
			ready_at = CASE WHEN ready_at = 0 THEN ? ELSE ready_at END WHERE instance_id = ?`,
			string(health), h.Region, h.Zone, h.Ref, h.Ref, h.Login.Address, h.Login.Address, toMicros(h.ReadyAt), string(h.Instance)).Exec(ctx)
		return err
	})
}

// CountRentedHosts returns how many machines of each backend are rented, by its key.
func (s *Store) CountRentedHosts(ctx context.Context) (map[string]int, error) {
	var rows []struct {
		Backend string
		N       int
	}
	err := s.reader.NewRaw(`SELECT rh.backend, COUNT(*) AS n FROM rented_hosts AS rh JOIN instances AS i ON i.id = rh.instance_id
		WHERE i.live GROUP BY rh.backend`).Scan(ctx, &rows)
	counts := make(map[string]int, len(rows))
	for _, row := range rows {
		counts[row.Backend] = row.N
	}
	return counts, wrapError(err)
}

// ListRented returns the instances and volumes of all backends that are not deleted, so that their machines and disks may exist.
func (s *Store) ListRented(ctx context.Context) (map[dstack.InstanceID]bool, map[dstack.VolumeID]bool, error) {
	var instanceIDs, volumeIDs []string
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewRaw("SELECT id FROM instances WHERE live").Scan(ctx, &instanceIDs); err != nil {
			return err
		}
		return tx.NewRaw("SELECT id FROM volumes").Scan(ctx, &volumeIDs)
	})
	if err != nil {
		return nil, nil, wrapError(err)
	}
	instances, volumes := make(map[dstack.InstanceID]bool, len(instanceIDs)), make(map[dstack.VolumeID]bool, len(volumeIDs))
	for _, id := range instanceIDs {
		instances[dstack.InstanceID(id)] = true
	}
	for _, id := range volumeIDs {
		volumes[dstack.VolumeID(id)] = true
	}
	return instances, volumes, nil
}

type leftoverRow struct {
	bun.BaseModel `bun:"table:cloud_leftovers"`

	Backend   string `bun:",pk"`
	Kind      string `bun:",pk"`
	Region    string `bun:",pk"`
	Ref       string `bun:",pk"`
	Detail    string
	FirstSeen int64
	LastSeen  int64
	RemovedAt int64
	LastError string
}

func (r leftoverRow) toLeftover() dstack.Leftover {
	return dstack.Leftover{
		Backend: r.Backend, Kind: r.Kind, Region: r.Region, Ref: r.Ref, Detail: r.Detail, FirstSeenAt: fromMicros(r.FirstSeen),
		LastSeenAt: fromMicros(r.LastSeen), RemovedAt: fromMicros(r.RemovedAt), LastError: r.LastError,
	}
}

// SaveLeftovers records what a sweep of a backend found, and returns it with the times when each was seen first. What is not
// found any more is forgotten, together with the keys of machines whose instances are deleted.
func (s *Store) SaveLeftovers(ctx context.Context, backend string, found []dstack.Leftover, now time.Time) ([]dstack.Leftover, error) {
	at := toMicros(now)
	var rows []leftoverRow
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		for _, l := range found {
			_, err := tx.NewRaw(`INSERT INTO cloud_leftovers (backend, kind, region, ref, detail, first_seen, last_seen, removed_at, last_error)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (backend, kind, region, ref) DO UPDATE SET last_seen = excluded.last_seen,
				detail = excluded.detail, last_error = excluded.last_error,
				removed_at = CASE WHEN excluded.removed_at = 0 THEN cloud_leftovers.removed_at ELSE excluded.removed_at END`,
				backend, l.Kind, l.Region, l.Ref, cleanText(l.Detail), at, at, toMicros(l.RemovedAt), cleanText(l.LastError)).Exec(ctx)
			if err != nil {
				return err
			}
		}
		if _, err := tx.NewRaw("DELETE FROM cloud_leftovers WHERE backend = ? AND last_seen <> ?", backend, at).Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewRaw(`DELETE FROM rented_hosts WHERE backend = ?
			AND EXISTS (SELECT 1 FROM instances AS i WHERE i.id = rented_hosts.instance_id AND NOT i.live)`, backend).Exec(ctx)
		if err != nil {
			return err
		}
		rows = nil
		return tx.NewSelect().Model(&rows).Where("backend = ?", backend).OrderExpr("kind, region, ref").Scan(ctx)
	})
	return mapRows(rows, leftoverRow.toLeftover), err
}

// ListLeftovers returns what the latest sweeps of all backends found.
func (s *Store) ListLeftovers(ctx context.Context) ([]dstack.Leftover, error) {
	var rows []leftoverRow
	err := s.reader.NewSelect().Model(&rows).OrderExpr("backend, kind, region, ref").Scan(ctx)
	return mapRows(rows, leftoverRow.toLeftover), wrapError(err)
}
