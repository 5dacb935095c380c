package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/uptrace/bun"
)

type certificateRow struct {
	bun.BaseModel `bun:"table:certificates"`

	Name  string `bun:",pk"`
	Value string
	At    int64
}

func (r certificateRow) sealName() string { return "certificate/" + r.Name }

type certificateLockRow struct {
	bun.BaseModel `bun:"table:certificate_locks,alias:l"`

	Name  string `bun:",pk"`
	Owner string
	Until int64
}

// Certificates keeps certificates, keys and accounts of gateways, sealed, for all
// servers of the installation.
type Certificates struct{ store *Store }

// Certificates returns the storage of certificates.
func (s *Store) Certificates() Certificates { return Certificates{s} }

// Load returns the value of a key, or fs.ErrNotExist.
func (c Certificates) Load(ctx context.Context, key string) ([]byte, error) {
	row := certificateRow{Name: key}
	err := c.store.read(ctx, func(ctx context.Context, tx bun.Tx) error { return tx.NewSelect().Model(&row).WherePK().Scan(ctx) })
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	value, err := c.store.sealer.open(row.Value, row.sealName())
	if err != nil {
		return nil, fmt.Errorf("the certificate %s: %w", key, err)
	}
	return []byte(value), nil
}

// Store replaces the value of a key.
func (c Certificates) Store(ctx context.Context, key string, value []byte) error {
	row := certificateRow{Name: key, At: toMicros(time.Now())}
	var err error
	if row.Value, err = c.store.sealer.seal(string(value), row.sealName()); err != nil {
		return err
	}
	return c.store.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, at = EXCLUDED.at").Exec(ctx)
		return err
	})
}

// claimDomain makes the project of a gateway the owner of what is stored for its domain. What another project left there is
// deleted: with its private keys, the new owner could pretend to be the old one.
func (s *Store) claimDomain(ctx context.Context, tx bun.Tx, g gatewayRow, now time.Time) error {
	if g.Domain == "" {
		return nil
	}
	row := certificateRow{Name: "owners/" + g.Domain, At: toMicros(now)}
	err := tx.NewSelect().Model(&row).WherePK().Scan(ctx)
	if err == nil {
		owner, err := s.sealer.open(row.Value, row.sealName())
		if err != nil || owner == g.ProjectID {
			return err
		}
	} else if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	for _, table := range []string{"certificates", "certificate_locks"} {
		if _, err := tx.NewRaw("DELETE FROM "+table+" WHERE name LIKE ?", "domains/"+g.Domain+"/%").Exec(ctx); err != nil {
			return err
		}
	}
	if row.Value, err = s.sealer.seal(g.ProjectID, row.sealName()); err != nil {
		return err
	}
	_, err = tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, at = EXCLUDED.at").Exec(ctx)
	return err
}

// Delete deletes a key. One that does not exist is no error.
func (c Certificates) Delete(ctx context.Context, key string) error {
	return c.store.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewDelete().Model(&certificateRow{Name: key}).WherePK().Exec(ctx)
		return err
	})
}

// TryLock takes a lock for a time, or extends it, and reports whether owner has it now.
func (c Certificates) TryLock(ctx context.Context, name, owner string, lifetime time.Duration) (bool, error) {
	now := time.Now()
	row := certificateLockRow{Name: name, Owner: owner, Until: toMicros(now.Add(lifetime))}
	var taken int64
	err := c.store.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewInsert().Model(&row).
			On("CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until WHERE l.owner = EXCLUDED.owner OR l.until <= ?", toMicros(now)).
			Exec(ctx)
		if err == nil {
			taken, err = result.RowsAffected()
		}
		return err
	})
	return taken > 0, err
}

// Unlock ends a lock if owner has it.
func (c Certificates) Unlock(ctx context.Context, name, owner string) error {
	return c.store.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewDelete().Model((*certificateLockRow)(nil)).Where("name = ? AND owner = ?", name, owner).Exec(ctx)
		return err
	})
}
