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

const (
	// maxArchiveAge is how long an archive that no run needs is kept after its last use: a
	// client uploads it, shows the plan, and may submit the run much later.
	maxArchiveAge = 24 * time.Hour
	// maxUnusedBytes limits the archives of a user that no run needs.
	maxUnusedBytes = 1 << 30
)

type archiveRow struct {
	bun.BaseModel `bun:"table:archives,alias:a"`

	ID        string `bun:",pk"`
	UserID    string
	Hash      string
	Bytes     int64
	Chunks    int64
	CreatedAt int64
	UsedAt    int64
}

func (r archiveRow) upload() upload {
	return upload{table: "archive_chunks", column: "archive_id", id: r.ID, hash: r.Hash, what: "the archive " + r.ID}
}

func (r archiveRow) toArchive() dstack.FileArchive { return dstack.FileArchive{ID: r.ID, Hash: r.Hash} }

// isNeeded is the condition that an unfinished run has an archive in one of its revisions.
const isNeeded = `EXISTS (SELECT 1 FROM run_archives AS n JOIN runs AS r ON r.id = n.run_id WHERE n.archive_id = archives.id AND r.live)`

// PutArchive saves an archive of a user in one transaction, as PutCode does. If the user has
// one with the hash, that is returned. Archives that nothing needs any more are deleted.
func (s *Store) PutArchive(ctx context.Context, user dstack.UserID, hash string, r io.Reader) (dstack.FileArchive, error) {
	ctx, cancel := context.WithTimeout(ctx, uploadPatience)
	defer cancel()
	now := s.clock()
	row := archiveRow{ID: uuid.NewString(), UserID: string(user), Hash: hash, CreatedAt: toMicros(now), UsedAt: toMicros(now)}
	err := s.writeOnce(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		if err := deleteOldArchives(ctx, tx, now); err != nil {
			return err
		}
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx))
		if err != nil {
			return err
		}
		if n == 0 {
			return orNotFound(tx.NewRaw("UPDATE archives SET used_at = ? WHERE user_id = ? AND hash = ? RETURNING id", row.UsedAt, row.UserID, hash).
				Scan(ctx, &row.ID), "the archive was deleted meanwhile")
		}
		if row.Bytes, row.Chunks, err = s.putChunks(ctx, tx, row.upload(), r); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(&row).Column("bytes", "chunks").WherePK().Exec(ctx); err != nil {
			return err
		}
		return trimArchives(ctx, tx, row.UserID)
	})
	return row.toArchive(), wrapError(err)
}

// deleteOldArchives deletes what PutArchive would delete.
func (s *Store) deleteOldArchives(ctx context.Context) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error { return deleteOldArchives(ctx, tx, s.clock()) })
}

// deleteOldArchives deletes the archives that no unfinished run needs and that were not
// used for some time.
func deleteOldArchives(ctx context.Context, tx bun.Tx, now time.Time) error {
	_, err := tx.NewRaw("DELETE FROM archives WHERE used_at < ? AND NOT "+isNeeded, toMicros(now.Add(-maxArchiveAge))).Exec(ctx)
	return err
}

// trimArchives deletes the archives of a user that no unfinished run needs, beyond
// maxUnusedBytes: the least recently used first.
func trimArchives(ctx context.Context, tx bun.Tx, user string) error {
	var rows []archiveRow
	err := tx.NewRaw("SELECT id, bytes, used_at FROM archives WHERE user_id = ? AND NOT "+isNeeded+" ORDER BY used_at DESC, id", user).Scan(ctx, &rows)
	if err != nil {
		return err
	}
	var size int64
	for i, row := range rows {
		if size += row.Bytes; size <= maxUnusedBytes || i == 0 {
			continue
		}
		if err := deleteUnused(ctx, tx, row); err != nil {
			return err
		}
	}
	return nil
}

// deleteUnused deletes an archive unless it was used since row was read: another transaction may have pinned it meanwhile.
func deleteUnused(ctx context.Context, tx bun.Tx, row archiveRow) error {
	_, err := tx.NewRaw("DELETE FROM archives WHERE id = ? AND used_at = ? AND NOT "+isNeeded, row.ID, row.UsedAt).Exec(ctx)
	return err
}

// ArchiveByHash returns the archive of a user with a hash; NotFound. It counts as used.
func (s *Store) ArchiveByHash(ctx context.Context, user dstack.UserID, hash string) (dstack.FileArchive, error) {
	return s.findArchive(ctx, user, "hash", hash)
}

// ArchiveByID returns an archive of a user; NotFound, also for one of another user. It
// counts as used.
func (s *Store) ArchiveByID(ctx context.Context, user dstack.UserID, id string) (dstack.FileArchive, error) {
	return s.findArchive(ctx, user, "id", id)
}

func (s *Store) findArchive(ctx context.Context, user dstack.UserID, column, value string) (dstack.FileArchive, error) {
	var rows []archiveRow
	err := s.reader.NewSelect().Model(&rows).Where("user_id = ? AND ? = ?", string(user), bun.Ident(column), value).Scan(ctx)
	if err != nil {
		return dstack.FileArchive{}, wrapError(err)
	}
	if len(rows) == 0 {
		return dstack.FileArchive{}, &dstack.Error{Kind: dstack.NotFound, Message: "you have not uploaded this archive", Hint: "apply again, so that it is uploaded"}
	}
	now := s.clock()
	if rows[0].UsedAt > toMicros(now.Add(-maxArchiveAge/24)) { // a write for each look would be in vain
		return rows[0].toArchive(), nil
	}
	err = s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error { return useArchive(ctx, tx, rows[0].ID, now) })
	return rows[0].toArchive(), err
}

// useArchive records that an archive is used, and locks it; NotFound.
func useArchive(ctx context.Context, tx bun.Tx, id string, now time.Time) error {
	n, err := rowsAffected(tx.NewRaw("UPDATE archives SET used_at = ? WHERE id = ?", toMicros(now), id).Exec(ctx))
	if err == nil && n == 0 {
		err = &dstack.Error{Kind: dstack.NotFound, Message: "an uploaded file of this run is not there any more", Hint: "apply again, so that it is uploaded"}
	}
	return err
}

// pinArchives keeps the archives of a revision until its run ends.
func pinArchives(ctx context.Context, tx bun.Tx, run string, files []dstack.FileArchive, now time.Time) error {
	for _, file := range files {
		if err := useArchive(ctx, tx, file.ID, now); err != nil {
			return err
		}
		_, err := tx.NewRaw("INSERT INTO run_archives (run_id, archive_id) VALUES (?, ?) ON CONFLICT DO NOTHING", run, file.ID).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// OpenArchive returns an archive as a stream, which the caller closes; NotFound. The caller
// checks whose it is.
func (s *Store) OpenArchive(ctx context.Context, id string) (io.ReadCloser, error) {
	var rows []archiveRow
	if err := s.reader.NewSelect().Model(&rows).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	if len(rows) == 0 {
		return nil, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the archive %.40q is not there", id), Hint: "apply again, so that it is uploaded"}
	}
	return &chunkReader{ctx: ctx, store: s, upload: rows[0].upload(), chunks: rows[0].Chunks}, nil
}
