package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
)

type authorityRow struct {
	bun.BaseModel `bun:"table:installation_authority"`

	One    int64 `bun:",pk"`
	Sealed string
}

// authorityRowName is what the text in installation_authority is sealed for.
const authorityRowName = "installation_authority"

// Authority returns the certificate authority of the installation. The result of fresh is stored if there is none; all
// servers of the installation get the same one.
func (s *Store) Authority(ctx context.Context, fresh func() ([]byte, error)) ([]byte, error) {
	var row authorityRow
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error { return tx.NewSelect().Model(&row).Scan(ctx) })
	if errors.Is(err, sql.ErrNoRows) {
		row, err = s.createAuthority(ctx, fresh)
	}
	if err != nil {
		return nil, err
	}
	text, err := s.sealer.open(row.Sealed, authorityRowName)
	if err != nil {
		return nil, fmt.Errorf("the certificate authority of the installation: %w", err)
	}
	return []byte(text), nil
}

// createAuthority stores a new authority, and returns that of the server that was first.
func (s *Store) createAuthority(ctx context.Context, fresh func() ([]byte, error)) (row authorityRow, err error) {
	made, err := fresh()
	if err != nil {
		return row, err
	}
	sealed, err := s.sealer.seal(string(made), authorityRowName)
	if err != nil {
		return row, err
	}
	err = s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&authorityRow{One: 1, Sealed: sealed}).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
			return err
		}
		return tx.NewSelect().Model(&row).Scan(ctx)
	})
	return row, err
}
