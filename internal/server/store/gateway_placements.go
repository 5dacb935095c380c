package store

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// GatewayWork is the kind of the gateways for which the server runs processes on hosts or in clusters, or did so before.
const GatewayWork Kind = "gateway_work"

// AddGatewayWork adds the gateways whose processes the server is to run on hosts or in clusters to those that a pass claims. It may be
// called any number of times.
func (s *Store) AddGatewayWork(ctx context.Context, now time.Time) error {
	var missing []string
	err := s.reader.NewRaw(`SELECT id FROM project_gateways AS g WHERE backend IN (?, ?) AND NOT EXISTS (SELECT 1 FROM gateway_work AS w WHERE w.id = g.id)`,
		spec.BackendSSH, spec.BackendKubernetes).Scan(ctx, &missing)
	if err != nil || len(missing) == 0 {
		return wrapError(err)
	}
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		for _, id := range missing {
			_, err := tx.NewRaw(`INSERT INTO gateway_work (id, version, live, due_at, touches, lease_owner, lease_until)
				SELECT id, 0, TRUE, ?, 0, '', 0 FROM project_gateways WHERE id = ? ON CONFLICT (id) DO NOTHING`, toMicros(now), id).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type placementRow struct {
	bun.BaseModel `bun:"table:gateway_placements,alias:pl"`

	ID             string `bun:",pk"`
	GatewayID      string
	HostID         string
	HostName       string
	Program        string
	ProgramVersion string
	ProgramOwner   string
	OwnerSeenAt    int64
	Port           int
	Phase          string
	Reason         string
	Since          int64
	CreatedAt      int64
	Failures       int
	NextAt         int64
	SilentSince    int64
}

func newPlacementRow(p dstack.GatewayPlacement) placementRow {
	return placementRow{ID: string(p.ID), GatewayID: string(p.Gateway), HostID: string(p.Host), HostName: p.HostName,
		Program: p.Program.Digest, ProgramVersion: p.Program.Version, ProgramOwner: p.Program.Owner, OwnerSeenAt: toMicros(p.Program.OwnerSeenAt),
		Port: p.Port, Phase: string(p.Phase), Reason: cleanText(string(p.Reason)), Since: toMicros(p.Since), CreatedAt: toMicros(p.CreatedAt),
		Failures: p.Failures, NextAt: toMicros(p.NextAt), SilentSince: toMicros(p.SilentSince)}
}

func (r placementRow) toPlacement() dstack.GatewayPlacement {
	return dstack.GatewayPlacement{ID: dstack.GatewayPlacementID(r.ID), Gateway: dstack.GatewayID(r.GatewayID), Host: dstack.InstanceID(r.HostID),
		HostName: r.HostName, Program: dstack.GatewayProgram{Digest: r.Program, Version: r.ProgramVersion, Owner: r.ProgramOwner,
			OwnerSeenAt: fromMicros(r.OwnerSeenAt)},
		Port: r.Port, Phase: dstack.GatewayPhase(r.Phase), Reason: dstack.Reason(r.Reason), Since: fromMicros(r.Since), CreatedAt: fromMicros(r.CreatedAt),
		Failures: r.Failures, NextAt: fromMicros(r.NextAt), SilentSince: fromMicros(r.SilentSince)}
}

// GatewayFacts is a gateway and what belongs to its processes on hosts.
type GatewayFacts struct {
	Gateway    dstack.Gateway
	Placements []dstack.GatewayPlacement
	Hosts      []dstack.Host                // of the fleets of its project
	Occupied   map[dstack.InstanceID]string // hosts that serve other gateways, by the gateway's name
	version    int64
}

// ReadGatewayFacts returns what a decision about the processes of a gateway needs; NotFound.
func (s *Store) ReadGatewayFacts(ctx context.Context, id dstack.GatewayID) (GatewayFacts, error) {
	facts := GatewayFacts{Occupied: map[dstack.InstanceID]string{}}
	hosts, err := s.ListHosts(ctx)
	if err != nil {
		return facts, err
	}
	if facts.Gateway, err = s.Gateway(ctx, id); err != nil {
		return facts, err
	}
	facts.Hosts = slices.DeleteFunc(hosts, func(h dstack.Host) bool { return h.Project != facts.Gateway.Project })
	err = s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewRaw("SELECT version FROM gateway_work WHERE id = ?", string(id)).Scan(ctx, &facts.version); err != nil {
			return err
		}
		var rows []struct {
			placementRow
			GatewayName string
		}
		err := tx.NewSelect().TableExpr("gateway_placements AS pl").ColumnExpr("pl.*, g.name AS gateway_name").
			Join("JOIN project_gateways AS g ON g.id = pl.gateway_id").OrderExpr("pl.created_at, pl.id").Scan(ctx, &rows)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.GatewayID == string(id) {
				facts.Placements = append(facts.Placements, row.toPlacement())
			} else {
				facts.Occupied[dstack.InstanceID(row.HostID)] = row.GatewayName
			}
		}
		return nil
	})
	return facts, err
}

// ListPlacements returns all placements of the installation, whose hosts are to reach a server.
func (s *Store) ListPlacements(ctx context.Context) ([]dstack.GatewayPlacement, error) {
	var rows []placementRow
	if err := s.reader.NewSelect().Model(&rows).OrderExpr("id").Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	return mapRows(rows, placementRow.toPlacement), nil
}

// The ports of hosts where processes reach the server: registered for nothing, and below those that systems give to
// connections by themselves.
const (
	firstPlacementPort = 21000
	placementPorts     = 8000
)

// SaveGatewayPlan saves the plan for a gateway, whose next look is at again. It removes a gateway that is being deleted and
// has no processes on hosts any more. It fails with Conflict if the lease was lost, or another gateway got a host first.
func (s *Store) SaveGatewayPlan(ctx context.Context, l Lease, seen GatewayFacts, plan gateway.PlacementPlan, again, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := saveRow(ctx, tx, l, seen.version, again, "live = TRUE"); err != nil {
			return err
		}
		left := len(plan.New)
		for _, step := range plan.Steps {
			if !step.IsGone {
				left++
			}
			if err := savePlacementStep(ctx, tx, step, now); err != nil {
				return err
			}
		}
		for _, process := range plan.Gone {
			if err := removeGatewayProcess(ctx, tx, seen.Gateway.ID, process, now); err != nil {
				return err
			}
		}
		for _, n := range plan.New {
			if err := addPlacement(ctx, tx, seen, n, now); err != nil {
				return err
			}
		}
		return s.finishGateway(ctx, tx, l, seen, plan, left == 0)
	})
}

// finishGateway saves the problem of a gateway, or removes what does not need a pass any more.
func (s *Store) finishGateway(ctx context.Context, tx bun.Tx, l Lease, seen GatewayFacts, plan gateway.PlacementPlan, isEmpty bool) error {
	problem := cleanText(plan.Problem())
	statement, args := "UPDATE project_gateways SET problem = ? WHERE id = ? AND problem <> ?", []any{problem, l.ID, problem}
	switch {
	case isEmpty && seen.Gateway.IsDeleting:
		statement, args = "DELETE FROM project_gateways WHERE id = ? AND deleting", []any{l.ID}
	case isEmpty && !seen.Gateway.HasStartedProcesses():
		statement, args = "DELETE FROM gateway_work WHERE id = ?", []any{l.ID}
	}
	_, err := tx.NewRaw(statement, args...).Exec(ctx)
	return err
}

// savePlacementStep writes a placement, or deletes it together with the process that joined from its host.
func savePlacementStep(ctx context.Context, tx bun.Tx, step gateway.PlacementStep, now time.Time) error {
	row := newPlacementRow(step.GatewayPlacement)
	if !step.IsGone {
		if _, err := tx.NewUpdate().Model(&row).WherePK().Exec(ctx); err != nil || step.Address == "" {
			return err
		}
		_, err := tx.NewRaw("UPDATE gateway_credentials SET address = ? WHERE gateway_id = ? AND host_id = ? AND address <> ?",
			cleanText(step.Address), row.GatewayID, row.HostID, cleanText(step.Address)).Exec(ctx)
		return err
	}
	for _, statement := range []string{
		"DELETE FROM gateway_process_reports WHERE gateway_id = ? AND host = ?",
		"DELETE FROM gateway_tokens WHERE gateway_id = ? AND host_id = ?",
	} {
		if _, err := tx.NewRaw(statement, row.GatewayID, row.HostID).Exec(ctx); err != nil {
			return err
		}
	}
	_, err := tx.NewRaw("UPDATE gateway_credentials SET revoked_at = ? WHERE gateway_id = ? AND host_id = ? AND revoked_at = 0",
		toMicros(now), row.GatewayID, row.HostID).Exec(ctx)
	if err != nil {
		return err
	}
	_, err = tx.NewDelete().Model(&row).WherePK().Exec(ctx)
	return err
}

// addPlacement adds a placement on a host that has none.
func addPlacement(ctx context.Context, tx bun.Tx, seen GatewayFacts, n gateway.NewPlacement, now time.Time) error {
	id := uuid.New()
	row := newPlacementRow(dstack.GatewayPlacement{ID: dstack.GatewayPlacementID(id.String()), Gateway: seen.Gateway.ID, Host: n.Host, HostName: n.HostName,
		Port: firstPlacementPort + int(id.ID()%placementPorts), Phase: dstack.GatewayStarting, Since: now, CreatedAt: now})
	added, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
	if err == nil && added == 0 {
		return conflict(retryHint, "the host %s serves another gateway now", n.HostName)
	}
	return err
}
