package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

const (
	// maxCallerKeys is how many keys of a project may work at once: all are in the
	// route table.
	maxCallerKeys = 1000
	// ended keys are kept for this long, so that their names and counts can be seen.
	endedKeyKeptFor = 90 * 24 * time.Hour
)

type callerKeyRow struct {
	bun.BaseModel `bun:"table:caller_keys,alias:k"`

	ID        string `bun:",pk"`
	ProjectID string
	Name      string
	Hash      string
	Services  string
	Models    string
	RPS       float64 `bun:"rps"`
	ExpiresAt int64
	RevokedAt int64
	RevokedBy string
	Username  string
	CreatedAt int64

	Requests, Refused int64 `bun:",scanonly"`
	UsedAt            int64 `bun:",scanonly"`
}

func newCallerKeyRow(k dstack.CallerKey) (callerKeyRow, error) {
	row := callerKeyRow{ID: string(k.ID), ProjectID: string(k.Project), Name: k.Name, Hash: k.Hash, RPS: k.RPS,
		ExpiresAt: toMicros(k.ExpiresAt), Username: k.Author, CreatedAt: toMicros(k.CreatedAt)}
	for _, list := range []struct {
		names []string
		text  *string
	}{{k.Services, &row.Services}, {k.Models, &row.Models}} {
		text, err := json.Marshal(list.names)
		if err != nil {
			return row, fmt.Errorf("write what the key %s is for: %w", k.Name, err)
		}
		*list.text = string(text)
	}
	return row, nil
}

func (r callerKeyRow) toKey() (dstack.CallerKey, error) {
	k := dstack.CallerKey{ID: dstack.CallerKeyID(r.ID), Project: dstack.ProjectID(r.ProjectID), Name: r.Name, Hash: r.Hash, RPS: r.RPS,
		ExpiresAt: fromMicros(r.ExpiresAt), RevokedAt: fromMicros(r.RevokedAt), RevokedBy: r.RevokedBy, Author: r.Username,
		CreatedAt: fromMicros(r.CreatedAt), UsedAt: fromMicros(r.UsedAt),
		Counts: dstack.KeyCounts{Requests: uint64(r.Requests), Refused: uint64(r.Refused)}}
	for text, names := range map[string]*[]string{r.Services: &k.Services, r.Models: &k.Models} {
		if err := json.Unmarshal([]byte(text), names); err != nil {
			return k, fmt.Errorf("read what the key %s is for: %w", r.ID, err)
		}
	}
	return k, nil
}

// CreateCallerKey inserts a key. It fails with Conflict if a key of the project that
// is not revoked has the name, or the project has too many keys.
func (s *Store) CreateCallerKey(ctx context.Context, k dstack.CallerKey) error {
	row, err := newCallerKeyRow(k)
	if err != nil {
		return err
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, k.Project); err != nil {
			return err
		}
		old := k.CreatedAt.Add(-endedKeyKeptFor)
		_, err := tx.NewRaw(`DELETE FROM caller_keys WHERE project_id = ? AND (revoked_at > 0 AND revoked_at < ? OR expires_at > 0 AND expires_at < ?)`,
			row.ProjectID, toMicros(old), toMicros(old)).Exec(ctx)
		if err != nil {
			return err
		}
		var live int
		err = tx.NewRaw("SELECT COUNT(*) FROM caller_keys WHERE project_id = ? AND revoked_at = 0 AND (expires_at = 0 OR expires_at > ?)",
			row.ProjectID, row.CreatedAt).Scan(ctx, &live)
		if err != nil {
			return err
		}
		if live >= maxCallerKeys {
			return conflict("revoke those that nobody uses: dstack key list", "the project has %d keys, which is the limit", live)
		}
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n == 0 {
			return conflict("choose another name, or revoke it first: dstack key revoke "+k.Name, "the project has a key %s already", k.Name)
		}
		return addEvents(ctx, tx, []dstack.Event{newKeyEvent(k, k.Author, "created")}, k.CreatedAt)
	})
}

// newKeyEvent returns the event of a change of a key.
func newKeyEvent(k dstack.CallerKey, user, what string) dstack.Event {
	return dstack.Event{Project: k.Project, Kind: dstack.EventKey, User: user, Message: fmt.Sprintf("key %s was %s: %s", k.Name, what, describeScope(k))}
}

func describeScope(k dstack.CallerKey) string {
	var parts []string
	if len(k.Services) > 0 {
		parts = append(parts, "services "+strings.Join(k.Services, ", "))
	}
	if len(k.Models) > 0 {
		parts = append(parts, "models "+strings.Join(k.Models, ", "))
	}
	if len(parts) == 0 {
		return "all services and models"
	}
	return strings.Join(parts, "; ")
}

// CallerKeys lists the keys of a project by name, ended ones last; revoked ones only
// if withRevoked is set.
func (s *Store) CallerKeys(ctx context.Context, p dstack.ProjectID, withRevoked bool) ([]dstack.CallerKey, error) {
	var rows []callerKeyRow
	query := s.selectCallerKeys(&rows).Where("k.project_id = ?", string(p)).
		OrderExpr("CASE WHEN k.revoked_at = 0 THEN 0 ELSE 1 END, k.name, k.created_at DESC")
	if !withRevoked {
		query.Where("k.revoked_at = 0")
	}
	if err := query.Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	keys := make([]dstack.CallerKey, len(rows))
	for i, row := range rows {
		var err error
		if keys[i], err = row.toKey(); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (s *Store) selectCallerKeys(rows *[]callerKeyRow) *bun.SelectQuery {
	return s.reader.NewSelect().Model(rows).ColumnExpr("k.*").
		ColumnExpr("CAST(COALESCE((SELECT SUM(c.requests) FROM caller_key_counts AS c WHERE c.key_id = k.id), 0) AS BIGINT) AS requests").
		ColumnExpr("CAST(COALESCE((SELECT SUM(c.refused) FROM caller_key_counts AS c WHERE c.key_id = k.id), 0) AS BIGINT) AS refused").
		ColumnExpr("COALESCE((SELECT MAX(c.used_at) FROM caller_key_counts AS c WHERE c.key_id = k.id), 0) AS used_at")
}

// CallerKeyByHash returns the key whose SHA-256 is a hash, also an ended one, without
// its counts; NotFound.
func (s *Store) CallerKeyByHash(ctx context.Context, hash string) (dstack.CallerKey, error) {
	var rows []callerKeyRow
	if err := s.reader.NewSelect().Model(&rows).Where("hash = ?", hash).Scan(ctx); err != nil {
		return dstack.CallerKey{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.CallerKey{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no such key"}
	}
	return rows[0].toKey()
}

// RevokeCallerKeys revokes keys by name. It revokes none and fails with NotFound if
// one does not exist or is revoked already.
func (s *Store) RevokeCallerKeys(ctx context.Context, p dstack.ProjectID, names []string, user string, now time.Time) error {
	if len(names) == 0 {
		return nil
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		var rows []callerKeyRow
		err := tx.NewSelect().Model(&rows).Where("project_id = ? AND revoked_at = 0 AND name IN (?)", string(p), bun.List(names)).
			OrderExpr("name").Scan(ctx)
		if err != nil {
			return err
		}
		var events []dstack.Event
		found := map[string]bool{}
		for _, row := range rows {
			key, err := row.toKey()
			if err != nil {
				return err
			}
			found[key.Name] = true
			events = append(events, newKeyEvent(key, user, "revoked"))
		}
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return found[name] })
		if len(missing) > 0 {
			return &dstack.Error{Kind: dstack.NotFound, Message: "the project has no key " + strings.Join(missing, ", "),
				Hint: "list them: dstack key list"}
		}
		_, err = tx.NewRaw("UPDATE caller_keys SET revoked_at = ?, revoked_by = ? WHERE project_id = ? AND revoked_at = 0 AND name IN (?)",
			toMicros(now), user, string(p), bun.List(names)).Exec(ctx)
		if err != nil {
			return err
		}
		return addEvents(ctx, tx, events, now)
	})
}

// findRouteKeys returns the keys that work at a time, for the route table.
func findRouteKeys(ctx context.Context, tx bun.Tx, now time.Time) ([]route.Key, error) {
	var rows []struct {
		callerKeyRow
		Project string
	}
	err := tx.NewRaw(`SELECT k.id, k.name, k.hash, k.services, k.models, k.rps, k.expires_at, p.name_lower AS project
		FROM caller_keys AS k JOIN projects AS p ON p.id = k.project_id
		WHERE k.revoked_at = 0 AND (k.expires_at = 0 OR k.expires_at > ?) ORDER BY k.id`, toMicros(now)).Scan(ctx, &rows)
	if err != nil {
		return nil, err
	}
	keys := make([]route.Key, 0, len(rows))
	for _, row := range rows {
		key, err := row.toKey()
		if err != nil {
			return nil, err
		}
		one := route.Key{Digest: key.Hash, ID: row.ID, Project: row.Project, Name: key.Name, Services: key.Services, Models: key.Models, RPS: key.RPS}
		if !key.ExpiresAt.IsZero() {
			one.Expires = key.ExpiresAt.Unix()
		}
		keys = append(keys, one)
	}
	return keys, nil
}
