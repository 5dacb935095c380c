package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type fleetRow struct {
	bun.BaseModel `bun:"table:fleets,alias:f"`

	ID            string `bun:",pk"`
	ProjectID     string
	Name          string
	Configuration string
	Username      string
	CreatedAt     int64
	AppliedAt     int64
	NextNum       int
	Deleting      bool
}

// sealName returns the name of the row for the Sealer.
func (r fleetRow) sealName() string { return "fleet/" + r.ID }

// fleetWithProject is a fleet with the name of its project.
type fleetWithProject struct {
	fleetRow
	ProjectName string
}

// openFleet returns the fleet of a row, without its hosts.
func (s *Store) openFleet(row fleetWithProject) (dstack.Fleet, error) {
	f := dstack.Fleet{ID: dstack.FleetID(row.ID), Project: dstack.ProjectID(row.ProjectID), ProjectName: row.ProjectName, Name: row.Name,
		Author: row.Username, CreatedAt: fromMicros(row.CreatedAt), AppliedAt: fromMicros(row.AppliedAt), IsDeleting: row.Deleting}
	text, err := s.sealer.open(row.Configuration, row.sealName())
	if err != nil {
		return f, fmt.Errorf("open the configuration of fleet %s: %w", row.Name, err)
	}
	if err := json.Unmarshal([]byte(text), &f.Configuration); err != nil {
		return f, fmt.Errorf("read the configuration of fleet %s: %w", row.Name, err)
	}
	return f, nil
}

// sealFleet writes the configuration of a fleet into its row. It fails when the
// configuration could not be read again.
func (s *Store) sealFleet(row *fleetRow, f dstack.Fleet) error {
	text, err := f.Configuration.WithoutKeys().SourceJSON()
	if err != nil {
		return fmt.Errorf("write the configuration of fleet %s: %w", f.Name, err)
	}
	again := f.Configuration
	if err := json.Unmarshal(text, &again); err != nil {
		return fmt.Errorf("the configuration of fleet %s could not be read again: %w", f.Name, err)
	}
	row.Configuration, err = s.sealer.seal(string(text), row.sealName())
	return err
}

type hostRow struct {
	bun.BaseModel `bun:"table:hosts,alias:h"`

	ID           string `bun:",pk"`
	FleetID      string
	Num          int
	Name         string
	Address      string
	Username     string
	JumpAddress  string
	JumpUsername string
	Access       string
	HostKey      string
	JumpHostKey  string
	Draining     bool
	Leaving      bool
	Status       string
	Health       string
	CreatedAt    int64
	AppliedAt    int64
}

// sealName returns the name of the row for the Sealer.
func (r hostRow) sealName() string { return "host/" + r.ID }

// sealedHost is what a row of hosts contains in its sealed column.
type sealedHost struct {
	PrivateKey       string            `json:"private_key"`
	Fingerprints     []string          `json:"fingerprints,omitempty"`
	JumpPrivateKey   string            `json:"jump_private_key,omitempty"`
	JumpFingerprints []string          `json:"jump_fingerprints,omitempty"`
	Env              map[string]string `json:"env,omitempty"`
}

// hostWithFleet is a host with the names of its fleet and project.
type hostWithFleet struct {
	hostRow
	FleetName   string
	ProjectID   string
	ProjectName string
}

// toHost returns a host without what is sealed.
func (r hostWithFleet) toHost() (dstack.Host, error) {
	h := dstack.Host{
		ID: dstack.InstanceID(r.ID), Fleet: dstack.FleetID(r.FleetID), FleetName: r.FleetName, Project: dstack.ProjectID(r.ProjectID),
		ProjectName: r.ProjectName, Num: r.Num, Name: r.Name, IsDraining: r.Draining, IsLeaving: r.Leaving,
		CreatedAt: fromMicros(r.CreatedAt), AppliedAt: fromMicros(r.AppliedAt),
		Login: dstack.SSHLogin{Address: r.Address, User: r.Username, HostKey: r.HostKey},
	}
	if r.JumpAddress != "" {
		h.Jump = &dstack.SSHLogin{Address: r.JumpAddress, User: r.JumpUsername, HostKey: r.JumpHostKey}
	}
	if err := json.Unmarshal([]byte(r.Health), &h.Check); err != nil {
		return h, fmt.Errorf("read the check of host %s: %w", r.Name, err)
	}
	return h, nil
}

// openHost adds what is sealed.
func (s *Store) openHost(row hostWithFleet) (dstack.Host, error) {
	h, err := row.toHost()
	if err != nil {
		return h, err
	}
	text, err := s.sealer.open(row.Access, row.sealName())
	if err != nil {
		return h, fmt.Errorf("open the keys of host %s: %w", row.Name, err)
	}
	var access sealedHost
	if err := json.Unmarshal([]byte(text), &access); err != nil {
		return h, fmt.Errorf("read the keys of host %s: %w", row.Name, err)
	}
	h.Login.PrivateKey, h.Login.Fingerprints, h.Env = access.PrivateKey, access.Fingerprints, access.Env
	if h.Jump != nil {
		h.Jump.PrivateKey, h.Jump.Fingerprints = access.JumpPrivateKey, access.JumpFingerprints
	}
	return h, nil
}

// sealHost returns the row of a host of a fleet.
func (s *Store) sealHost(fleet string, h dstack.Host) (hostRow, error) {
	row := hostRow{ID: string(h.ID), FleetID: fleet, Num: h.Num, Name: h.Name, Address: h.Login.Address, Username: h.Login.User,
		HostKey: h.Login.HostKey, Draining: h.IsDraining, Leaving: h.IsLeaving, CreatedAt: toMicros(h.CreatedAt), AppliedAt: toMicros(h.AppliedAt)}
	access := sealedHost{PrivateKey: h.Login.PrivateKey, Fingerprints: h.Login.Fingerprints, Env: h.Env}
	if h.Jump != nil {
		row.JumpAddress, row.JumpUsername, row.JumpHostKey = h.Jump.Address, h.Jump.User, h.Jump.HostKey
		access.JumpPrivateKey, access.JumpFingerprints = h.Jump.PrivateKey, h.Jump.Fingerprints
	}
	text, err := json.Marshal(access)
	if err != nil {
		return row, fmt.Errorf("write the keys of host %s: %w", h.Name, err)
	}
	if row.Access, err = s.sealer.seal(string(text), row.sealName()); err != nil {
		return row, err
	}
	return row, row.setCheck(h.Check)
}

// setCheck writes a check into the row.
func (r *hostRow) setCheck(check dstack.HostCheck) error {
	text, err := json.Marshal(cleanCheck(check))
	if err != nil {
		return fmt.Errorf("write the check of host %s: %w", r.ID, err)
	}
	r.Status, r.Health = string(check.Status), string(text)
	return nil
}

// cleanCheck makes the texts of a check fit for the database.
func cleanCheck(check dstack.HostCheck) dstack.HostCheck {
	check.Message, check.Hint = cleanText(check.Message), cleanText(check.Hint)
	return check
}

func selectHosts(db bun.IDB) *bun.SelectQuery {
	return db.NewSelect().TableExpr("hosts AS h").ColumnExpr("h.*, f.name AS fleet_name, f.project_id, p.name AS project_name").
		Join("JOIN fleets AS f ON f.id = h.fleet_id").Join("JOIN projects AS p ON p.id = f.project_id").
		OrderExpr("p.name, f.name, h.num")
}

// findFleets returns fleets with their hosts, without what is sealed of these, or with their rented machines.
func (s *Store) findFleets(ctx context.Context, db bun.IDB, narrow func(*bun.SelectQuery)) ([]dstack.Fleet, error) {
	var rows []fleetWithProject
	query := db.NewSelect().TableExpr("fleets AS f").ColumnExpr("f.*, p.name AS project_name").Join("JOIN projects AS p ON p.id = f.project_id").
		OrderExpr("f.created_at, f.id")
	narrow(query)
	if err := query.Scan(ctx, &rows); err != nil || len(rows) == 0 {
		return nil, err
	}
	ids := mapRows(rows, func(r fleetWithProject) string { return r.ID })
	var hosts []hostWithFleet
	if err := selectHosts(db).Where("h.fleet_id IN (?)", bun.List(ids)).Scan(ctx, &hosts); err != nil {
		return nil, err
	}
	of := map[string][]dstack.Host{}
	for _, row := range hosts {
		h, err := row.toHost()
		if err != nil {
			return nil, err
		}
		of[row.FleetID] = append(of[row.FleetID], h)
	}
	fleets := make([]dstack.Fleet, len(rows))
	for i, row := range rows {
		var err error
		if fleets[i], err = s.openFleet(row); err != nil {
			return nil, err
		}
		fleets[i].Hosts = of[row.ID]
	}
	return fleets, addRented(ctx, db, fleets)
}

// isBefore reports whether a check began before a host was applied last.
func isBefore(check dstack.HostCheck, applied int64) bool {
	return !check.AppliedAt.IsZero() && toMicros(check.AppliedAt) < applied
}
