package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestRequestHeldUntilReady checks that a request that arrives before its service is
// ready waits for it.
func TestRequestHeldUntilReady(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		dir := h.newFolder(strings.Replace(h.workloadConfig("slow"), "- exec", "- sleep 1\n- exec", 1))
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0).expectText("dstack logs slow -f")
		start := time.Now()
		h.expectUnauthorized(h.serviceURL("slow", "/")) // at once, not held
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("a request without a token was held for %s", took)
		}
		h.waitUntil(500*time.Millisecond, "the gateway has the run and holds the request", func() error {
			a, err := h.sendRequest("GET", h.serviceURL("slow", "/"), h.token, "")
			if err == nil && a.status != 200 {
				err = fmt.Errorf("status %d: %s", a.status, a.body)
			}
			return err
		})
		h.expectStatus(h.servicePathURL("slow", "/"), 200)
	})
}

// TestPostgres kills and restarts a server whose database is in PostgreSQL.
func TestPostgres(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process", "DSTACK_DATABASE_URL="+createDatabase(t))
	h.waitUntil(10*time.Second, "the greeting names the database", func() error { // it comes after the first response
		if !strings.Contains(h.log.String(), "PostgreSQL") {
			return errors.New("it does not")
		}
		return nil
	})
	h.applyAndWait(h.newFolder(h.workloadConfig("elsewhere")))
	before := h.fetchInfo("elsewhere").PID
	h.killServer()
	h.startServer()
	if after := h.fetchInfo("elsewhere").PID; after != before {
		t.Errorf("the process was %d before the restart of the server and is %d after it", before, after)
	}
	h.stopRun("elsewhere")
	if _, err := os.Stat(filepath.Join(h.serverDir, "data", "sqlite.db")); err == nil {
		t.Error("the server has also created a SQLite file")
	}
}

// createDatabase creates a database in PostgreSQL for the time of a test, and returns its URL.
func createDatabase(t *testing.T) string {
	t.Helper()
	address := needPiece(t, "postgres", "DSTACK_TEST_POSTGRES_URL")
	db, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	name := "e2e_" + strings.ToLower(rand.Text())
	if _, err := db.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs after the cleanup of the server
		if _, err := db.Exec(context.Background(), "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
		_ = db.Close(context.Background())
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// TestConfig runs commands with another home folder, as on another machine.
func TestConfig(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	other := &harness{t: t, engine: h.engine, home: t.TempDir(), serverDir: h.serverDir, port: h.port, token: h.token}
	other.runCLI("ps").expectError(2, "no server is configured", "dstack server")
	other.runCLI("config", "--url", h.serverURL(), "--project", "main", "--token", "wrong").expectError(1, "token")
	other.runCLI("config", "--url", h.serverURL(), "--project", "nowhere", "--token", h.token).expectError(1, "nowhere")
	other.runCLI("config", "--url", h.serverURL(), "--project", "main", "--token", h.token).expectExit(0)
	other.runCLI("ps").expectExit(0)
	info, err := os.Stat(filepath.Join(other.home, ".dstack", "config.yml"))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file with the token: %v, %v", fmt.Sprint(info), err)
	}
}
