package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type gatewayTokenRow struct {
	bun.BaseModel `bun:"table:gateway_tokens,alias:t"`

	TokenHash string `bun:",pk"`
	GatewayID string
	HostID    string
	Username  string
	CreatedAt int64
	ExpiresAt int64
	ProcessID string
}

type gatewayProcessRow struct {
	bun.BaseModel `bun:"table:gateway_processes,alias:p"`

	ID             string `bun:",pk"`
	GatewayID      string
	HostID         string
	CredentialHash string
	Name           string
	Version        string
	Machine        string
	Address        string
	JoinedAt       int64
	SeenAt         int64
	RemovedAt      int64
	TableVersion   int64
	Status         string
}

// gatewayProcessStatus is the JSON of gatewayProcessRow.Status.
type gatewayProcessStatus struct {
	Certificates []dstack.CertificateStatus `json:"certificates,omitempty"`
	Problems     []string                   `json:"problems,omitempty"`
}

func (r gatewayProcessRow) toProcess() (dstack.GatewayProcess, error) {
	var status gatewayProcessStatus
	if err := json.Unmarshal([]byte(r.Status), &status); err != nil {
		return dstack.GatewayProcess{}, fmt.Errorf("read the status of the gateway process %s: %w", r.ID, err)
	}
	return dstack.GatewayProcess{
		ID: r.ID, Gateway: dstack.GatewayID(r.GatewayID), Host: dstack.InstanceID(r.HostID), Name: r.Name, Version: r.Version,
		Machine: r.Machine, IsRemoved: r.RemovedAt != 0, Address: r.Address, JoinedAt: fromMicros(r.JoinedAt),
		SeenAt: fromMicros(r.SeenAt), TableVersion: uint64(r.TableVersion), Certificates: status.Certificates, Problems: status.Problems,
	}, nil
}

func encodeGatewayStatus(p dstack.GatewayProcess) (string, error) {
	text, err := json.Marshal(gatewayProcessStatus{Certificates: p.Certificates, Problems: p.Problems})
	return string(text), err
}

// GatewayToken is a token with which one process joins a gateway.
type GatewayToken struct {
	Hash      string // api.JoinToken.Hash
	Gateway   dstack.GatewayID
	Host      dstack.InstanceID // on which the server starts the process; empty: elsewhere
	User      string            // who made it
	ExpiresAt time.Time
}

// CreateGatewayToken stores a token, and forgets those that ended a day ago.
func (s *Store) CreateGatewayToken(ctx context.Context, t GatewayToken, now time.Time) error {
	row := gatewayTokenRow{TokenHash: t.Hash, GatewayID: string(t.Gateway), HostID: string(t.Host), Username: t.User,
		CreatedAt: toMicros(now), ExpiresAt: toMicros(t.ExpiresAt)}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewRaw("DELETE FROM gateway_tokens WHERE expires_at < ?", toMicros(now.Add(-24*time.Hour))).Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(&row).Exec(ctx)
		return err
	})
}

// JoinGateway adds a process that has a token, and returns it. Repeated with the same token and credential, it
// returns the process that joined then. It fails with Unauthorized for a token that does not exist, has ended or was
// used by another process.
func (s *Store) JoinGateway(ctx context.Context, tokenHash, credentialHash string, p dstack.GatewayProcess, now time.Time) (dstack.GatewayProcess, error) {
	var joined gatewayProcessRow
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		token, err := s.lockGatewayToken(ctx, tx, tokenHash)
		if err != nil {
			return err
		}
		if token.ProcessID != "" {
			joined, err = findGatewayProcess(ctx, tx, "p.id = ? AND p.credential_hash = ?", token.ProcessID, credentialHash)
			if dstack.KindOf(err) == dstack.NotFound {
				return newTokenError("this token was used already: it joins one process", nil)
			}
			return err
		}
		if !now.Before(fromMicros(token.ExpiresAt)) {
			return newTokenError("this token ended at "+fromMicros(token.ExpiresAt).UTC().Format(time.RFC3339), nil)
		}
		joined = gatewayProcessRow{ID: p.ID, GatewayID: token.GatewayID, HostID: token.HostID, CredentialHash: credentialHash,
			Name: p.Name, Version: p.Version, Machine: p.Machine, Address: p.Address, JoinedAt: toMicros(now), SeenAt: toMicros(now), Status: "{}"}
		if _, err := tx.NewInsert().Model(&joined).Exec(ctx); err != nil {
			return err
		}
		_, err = tx.NewRaw("UPDATE gateway_tokens SET process_id = ? WHERE token_hash = ?", p.ID, tokenHash).Exec(ctx)
		return err
	})
	if err != nil {
		return dstack.GatewayProcess{}, err
	}
	return joined.toProcess()
}

func newTokenError(message string, cause error) error {
	return &dstack.Error{Kind: dstack.Unauthorized, Message: message, Hint: "make another: dstack gateway token NAME", Cause: cause}
}

// lockGatewayToken reads a token and keeps other transactions from using it.
func (s *Store) lockGatewayToken(ctx context.Context, tx bun.Tx, hash string) (row gatewayTokenRow, err error) {
	n, err := rowsAffected(tx.NewRaw("UPDATE gateway_tokens SET process_id = process_id WHERE token_hash = ?", hash).Exec(ctx))
	if err != nil {
		return row, err
	}
	if n == 0 {
		return row, newTokenError("the server does not know this token of a gateway", nil)
	}
	return row, tx.NewSelect().Model(&row).Where("token_hash = ?", hash).Scan(ctx)
}

func findGatewayProcess(ctx context.Context, db bun.IDB, where string, args ...any) (gatewayProcessRow, error) {
	var rows []gatewayProcessRow
	if err := db.NewSelect().Model(&rows).Where(where, args...).Scan(ctx); err != nil {
		return gatewayProcessRow{}, err
	}
	if len(rows) == 0 {
		return gatewayProcessRow{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no such process of a gateway"}
	}
	return rows[0], nil
}

// FindGatewayProcess returns the process that has a credential, also one that was removed; NotFound.
func (s *Store) FindGatewayProcess(ctx context.Context, credentialHash string) (dstack.GatewayProcess, error) {
	row, err := findGatewayProcess(ctx, s.reader, "p.credential_hash = ?", credentialHash)
	if err != nil {
		return dstack.GatewayProcess{}, wrapError(err)
	}
	return row.toProcess()
}

// ListGatewayProcesses returns the processes of a gateway that were not removed, the oldest first; with an empty ID,
// those of all gateways.
func (s *Store) ListGatewayProcesses(ctx context.Context, gateway dstack.GatewayID) ([]dstack.GatewayProcess, error) {
	var rows []gatewayProcessRow
	query := s.reader.NewSelect().Model(&rows).Where("p.removed_at = 0").OrderExpr("p.joined_at, p.id")
	if gateway != "" {
		query.Where("p.gateway_id = ?", string(gateway))
	}
	if err := query.Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	all := make([]dstack.GatewayProcess, 0, len(rows))
	for _, row := range rows {
		p, err := row.toProcess()
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// SaveGatewayProcess saves what a process reported: its version, machine, table version, certificates and problems.
func (s *Store) SaveGatewayProcess(ctx context.Context, p dstack.GatewayProcess, now time.Time) error {
	status, err := encodeGatewayStatus(p)
	if err != nil {
		return err
	}
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewRaw(`UPDATE gateway_processes SET version = ?, machine = ?, table_version = ?, status = ?, seen_at = ?
			WHERE id = ? AND removed_at = 0`, p.Version, p.Machine, int64(p.TableVersion), status, toMicros(now), p.ID).Exec(ctx))
		if err == nil && n == 0 {
			err = &dstack.Error{Kind: dstack.NotFound, Message: "there is no such process of a gateway"}
		}
		return err
	})
}

// MarkGatewayProcessGone makes a process count as silent at once, because it said that it ends. It may come back.
func (s *Store) MarkGatewayProcessGone(ctx context.Context, id string, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("UPDATE gateway_processes SET seen_at = ? WHERE id = ?", toMicros(now.Add(-dstack.GatewaySilence)), id).Exec(ctx)
		return err
	})
}

// RemoveGatewayProcess ends the right of a process to serve. Repeating it does no harm.
func (s *Store) RemoveGatewayProcess(ctx context.Context, id string, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("UPDATE gateway_processes SET removed_at = ? WHERE id = ? AND removed_at = 0", toMicros(now), id).Exec(ctx)
		return err
	})
}

// removeGatewayProcesses ends the right of all processes of a gateway to serve, and its tokens.
func removeGatewayProcesses(ctx context.Context, tx bun.Tx, gateway dstack.GatewayID, now time.Time) error {
	_, err := tx.NewRaw("UPDATE gateway_processes SET removed_at = ? WHERE gateway_id = ? AND removed_at = 0", toMicros(now), string(gateway)).Exec(ctx)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw("DELETE FROM gateway_tokens WHERE gateway_id = ?", string(gateway)).Exec(ctx)
	return err
}

// RemoveGatewayProcesses ends the right of all processes of a gateway to serve, and its tokens.
func (s *Store) RemoveGatewayProcesses(ctx context.Context, gateway dstack.GatewayID, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		return removeGatewayProcesses(ctx, tx, gateway, now)
	})
}
