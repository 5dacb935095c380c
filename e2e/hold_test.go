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
	forEachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHarness(t, engine)
		dir := h.newFolder(strings.Replace(h.workloadConfig("slow"), "- exec", "- sleep 1\n- exec", 1))
		h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0).expectText("dstack logs slow -f")
		began := time.Now()
		h.expectUnauthorized(h.serviceURL("slow", "/")) // at once, held or not
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("a call without a token was held for %s", took)
		}
		h.waitUntil(500*time.Millisecond, "the gateway knows of the run, and holds the call", func() error {
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
	t.Parallel()
	address := needPiece(t, "postgres", "DSTACK_TEST_POSTGRES_URL")
	db, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	name := "e2e_" + strings.ToLower(rand.Text())
	if _, err := db.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the server has left it
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

	h := newHarness(t, "process", "DSTACK_DATABASE_URL="+u.String())
	h.waitUntil(10*time.Second, "the server says where its memory is", func() error { // it answers before it greets
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
		t.Errorf("process %d became %d while the server was away", before, after)
	}
	h.stopRun("elsewhere")
	if _, err := os.Stat(filepath.Join(h.serverDir, "data", "sqlite.db")); err == nil {
		t.Error("there is a SQLite file beside it")
	}
}

// TestConfig runs commands with another home folder, as on another machine.
func TestConfig(t *testing.T) {
	t.Parallel()
	h := newHarness(t, "process")
	away := &harness{t: t, engine: h.engine, home: t.TempDir(), serverDir: h.serverDir, port: h.port, token: h.token}
	away.runCLI("ps").expectError(2, "no server is configured", "dstack server")
	away.runCLI("config", "--url", h.serverURL(), "--project", "main", "--token", "wrong").expectError(1, "token")
	away.runCLI("config", "--url", h.serverURL(), "--project", "nowhere", "--token", h.token).expectError(1, "nowhere")
	away.runCLI("config", "--url", h.serverURL(), "--project", "main", "--token", h.token).expectExit(0)
	away.runCLI("ps").expectExit(0)
	info, err := os.Stat(filepath.Join(away.home, ".dstack", "config.yml"))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file with the token: %v, %v", fmt.Sprint(info), err)
	}
}
