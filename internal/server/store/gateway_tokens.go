package store

import (
	"context"
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
	Process   string
}

type gatewayCredentialRow struct {
	bun.BaseModel `bun:"table:gateway_credentials,alias:c"`

	CredentialHash string `bun:",pk"`
	Process        string
	GatewayID      string
	HostID         string
	Name           string
	Address        string
	JoinedAt       int64
	RevokedAt      int64
}

func (r gatewayCredentialRow) toProcess() dstack.GatewayProcess {
	return dstack.GatewayProcess{ID: r.Process, Gateway: dstack.GatewayID(r.GatewayID), Host: dstack.InstanceID(r.HostID), Name: r.Name,
		Address: r.Address, JoinedAt: fromMicros(r.JoinedAt), IsRemoved: r.RevokedAt != 0}
}

// GatewayToken is a token with which one process joins a gateway, or any number of them.
type GatewayToken struct {
	Hash      string // api.JoinToken.Hash
	Gateway   dstack.GatewayID
	Host      dstack.InstanceID // on which the server starts the process; empty: elsewhere
	User      string            // who made it
	ExpiresAt time.Time
	IsShared  bool // any number of processes may join with it
}

// sharedToken is in the column of the process that joined, for a token with which any number may join.
const sharedToken = "*"

// endedTokenTime is for how long a token is known after its end, for a message that says so.
const endedTokenTime = 24 * time.Hour

// CreateGatewayToken stores a token.
func (s *Store) CreateGatewayToken(ctx context.Context, t GatewayToken, now time.Time) error {
	row := gatewayTokenRow{TokenHash: t.Hash, GatewayID: string(t.Gateway), HostID: string(t.Host), Username: t.User,
		CreatedAt: toMicros(now), ExpiresAt: toMicros(t.ExpiresAt)}
	if t.IsShared {
		row.Process = sharedToken
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("DELETE FROM gateway_tokens WHERE expires_at < ?", toMicros(now.Add(-endedTokenTime))).Exec(ctx)
		if err != nil {
			return err
		}
		_, err = tx.NewInsert().Model(&row).Exec(ctx)
		return err
	})
}

// JoinGateway adds a process that has a token, and returns it. Of p, only ID, Name and Address matter. Repeated with
// the same token and credential, it returns the process that joined then. It fails with Unauthorized for a token that
// does not exist, has ended, or was used by another process and is not shared.
func (s *Store) JoinGateway(ctx context.Context, tokenHash, credentialHash string, p dstack.GatewayProcess, now time.Time) (dstack.GatewayProcess, error) {
	var joined gatewayCredentialRow
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		token, err := lockGatewayToken(ctx, tx, tokenHash)
		if err != nil {
			return err
		}
		if token.Process != "" {
			isKnown, err := findJoined(ctx, tx, token, credentialHash, &joined)
			if err != nil || isKnown {
				return err
			}
		}
		if !now.Before(fromMicros(token.ExpiresAt)) {
			return newTokenError("this token ended at " + fromMicros(token.ExpiresAt).UTC().Format(time.RFC3339))
		}
		joined, err = addGatewayCredential(ctx, tx, token, credentialHash, p, now)
		if err != nil || token.Process == sharedToken {
			return err
		}
		_, err = tx.NewRaw("UPDATE gateway_tokens SET process = ? WHERE token_hash = ?", p.ID, tokenHash).Exec(ctx)
		return err
	})
	if err != nil {
		return dstack.GatewayProcess{}, err
	}
	return joined.toProcess(), nil
}

// findJoined finds the process that joined with a token and a credential. It fails with Unauthorized if another process used the
// token, and it is not shared.
func findJoined(ctx context.Context, tx bun.Tx, token gatewayTokenRow, credentialHash string, joined *gatewayCredentialRow) (isKnown bool, err error) {
	var rows []gatewayCredentialRow
	query := tx.NewSelect().Model(&rows).Where("credential_hash = ? AND gateway_id = ? AND host_id = ?", credentialHash, token.GatewayID, token.HostID)
	if token.Process != sharedToken {
		query.Where("process = ?", token.Process)
	}
	switch err := query.Scan(ctx); {
	case err != nil:
		return false, err
	case len(rows) > 0:
		*joined = rows[0]
		return true, nil
	case token.Process != sharedToken:
		return false, newTokenError("this token was used already: a token joins one process")
	}
	return false, nil
}

// addGatewayCredential adds the credential of a process that has a token.
func addGatewayCredential(ctx context.Context, tx bun.Tx, token gatewayTokenRow, credentialHash string, p dstack.GatewayProcess, now time.Time) (gatewayCredentialRow, error) {
	row := gatewayCredentialRow{CredentialHash: credentialHash, Process: p.ID, GatewayID: token.GatewayID, HostID: token.HostID,
		Name: cleanText(p.Name), Address: cleanText(p.Address), JoinedAt: toMicros(now)}
	n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
	if err == nil && n == 0 {
		err = &dstack.Error{Kind: dstack.Conflict, Message: "another process of a gateway has this credential", Hint: "let the process make its own, in a folder of its own: --dir"}
	}
	return row, err
}

func newTokenError(message string) error {
	return &dstack.Error{Kind: dstack.Unauthorized, Message: message, Hint: "make another: dstack gateway token NAME"}
}

// lockGatewayToken reads a token and keeps other transactions from using it.
func lockGatewayToken(ctx context.Context, tx bun.Tx, hash string) (row gatewayTokenRow, err error) {
	n, err := rowsAffected(tx.NewRaw("UPDATE gateway_tokens SET process = process WHERE token_hash = ?", hash).Exec(ctx))
	if err != nil {
		return row, err
	}
	if n == 0 {
		return row, newTokenError("the server does not know this token of a gateway")
	}
	return row, tx.NewSelect().Model(&row).Where("token_hash = ?", hash).Scan(ctx)
}

// FindGatewayProcess returns the process that has a credential; NotFound. IsRemoved is set if it may not serve any
// more, because it was removed or its gateway is gone. What it reported is not in it.
func (s *Store) FindGatewayProcess(ctx context.Context, credentialHash string) (dstack.GatewayProcess, error) {
	var rows []struct {
		gatewayCredentialRow
		IsGone bool
	}
	err := s.reader.NewRaw(`SELECT c.*, g.id IS NULL AS is_gone FROM gateway_credentials AS c LEFT JOIN project_gateways AS g ON g.id = c.gateway_id
		WHERE c.credential_hash = ?`, credentialHash).Scan(ctx, &rows)
	if err != nil {
		return dstack.GatewayProcess{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.GatewayProcess{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no such process of a gateway"}
	}
	p := rows[0].toProcess()
	p.IsRemoved = p.IsRemoved || rows[0].IsGone
	return p, nil
}

// revokeGatewayCredential ends the right of a process to serve.
func revokeGatewayCredential(ctx context.Context, tx bun.Tx, process string, now time.Time) error {
	_, err := tx.NewRaw("UPDATE gateway_credentials SET revoked_at = ? WHERE process = ? AND revoked_at = 0", toMicros(now), process).Exec(ctx)
	return err
}

// MarkGatewayProcessGone makes a process count as silent at once, because it said that it ends. It may come back.
func (s *Store) MarkGatewayProcessGone(ctx context.Context, p dstack.GatewayProcess, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("UPDATE gateway_process_reports SET seen_at = ? WHERE gateway_id = ? AND process = ? AND seen_at > ?",
			toMicros(now.Add(-dstack.GatewaySilence)), string(p.Gateway), p.ID, toMicros(now.Add(-dstack.GatewaySilence))).Exec(ctx)
		return err
	})
}
