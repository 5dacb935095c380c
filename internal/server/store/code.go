package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// chunkSize limits the memory for one upload.
const chunkSize = 1 << 20

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

// chunkRow names a chunk for its seal. A chunk does not open as another one, of other
// code, or after the chunks behind it were cut off.
func (r codeRow) chunkRow(num int64, isLast bool) string {
	return fmt.Sprintf("sealed_chunks %s %s %d %t", r.ID, r.Hash, num, isLast)
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
	source, buf := bufio.NewReader(r), make([]byte, chunkSize)
	for isLast := false; !isLast; row.Chunks++ {
		n, err := io.ReadFull(source, buf)
		if err == nil {
			_, err = source.Peek(1)
		}
		isLast = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !isLast {
			return fmt.Errorf("read the upload: %w", err)
		}
		if err := s.putChunk(ctx, tx, row, row.Chunks, isLast, buf[:n]); err != nil {
			return err
		}
		row.Bytes += int64(n)
	}
	_, err = tx.NewUpdate().Model(&row).Column("bytes", "chunks").WherePK().Exec(ctx)
	return err
}

// putChunk seals and saves a chunk. It does not use bun, which would write the bytes into
// the text of the query.
func (s *Store) putChunk(ctx context.Context, tx bun.Tx, row codeRow, num int64, isLast bool, data []byte) error {
	insert := "INSERT INTO sealed_chunks (code_id, num, data) VALUES (?1, ?2, ?3)"
	if s.kind == postgres {
		insert = "INSERT INTO sealed_chunks (code_id, num, data) VALUES ($1, $2, $3)"
	}
	_, err := tx.Tx.ExecContext(ctx, insert, row.ID, num, s.sealer.sealBytes(data, row.chunkRow(num, isLast)))
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
	return &codeReader{ctx: ctx, store: s, row: *row}, nil
}

type codeReader struct {
	ctx   context.Context // of the whole stream, because Read takes none
	store *Store
	row   codeRow
	next  int64
	chunk bytes.Reader
}

func (c *codeReader) Read(p []byte) (int, error) {
	for c.chunk.Len() == 0 {
		if c.next > 0 && c.next == c.row.Chunks { // even empty code has a chunk
			return 0, io.EOF
		}
		var sealed []byte
		err := c.store.reader.NewRaw("SELECT data FROM sealed_chunks WHERE code_id = ? AND num = ?", c.row.ID, c.next).Scan(c.ctx, &sealed)
		if err != nil {
			return 0, wrapError(orNotFound(err, "the code of repo %q was deleted meanwhile", c.row.Repo))
		}
		data, err := c.store.sealer.openBytes(sealed, c.row.chunkRow(c.next, c.next+1 == c.row.Chunks))
		if err != nil {
			return 0, fmt.Errorf("the code of repo %q cannot be decrypted: %w", c.row.Repo, err)
		}
		c.chunk.Reset(data)
		c.next++
	}
	return c.chunk.Read(p)
}

func (c *codeReader) Close() error { return nil }
