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

// TestHeld: a request that comes before its service is ready waits for it.
func TestHeld(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine)
		dir := h.folder(strings.Replace(h.workload("slow"), "- exec", "- sleep 1\n- exec", 1))
		h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").exits(0).says("dstack logs slow -f")
		began := time.Now()
		h.refused(h.service("slow", "/")) // at once, held or not
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("a call without a token was held for %s", took)
		}
		h.eventually(500*time.Millisecond, "the gateway knows of the run, and holds the call", func() error {
			a, err := h.call("GET", h.service("slow", "/"), h.token, "")
			if err == nil && a.status != 200 {
				err = fmt.Errorf("status %d: %s", a.status, a.body)
			}
			return err
		})
		h.answers(h.byPath("slow", "/"), 200)
	})
}

// TestPostgres is a server with its memory in PostgreSQL, killed half way.
func TestPostgres(t *testing.T) {
	t.Parallel()
	address := need(t, "postgres", "DSTACK_TEST_POSTGRES_URL")
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

	h := newHouse(t, "process", "DSTACK_DATABASE_URL="+u.String())
	h.eventually(10*time.Second, "the server says where its memory is", func() error { // it answers before it greets
		if !strings.Contains(h.log.String(), "PostgreSQL") {
			return errors.New("it does not")
		}
		return nil
	})
	h.apply(h.folder(h.workload("elsewhere")))
	before := h.about("elsewhere").PID
	h.kill()
	h.start()
	if after := h.about("elsewhere").PID; after != before {
		t.Errorf("process %d became %d while the server was away", before, after)
	}
	h.stopped("elsewhere")
	if _, err := os.Stat(filepath.Join(h.dir, "data", "sqlite.db")); err == nil {
		t.Error("there is a SQLite file beside it")
	}
}

// TestConfig gives the command line another home, as on another machine.
func TestConfig(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	away := &house{t: t, engine: h.engine, home: t.TempDir(), dir: h.dir, port: h.port, token: h.token}
	away.cli("ps").refuses(2, "no server is configured", "dstack server")
	away.cli("config", "--url", h.url(), "--project", "main", "--token", "wrong").refuses(1, "token")
	away.cli("config", "--url", h.url(), "--project", "nowhere", "--token", h.token).refuses(1, "nowhere")
	away.cli("config", "--url", h.url(), "--project", "main", "--token", h.token).exits(0)
	away.cli("ps").exits(0)
	info, err := os.Stat(filepath.Join(away.home, ".dstack", "config.yml"))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file with the token: %v, %v", fmt.Sprint(info), err)
	}
}
