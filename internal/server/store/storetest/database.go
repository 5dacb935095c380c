// Package storetest makes databases with all tables for tests. The migrations, which
// take most of the time of a small test, run once in a test program.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"dstack/internal/server/store"
)

// NewSQLite returns the URL of a SQLite database of its own, with all tables and
// without rows.
func NewSQLite(t testing.TB) string {
	t.Helper()
	content, err := migratedSQLite()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "server.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite://" + path
}

// migratedSQLite returns the file of a migrated database.
var migratedSQLite = sync.OnceValues(func() (content []byte, err error) {
	dir, err := os.MkdirTemp("", "storetest")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "server.db")
	if err := migrate("sqlite://"+path, "sqlite", "file:"+path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// migrate opens a database as a server does, and removes the name and the key of
// that first server.
func migrate(url, driver, dsn string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "DELETE FROM installation")
	return errors.Join(err, db.Close())
}
