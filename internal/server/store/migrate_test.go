package store_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// A database from before revisions is migrated, and can be migrated back.
func TestMigrate_OldDatabaseUpAndDown(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		h.submit("new", t0.Add(time.Second))
		h.revise(run.ID, "two", true, t0)
		raw := h.openRaw()
		dialect := goose.DialectSQLite3
		if strings.HasPrefix(h.url, "postgres") {
			dialect = goose.DialectPostgres
		}
		provider, err := goose.NewProvider(dialect, raw, os.DirFS("migrations"), goose.WithDisableGlobalRegistry(true))
		h.noError(err)
		h.noError(h.s.Close())
		_, err = provider.DownTo(t.Context(), 2)
		h.noError(err)
		h.open()

		got, old := h.reread(run.ID)
		want := revisionState{2, 2, 2, 0, false, "two"}
		if diff := cmp.Diff(want, revisionStateOf(got)); diff != "" || !got.ScaledAt.Equal(t0) || got.DesiredReplicas != 1 {
			t.Errorf("got %+v: %s", got, diff)
		}
		if old.ID != r.ID || old.TemplateRevision != 1 || old.Group != "0" || got.Groups != nil || old.Status != dstack.ReplicaReady {
			t.Errorf("got %+v", old)
		}
		if diff := cmp.Diff(map[int]dstack.RevisionStatus{2: pending}, h.revisions(run.ID)); diff != "" {
			t.Error(diff)
		}
		rev, err := h.s.Revision(t.Context(), run.ID, 2)
		if h.noError(err); rev.Spec.Configuration.Commands[0] != "two" || rev.User != "bob" {
			t.Errorf("got %+v", rev)
		}
		if next := h.revise(run.ID, "three", true, t0); next.Revision != 3 {
			t.Errorf("got %+v", next)
		}
	})
}

// A command of a later version does not migrate the database of a running server.
func TestOpenMigrated_DoesNotMigrate(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "one", t0)
		raw := h.openRaw()
		dialect := goose.DialectSQLite3
		if strings.HasPrefix(h.url, "postgres") {
			dialect = goose.DialectPostgres
		}
		provider, err := goose.NewProvider(dialect, raw, os.DirFS("migrations"), goose.WithDisableGlobalRegistry(true))
		h.noError(err)
		h.noError(h.s.Close())
		_, err = provider.DownTo(t.Context(), 6)
		h.noError(err)
		for range 2 {
			_, err = store.OpenMigrated(t.Context(), h.url, h.sealer)
			h.wantKind(dstack.Conflict, err)
		}
		h.open()
		beside, err := store.OpenMigrated(t.Context(), h.url, h.sealer)
		h.noError(err)
		if u, err := beside.User(t.Context(), h.user.Name); err != nil || u.ID != h.user.ID {
			t.Errorf("%+v, %v", u, err)
		}
		h.noError(beside.Close())
	})
}

// An earlier version would misread what a later one has written.
func TestOpen_RefusesTheDatabaseOfALaterVersion(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.noError(h.s.Close())
		_, err := h.openRaw().ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)")
		h.noError(err)
		_, err = store.Open(t.Context(), h.url, h.sealer)
		h.wantKind(dstack.Conflict, err)
		_, err = store.OpenMigrated(t.Context(), h.url, h.sealer)
		h.wantKind(dstack.Conflict, err)
	})
}

// A new revision writes no secret in the clear.
func TestSecrets_OfRevisionsAreNotReadable(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, _ := h.ready("web", "127.0.0.1:1", t0)
		h.revise(run.ID, "canary-command", true, t0)
		if strings.Contains(string(h.everything()), "canary-command") {
			t.Error("a revision's spec is readable")
		}
	})
}
