package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"modernc.org/sqlite"
)

// openStatements opens a database with one connection that keeps statements, and that connection.
func openStatements(t *testing.T) (*sql.DB, *sql.Conn) {
	t.Helper()
	connector, err := sqlite.NewConnector("file:" + filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(statementConnector{connector})
	conn, err := db.Conn(t.Context())
	if err == nil {
		_, err = conn.ExecContext(t.Context(), "CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1), (2), (3)")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return db, conn
}

// listKept returns the statements that are prepared and not in use.
func listKept(t *testing.T, conn *sql.Conn) map[string]*keptStatement {
	t.Helper()
	var kept map[string]*keptStatement
	if err := conn.Raw(func(driverConn any) error { kept = driverConn.(*statementConn).idle; return nil }); err != nil {
		t.Fatal(err)
	}
	return kept
}

// query returns the numbers that a query finds.
func query(t *testing.T, conn *sql.Conn, text string, args ...any) (found []int) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		if found = append(found, n); len(found) > 100 {
			t.Fatal("the query does not end")
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestStatements_AreUsedAgain(t *testing.T) {
	_, conn := openStatements(t)
	const text = "SELECT n FROM t WHERE n > ? ORDER BY n"
	if got := query(t, conn, text, 1); fmt.Sprint(got) != "[2 3]" {
		t.Fatal(got)
	}
	first := listKept(t, conn)[text]
	if got := query(t, conn, text, 2); fmt.Sprint(got) != "[3]" {
		t.Error(got)
	}
	if kept := listKept(t, conn); first == nil || kept[text] != first || len(kept) != 1 {
		t.Errorf("the statement was %p and is %p of %d", first, kept[text], len(kept))
	}
}

// A query may run again while its rows are still read.
func TestStatements_RunTwiceAtOnce(t *testing.T) {
	_, conn := openStatements(t)
	const text = "SELECT n FROM t ORDER BY n"
	outer, err := conn.QueryContext(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	for want := 1; outer.Next(); want++ {
		var n int
		if err := outer.Scan(&n); err != nil || n != want { // or it would go on for ever
			t.Fatalf("%d in place of %d, %v", n, want, err)
		}
		if got := query(t, conn, text); fmt.Sprint(got) != "[1 2 3]" {
			t.Fatal(got)
		}
	}
	if err := outer.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestStatements_SeeChanges(t *testing.T) {
	db, conn := openStatements(t)
	const text = "SELECT * FROM t WHERE n > 2 ORDER BY n"
	query(t, conn, text)
	for _, change := range []string{"INSERT INTO t VALUES (4)", "CREATE INDEX t_n ON t (n)", "ALTER TABLE t RENAME TO u", "CREATE TABLE t (n INTEGER)", "INSERT INTO t VALUES (9)"} {
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	if got := query(t, conn, text); fmt.Sprint(got) != "[9]" {
		t.Error(got)
	}
}

// There is an end to the statements of a connection: the ones that were not used for longest are closed.
func TestStatements_AreLimited(t *testing.T) {
	_, conn := openStatements(t)
	const often = "SELECT n FROM t"
	for i := range 3 * maxStatements {
		query(t, conn, fmt.Sprintf("SELECT n FROM t WHERE n > %d", i))
		query(t, conn, often)
	}
	if kept := listKept(t, conn); len(kept) != maxStatements || kept[often] == nil {
		t.Errorf("%d are kept; the one that is used often: %v", len(kept), kept[often] != nil)
	}
}

// A query that fails, or whose caller leaves early, does not affect the next one.
func TestStatements_AfterAFailure(t *testing.T) {
	_, conn := openStatements(t)
	const text = "SELECT n FROM t ORDER BY n"
	query(t, conn, text)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := conn.QueryContext(ended, text); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := conn.QueryContext(t.Context(), "SELECT nothing FROM t"); err == nil {
		t.Error("a column that does not exist is found")
	}
	rows, err := conn.QueryContext(t.Context(), text)
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil { // after the first row
		t.Fatal(err)
	}
	if got := query(t, conn, text); fmt.Sprint(got) != "[1 2 3]" {
		t.Error(got)
	}
}
