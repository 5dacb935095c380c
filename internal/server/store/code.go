package store

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type codeRow struct {
	bun.BaseModel `bun:"table:codes,alias:c"`

	ID        string `bun:",pk"`
	ProjectID string
	Repo      string
	Hash      string
	Bytes     int64
	Chunks    int64
	CreatedAt int64
}

func (r codeRow) upload() upload {
	return upload{table: "sealed_chunks", column: "code_id", id: r.ID, hash: r.Hash, what: fmt.Sprintf("the code of repo %q", r.Repo)}
}

// PutCode saves an upload in one transaction, in sealed chunks of 1 MiB. r is read once,
// inside the transaction: it must be a file or a buffer, not a network
// connection. An upload that exists stays as it is.
func (s *Store) PutCode(ctx context.Context, p dstack.ProjectID, repo, hash string, r io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, uploadPatience)
	defer cancel()
	return wrapError(s.writeOnce(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		return s.putCode(ctx, tx, p, repo, hash, r)
	}))
}

func (s *Store) putCode(ctx context.Context, tx bun.Tx, p dstack.ProjectID, repo, hash string, r io.Reader) error {
	row := codeRow{ID: uuid.NewString(), ProjectID: string(p), Repo: repo, Hash: hash, CreatedAt: toMicros(time.Now())}
	n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
	if err != nil || n == 0 {
		return err
	}
	if row.Bytes, row.Chunks, err = s.putChunks(ctx, tx, row.upload(), r); err != nil {
		return err
	}
	_, err = tx.NewUpdate().Model(&row).Column("bytes", "chunks").WherePK().Exec(ctx)
	return err
}

// HasCode reports whether an upload is stored.
func (s *Store) HasCode(ctx context.Context, p dstack.ProjectID, repo, hash string) (bool, error) {
	row, err := s.findCode(ctx, p, repo, hash)
	return row != nil, err
}

func (s *Store) findCode(ctx context.Context, p dstack.ProjectID, repo, hash string) (*codeRow, error) {
	var rows []codeRow
	err := s.reader.NewSelect().Model(&rows).Where("project_id = ? AND repo = ? AND hash = ?", string(p), repo, hash).Scan(ctx)
	if err != nil || len(rows) == 0 {
		return nil, wrapError(err)
	}
	return &rows[0], nil
}

// Code returns an upload as a stream, which the caller closes; NotFound. It holds
// no connection between reads.
func (s *Store) Code(ctx context.Context, p dstack.ProjectID, repo, hash string) (io.ReadCloser, error) {
	row, err := s.findCode(ctx, p, repo, hash)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the code of repo %q is not there", repo), Hint: "apply again, so that it is uploaded"}
	}
	return &chunkReader{ctx: ctx, store: s, upload: row.upload(), chunks: row.Chunks}, nil
}
