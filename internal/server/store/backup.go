package store

import (
	"context"
	"errors"
	"strings"

	"dstack/internal/dstack"
)

// IsSQLite reports whether a database's URL is that of a SQLite file.
func IsSQLite(where string) bool { return strings.HasPrefix(where, "sqlite") }

// SQLitePath returns the path of the file of a SQLite URL, which exists or not.
func SQLitePath(where string) string {
	_, path, _ := strings.Cut(where, "://")
	return path
}

// BackUp writes a copy of a SQLite database to a file that does not exist yet. A server may use the database meanwhile, of this
// version or another one; the copy is that of one moment.
func BackUp(ctx context.Context, where, file string) error {
	if !IsSQLite(where) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "only SQLite databases are copied by dstack", Hint: "copy PostgreSQL with pg_dump"}
	}
	s, err := openDatabase(where, nil)
	if err != nil {
		return err
	}
	_, err = s.writer.DB.ExecContext(ctx, "VACUUM INTO ?", file) // without the limit for one query
	return errors.Join(wrapError(err), s.Close())
}

// CheckIntegrity reads a SQLite database completely, and fails if it is damaged.
func (s *Store) CheckIntegrity(ctx context.Context) error {
	var problems []string
	if err := s.writer.NewRaw("PRAGMA quick_check(1)").Scan(ctx, &problems); err != nil {
		return wrapError(err)
	}
	if len(problems) != 1 || problems[0] != "ok" {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the database is damaged: " + strings.Join(problems, "; "), Hint: "use another backup"}
	}
	return nil
}
