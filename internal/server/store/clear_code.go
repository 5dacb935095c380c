package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/uptrace/bun"
)

// sealClearCode seals the code that earlier versions stored in clear, chunk by chunk, and
// removes what remains of it on disk. It may be repeated, and run on several servers at
// once.
func (s *Store) sealClearCode(ctx context.Context) error {
	hadCode := false
	for {
		found, err := s.sealClearChunk(ctx)
		if err != nil {
			return err
		}
		if !found {
			break
		}
		hadCode = true
	}
	if s.kind == postgres {
		return s.truncateClearCode(ctx)
	}
	if !hadCode {
		return nil
	}
	if err := s.recreateClearCode(ctx); err != nil {
		return err
	}
	// The write-ahead log still has pages of the time before they were overwritten.
	for _, query := range []string{"PRAGMA secure_delete = OFF", "PRAGMA wal_checkpoint(TRUNCATE)"} {
		if _, err := s.writer.ExecContext(ctx, query); err != nil {
			return wrapError(err)
		}
	}
	return nil
}

// sealClearChunk moves one chunk from code_chunks to sealed_chunks. It returns false if
// there is none.
func (s *Store) sealClearChunk(ctx context.Context) (found bool, err error) {
	err = s.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		// PostgreSQL: one server at a time, and no upload by an earlier version meanwhile.
		// SQLite: deleted content is overwritten with zeros.
		prepare := "LOCK TABLE code_chunks IN EXCLUSIVE MODE"
		if s.kind == sqliteFile {
			prepare = "PRAGMA secure_delete = ON"
		}
		if _, err := tx.ExecContext(ctx, prepare); err != nil {
			return err
		}
		row, num, data, err := s.readClearChunk(ctx, tx)
		if found = err == nil; errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.putChunk(ctx, tx, row.upload(), num, num+1 >= row.Chunks, data); err != nil {
			return err
		}
		if row.Chunks == 0 { // empty code, which had no chunk
			_, err = tx.NewRaw("UPDATE codes SET chunks = 1 WHERE id = ?", row.ID).Exec(ctx)
			return err
		}
		_, err = tx.NewRaw("DELETE FROM code_chunks WHERE code_id = ? AND num = ?", row.ID, num).Exec(ctx)
		return err
	})
	return found, err
}

// readClearChunk returns any chunk that is in clear, or an empty one for code that has no
// chunk; sql.ErrNoRows.
func (s *Store) readClearChunk(ctx context.Context, tx bun.Tx) (row codeRow, num int64, data []byte, err error) {
	const first = "SELECT c.id, c.hash, c.chunks, k.num, k.data FROM code_chunks AS k JOIN codes AS c ON c.id = k.code_id LIMIT 1"
	err = tx.NewRaw(first).Scan(ctx, &row.ID, &row.Hash, &row.Chunks, &num, &data)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.NewRaw("SELECT id, hash FROM codes WHERE chunks = 0 LIMIT 1").Scan(ctx, &row.ID, &row.Hash)
	}
	return row, num, data, err
}

// truncateClearCode removes the files of code_chunks, which still have deleted rows.
func (s *Store) truncateClearCode(ctx context.Context) error {
	return s.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		var size int64
		if err := tx.NewRaw("SELECT pg_relation_size('code_chunks')").Scan(ctx, &size); err != nil || size == 0 {
			return err
		}
		if _, err := tx.ExecContext(ctx, "LOCK TABLE code_chunks IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		var isUsed bool
		if err := tx.NewRaw("SELECT EXISTS (SELECT 1 FROM code_chunks)").Scan(ctx, &isUsed); err != nil || isUsed {
			return err
		}
		_, err := tx.ExecContext(ctx, "TRUNCATE code_chunks")
		return err
	})
}

// recreateClearCode is truncateClearCode for SQLite: an emptied table keeps its first page,
// with parts of deleted rows.
func (s *Store) recreateClearCode(ctx context.Context) error {
	return s.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		var isUsed bool
		if err := tx.NewRaw("SELECT EXISTS (SELECT 1 FROM code_chunks)").Scan(ctx, &isUsed); err != nil || isUsed {
			return err
		}
		var definition string
		if err := tx.NewRaw("SELECT sql FROM sqlite_master WHERE name = 'code_chunks'").Scan(ctx, &definition); err != nil {
			return err
		}
		for _, query := range []string{"PRAGMA secure_delete = ON", "DROP TABLE code_chunks", definition} {
			if _, err := tx.Tx.ExecContext(ctx, query); err != nil {
				return err
			}
		}
		return nil
	})
}
