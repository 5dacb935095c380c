package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type gatewayRow struct {
	bun.BaseModel `bun:"table:project_gateways,alias:g"`

	ID            string `bun:",pk"`
	ProjectID     string
	Name          string
	Configuration string
	Domain        string
	Plain         bool
	Backend       string
	Proxies       string
	Username      string
	CreatedAt     int64
	AppliedAt     int64
	IsDefault     bool
	Deleting      bool
	Earlier       string
	Problem       string
}

// sealName returns the name of the row for the Sealer.
func (r gatewayRow) sealName() string { return "gateway/" + r.ID }

// gatewayWithProject is a gateway with the name of its project.
type gatewayWithProject struct {
	gatewayRow
	ProjectName string
}

// openGateway returns the gateway of a row, without its processes.
func (s *Store) openGateway(row gatewayWithProject) (dstack.Gateway, error) {
	g := dstack.Gateway{ID: dstack.GatewayID(row.ID), Project: dstack.ProjectID(row.ProjectID), ProjectName: row.ProjectName, Name: row.Name,
		Domain: row.Domain, IsDefault: row.IsDefault, Author: row.Username, CreatedAt: fromMicros(row.CreatedAt), AppliedAt: fromMicros(row.AppliedAt),
		IsDeleting: row.Deleting, Problem: dstack.Reason(row.Problem)}
	var err error
	if g.Earlier, err = readEarlier(row.Earlier); err != nil {
		return g, fmt.Errorf("read the earlier domains of gateway %s: %w", row.Name, err)
	}
	text, err := s.sealer.open(row.Configuration, row.sealName())
	if err != nil {
		return g, fmt.Errorf("open the configuration of gateway %s: %w", row.Name, err)
	}
	if err := json.Unmarshal([]byte(text), &g.Configuration); err != nil {
		return g, fmt.Errorf("read the configuration of gateway %s: %w", row.Name, err)
	}
	return g, nil
}

// setConfiguration writes the configuration of a gateway into its row. It fails when the configuration could not be read again.
func (s *Store) setConfiguration(row *gatewayRow, g dstack.Gateway) error {
	conf := g.Configuration
	text, err := json.Marshal(conf)
	if err != nil {
		return fmt.Errorf("write the configuration of gateway %s: %w", g.Name, err)
	}
	again := conf
	if err := json.Unmarshal(text, &again); err != nil {
		return fmt.Errorf("the configuration of gateway %s could not be read again: %w", g.Name, err)
	}
	if row.Proxies, err = writeNetworks(conf.ProxyNetworks()); err != nil {
		return fmt.Errorf("write the proxies of gateway %s: %w", g.Name, err)
	}
	row.Domain, row.Plain, row.Backend = conf.DomainName(), conf.Certificate == nil, conf.Backend
	row.Configuration, err = s.sealer.seal(cleanText(string(text)), row.sealName())
	return err
}

// writeNetworks returns networks as JSON; nil: empty.
func writeNetworks(networks []netip.Prefix) (string, error) {
	if networks == nil {
		return "", nil
	}
	text, err := json.Marshal(networks)
	return string(text), err
}

// readNetworks is the opposite of writeNetworks.
func readNetworks(text string) (networks []netip.Prefix, err error) {
	if text == "" {
		return nil, nil
	}
	err = json.Unmarshal([]byte(text), &networks)
	return networks, err
}

type gatewayProcessRow struct {
	bun.BaseModel `bun:"table:gateway_process_reports,alias:gp"`

	GatewayID    string `bun:",pk"`
	Process      string `bun:",pk"`
	Host         string
	Name         string
	Version      string
	Address      string
	HTTPSPort    int `bun:"https_port"`
	HTTPPort     int `bun:"http_port"`
	JoinedAt     int64
	SeenAt       int64
	TableVersion int64
	Certificates string
	Problems     string
}

func (r gatewayProcessRow) toProcess() (dstack.GatewayProcess, error) {
	p := dstack.GatewayProcess{ID: r.Process, Gateway: dstack.GatewayID(r.GatewayID), Host: dstack.InstanceID(r.Host), Name: r.Name, Version: r.Version,
		Address: r.Address, HTTPSPort: r.HTTPSPort, HTTPPort: r.HTTPPort, JoinedAt: fromMicros(r.JoinedAt), SeenAt: fromMicros(r.SeenAt), TableVersion: uint64(r.TableVersion)}
	if err := json.Unmarshal([]byte(r.Certificates), &p.Certificates); err != nil {
		return p, fmt.Errorf("read the certificates of gateway process %s: %w", r.Process, err)
	}
	if err := json.Unmarshal([]byte(r.Problems), &p.Problems); err != nil {
		return p, fmt.Errorf("read the problems of gateway process %s: %w", r.Process, err)
	}
	return p, nil
}

// SaveGatewayProcess writes what a process of a gateway told last. The process is new with its first report. A report of a
// gateway that is gone is ignored.
func (s *Store) SaveGatewayProcess(ctx context.Context, p dstack.GatewayProcess, now time.Time) error {
	certificates, err := json.Marshal(p.Certificates)
	if err != nil {
		return fmt.Errorf("write the certificates of gateway process %s: %w", p.ID, err)
	}
	problems, err := json.Marshal(p.Problems)
	if err != nil {
		return fmt.Errorf("write the problems of gateway process %s: %w", p.ID, err)
	}
	if p.JoinedAt.IsZero() {
		p.JoinedAt = now
	}
	row := gatewayProcessRow{GatewayID: string(p.Gateway), Process: p.ID, Host: string(p.Host), Name: cleanText(p.Name), Version: cleanText(p.Version),
		Address: cleanText(p.Address), HTTPSPort: p.HTTPSPort, HTTPPort: p.HTTPPort, JoinedAt: toMicros(p.JoinedAt), SeenAt: toMicros(now), TableVersion: int64(p.TableVersion),
		Certificates: cleanText(string(certificates)), Problems: cleanText(string(problems))}
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		var known int
		if err := tx.NewRaw("SELECT COUNT(*) FROM project_gateways WHERE id = ?", row.GatewayID).Scan(ctx, &known); err != nil || known == 0 {
			return err
		}
		var before []gatewayProcessRow
		if err := tx.NewSelect().Model(&before).Where("gateway_id = ? AND process = ?", row.GatewayID, row.Process).Scan(ctx); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(&row).On("CONFLICT (gateway_id, process) DO UPDATE").
			Set(`host = EXCLUDED.host, name = EXCLUDED.name, version = EXCLUDED.version, address = EXCLUDED.address, https_port = EXCLUDED.https_port, http_port = EXCLUDED.http_port, seen_at = EXCLUDED.seen_at,
				table_version = EXCLUDED.table_version, certificates = EXCLUDED.certificates, problems = EXCLUDED.problems`).Exec(ctx)
		if err != nil {
			return err
		}
		if len(before) > 0 && fromMicros(before[0].SeenAt).After(now.Add(-dstack.GatewaySilence)) {
			return nil
		}
		return countChange(ctx, tx) // whoever waits for the gateway to serve looks again
	})
}

// forgetCertificates makes the certificates of a gateway pending, until its processes tell how they are by the new configuration:
// whoever applied it is not told how they were by the one before. Those that exist are served meanwhile.
func forgetCertificates(ctx context.Context, tx bun.Tx, gateway string) error {
	var rows []gatewayProcessRow
	if err := tx.NewSelect().Model(&rows).Where("gateway_id = ?", gateway).Scan(ctx); err != nil {
		return err
	}
	for _, row := range rows {
		p, err := row.toProcess()
		if err != nil {
			return err
		}
		for i, c := range p.Certificates {
			p.Certificates[i] = dstack.CertificateStatus{Name: c.Name, State: dstack.CertificatePending, Issuer: c.Issuer, NotAfter: c.NotAfter}
		}
		text, err := json.Marshal(p.Certificates)
		if err != nil {
			return fmt.Errorf("write the certificates of gateway process %s: %w", p.ID, err)
		}
		_, err = tx.NewRaw("UPDATE gateway_process_reports SET certificates = ? WHERE gateway_id = ? AND process = ?", string(text), row.GatewayID, row.Process).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// RemoveGatewayProcess forgets a process of a gateway, which may not serve any more.
func (s *Store) RemoveGatewayProcess(ctx context.Context, gateway dstack.GatewayID, process string) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		return removeGatewayProcess(ctx, tx, gateway, process, s.clock())
	})
}

func removeGatewayProcess(ctx context.Context, tx bun.Tx, gateway dstack.GatewayID, process string, now time.Time) error {
	if err := revokeGatewayCredential(ctx, tx, process, now); err != nil {
		return err
	}
	_, err := tx.NewRaw("DELETE FROM gateway_process_reports WHERE gateway_id = ? AND process = ?", string(gateway), process).Exec(ctx)
	return err
}

// findProjectGateways returns gateways with their processes.
func (s *Store) findProjectGateways(ctx context.Context, db bun.IDB, narrow func(*bun.SelectQuery)) ([]dstack.Gateway, error) {
	var rows []gatewayWithProject
	query := db.NewSelect().TableExpr("project_gateways AS g").ColumnExpr("g.*, p.name AS project_name").Join("JOIN projects AS p ON p.id = g.project_id").
		OrderExpr("g.created_at, g.id")
	narrow(query)
	if err := query.Scan(ctx, &rows); err != nil || len(rows) == 0 {
		return nil, err
	}
	ids := mapRows(rows, func(r gatewayWithProject) string { return r.ID })
	var processes []gatewayProcessRow
	if err := db.NewSelect().Model(&processes).Where("gp.gateway_id IN (?)", bun.List(ids)).OrderExpr("gp.name, gp.process").Scan(ctx); err != nil {
		return nil, err
	}
	of := map[string][]dstack.GatewayProcess{}
	for _, row := range processes {
		p, err := row.toProcess()
		if err != nil {
			return nil, err
		}
		of[row.GatewayID] = append(of[row.GatewayID], p)
	}
	gateways := make([]dstack.Gateway, len(rows))
	for i, row := range rows {
		var err error
		if gateways[i], err = s.openGateway(row); err != nil {
			return nil, err
		}
		gateways[i].Processes = of[row.ID]
	}
	return gateways, nil
}
