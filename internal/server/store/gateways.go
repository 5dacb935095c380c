package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// ListGateways returns the gateways of projects with their processes, the oldest first. Without projects it returns all of
// the installation.
func (s *Store) ListGateways(ctx context.Context, projects ...dstack.ProjectID) ([]dstack.Gateway, error) {
	return s.readGateways(ctx, func(q *bun.SelectQuery) {
		if len(projects) > 0 {
			q.Where("g.project_id IN ?", bun.Tuple(projects))
		}
	})
}

// FindGateway returns a gateway of a project with its processes; NotFound.
func (s *Store) FindGateway(ctx context.Context, p dstack.ProjectID, name string) (dstack.Gateway, error) {
	var g dstack.Gateway
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		g, err = s.findGateway(ctx, tx, p, name)
		return err
	})
	return g, err
}

// Gateway returns a gateway with its processes; NotFound.
func (s *Store) Gateway(ctx context.Context, id dstack.GatewayID) (dstack.Gateway, error) {
	found, err := s.readGateways(ctx, func(q *bun.SelectQuery) { q.Where("g.id = ?", string(id)) })
	if err == nil && len(found) == 0 {
		return dstack.Gateway{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no gateway %s", id)}
	}
	if err != nil {
		return dstack.Gateway{}, err
	}
	return found[0], nil
}

func (s *Store) readGateways(ctx context.Context, narrow func(*bun.SelectQuery)) (found []dstack.Gateway, err error) {
	err = s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		found, err = s.findProjectGateways(ctx, tx, narrow)
		return err
	})
	return found, err
}

func (s *Store) findGateway(ctx context.Context, db bun.IDB, p dstack.ProjectID, name string) (dstack.Gateway, error) {
	found, err := s.findProjectGateways(ctx, db, func(q *bun.SelectQuery) { q.Where("g.project_id = ? AND g.name = ?", string(p), name) })
	if err != nil {
		return dstack.Gateway{}, err
	}
	if len(found) == 0 {
		return dstack.Gateway{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no gateway named %q", name),
			Hint: "list them: dstack gateway list"}
	}
	return found[0], nil
}

// ApplyGateway creates a gateway, or replaces the configuration of an existing one, whose ID and processes stay. The first
// gateway of a project is its default. It fails with Conflict if another gateway of the installation has the domain, or
// the gateway is being deleted.
//
// Of g, only Project, Name, Configuration and Author matter.
func (s *Store) ApplyGateway(ctx context.Context, g dstack.Gateway, now time.Time) (dstack.Gateway, error) {
	now = orNow(now)
	var applied dstack.Gateway
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, g.Project); err != nil {
			return err
		}
		row, isNew, err := s.putGateway(ctx, tx, g, now)
		if err != nil {
			return err
		}
		var others int
		err = tx.NewRaw("SELECT COUNT(*) FROM project_gateways WHERE project_id = ? AND id <> ?", row.ProjectID, row.ID).Scan(ctx, &others)
		if err != nil {
			return err
		}
		if g.Configuration.Default || isNew && others == 0 {
			if err := setDefaultGateway(ctx, tx, g.Project, row.ID); err != nil {
				return err
			}
		}
		applied, err = s.findGateway(ctx, tx, g.Project, g.Name)
		return err
	})
	if err != nil {
		return dstack.Gateway{}, err
	}
	return applied, nil
}

// putGateway writes the row of a gateway.
func (s *Store) putGateway(ctx context.Context, tx bun.Tx, g dstack.Gateway, now time.Time) (row gatewayRow, isNew bool, err error) {
	var rows []gatewayRow
	if err := tx.NewSelect().Model(&rows).Where("project_id = ? AND name = ?", string(g.Project), g.Name).Scan(ctx); err != nil {
		return row, false, err
	}
	row = gatewayRow{ID: uuid.NewString(), ProjectID: string(g.Project), Name: g.Name, CreatedAt: toMicros(now)}
	if isNew = len(rows) == 0; !isNew {
		row = rows[0]
	}
	if row.Deleting {
		return row, false, conflict("apply it again when it is gone: dstack gateway list", "the gateway %s is being deleted", g.Name)
	}
	row.Username, row.AppliedAt = g.Author, toMicros(now)
	if err := s.changeConfiguration(&row, g, isNew, now); err != nil {
		return row, false, err
	}
	if err := checkDomainIsFree(ctx, tx, row); err != nil {
		return row, false, err
	}
	if err := endEarlierElsewhere(ctx, tx, row); err != nil {
		return row, false, err
	}
	if err := s.claimDomain(ctx, tx, row, now); err != nil {
		return row, false, err
	}
	_, err = tx.NewInsert().Model(&row).On("CONFLICT (id) DO UPDATE").
		Set(`configuration = EXCLUDED.configuration, domain = EXCLUDED.domain, plain = EXCLUDED.plain, backend = EXCLUDED.backend,
			proxies = EXCLUDED.proxies, earlier = EXCLUDED.earlier,
			username = EXCLUDED.username, applied_at = EXCLUDED.applied_at`).Exec(ctx)
	if err != nil || isNew {
		return row, isNew, err
	}
	if err := markDue(ctx, tx, GatewayWork, now, "id = ?", row.ID); err != nil {
		return row, false, err
	}
	return row, false, forgetCertificates(ctx, tx, row.ID)
}

// checkDomainIsFree returns Conflict if another gateway has the domain of a row. Only a gateway of the same project is named.
func checkDomainIsFree(ctx context.Context, tx bun.Tx, row gatewayRow) error {
	if row.Domain == "" {
		return nil
	}
	var others []gatewayRow
	if err := tx.NewSelect().Model(&others).Where("domain = ? AND id <> ?", row.Domain, row.ID).Scan(ctx); err != nil || len(others) == 0 {
		return err
	}
	whose := "a gateway of another project"
	if others[0].ProjectID == row.ProjectID {
		whose = "the gateway " + others[0].Name
	}
	return conflict("choose another domain, or delete that gateway first", "the domain %s belongs to %s", row.Domain, whose)
}

// setDefaultGateway makes a gateway the default of its project.
func setDefaultGateway(ctx context.Context, tx bun.Tx, p dstack.ProjectID, id string) error {
	if _, err := tx.NewRaw("UPDATE project_gateways SET is_default = FALSE WHERE project_id = ? AND is_default AND id <> ?", string(p), id).Exec(ctx); err != nil {
		return err
	}
	_, err := tx.NewRaw("UPDATE project_gateways SET is_default = TRUE WHERE id = ?", id).Exec(ctx)
	return err
}

// SetDefaultGateway makes a gateway the default of its project; NotFound.
func (s *Store) SetDefaultGateway(ctx context.Context, p dstack.ProjectID, name string) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		g, err := s.findGateway(ctx, tx, p, name)
		if err != nil {
			return err
		}
		return setDefaultGateway(ctx, tx, p, string(g.ID))
	})
}

// SetGatewayProblem records why the processes of a gateway cannot be started; empty: they can.
func (s *Store) SetGatewayProblem(ctx context.Context, id dstack.GatewayID, problem dstack.Reason) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("UPDATE project_gateways SET problem = ? WHERE id = ?", cleanText(string(problem)), string(id)).Exec(ctx)
		return err
	})
}

// DeleteGateways requests the deletion of gateways. A gateway for which the server started processes exists until they are
// gone, see RemoveGateway; another is gone at once. It deletes none and fails with NotFound if one does not exist, and with
// Conflict if an unfinished run names one.
func (s *Store) DeleteGateways(ctx context.Context, p dstack.ProjectID, names []string) error {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		users, err := s.findGatewayUsers(ctx, tx, p)
		if err != nil {
			return err
		}
		for _, name := range names {
			g, err := s.findGateway(ctx, tx, p, name)
			if err != nil {
				return err
			}
			if runs := users[name]; len(runs) > 0 {
				return conflict("stop them, or apply them with another gateway first", "cannot delete the gateway %s: it is named by %s", name, joinNames(runs))
			}
			statement := "DELETE FROM project_gateways WHERE id = ?"
			var placed int
			if err := tx.NewRaw("SELECT COUNT(*) FROM gateway_placements WHERE gateway_id = ?", string(g.ID)).Scan(ctx, &placed); err != nil {
				return err
			}
			if placed > 0 || g.HasStartedProcesses() {
				statement = "UPDATE project_gateways SET deleting = TRUE, is_default = FALSE WHERE id = ?"
			}
			if _, err := tx.NewRaw(statement, string(g.ID)).Exec(ctx); err != nil {
				return err
			}
			if err := markDue(ctx, tx, GatewayWork, s.clock(), "id = ?", string(g.ID)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveGateway removes a gateway that is being deleted, and whose processes are gone.
func (s *Store) RemoveGateway(ctx context.Context, id dstack.GatewayID) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("DELETE FROM project_gateways WHERE id = ? AND deleting", string(id)).Exec(ctx)
		return err
	})
}

// findGatewayUsers returns the names of the unfinished runs of a project that name each gateway.
func (s *Store) findGatewayUsers(ctx context.Context, tx bun.Tx, p dstack.ProjectID) (map[string][]string, error) {
	var rows []runRow
	err := selectRuns(tx, &rows).Where("r.project_id = ? AND r.live", string(p)).OrderExpr("r.name").Scan(ctx)
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, row := range rows {
		rs, err := s.openSpecCached(specKey{run: row.ID}, row.Spec)
		choice := string(rs.Configuration.Gateway)
		if err != nil {
			continue // it names none that could be known
		}
		name := choice[strings.LastIndexByte(choice, '/')+1:]
		users[name] = append(users[name], row.Name)
	}
	return users, nil
}

// gatewayChoice returns what the configuration of a run says of gateways. Rows of earlier versions do not have it in their rules.
func (s *Store) gatewayChoice(run, sealed string, stored *string) (string, error) {
	if stored != nil {
		return *stored, nil
	}
	rs, err := s.openSpecCached(specKey{run: run}, sealed)
	return string(rs.Configuration.Gateway), err
}

// checkNoGateways returns Conflict if a project of the given names, in lower case, has gateways.
func checkNoGateways(ctx context.Context, tx bun.Tx, names []string) error {
	var left []string
	err := tx.NewRaw(`SELECT p.name || '/' || g.name FROM project_gateways AS g JOIN projects AS p ON p.id = g.project_id
		WHERE p.name_lower IN (?) ORDER BY p.name, g.name`, bun.List(names)).Scan(ctx, &left)
	if err == nil && len(left) > 0 {
		return conflict("delete them first: dstack gateway delete NAME --project PROJECT", "cannot delete projects: they have gateways: %s", joinNames(left))
	}
	return err
}
