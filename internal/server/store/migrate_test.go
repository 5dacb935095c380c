package store_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// A database from before revisions is migrated, and can be migrated back.
func TestMigrate_OldDatabaseUpAndDown(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run, r := h.ready("web", "127.0.0.1:1", t0)
		h.submit("new", t0.Add(time.Second))
		h.revise(run.ID, "two", true, t0)
		h.noError(h.s.MigrateDown(t.Context(), 2))
		h.noError(h.s.Close())
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
		h.noError(h.s.MigrateDown(t.Context(), 6))
		h.noError(h.s.Close())
		for range 2 {
			_, err := store.OpenMigrated(t.Context(), h.url, h.sealer)
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

// An earlier version opens the database of a later one that only added to it: goose's own table says nothing of that.
func TestOpen_ExpansionsAreNotRecordedAsChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		var last int64
		h.noError(h.openRaw().QueryRowContext(t.Context(), "SELECT MAX(version_id) FROM goose_db_version").Scan(&last))
		if last != 13 {
			t.Errorf("the version of 4205efd knows 13 migrations, and would refuse number %d", last)
		}
		h.noError(h.s.Close())
		_, err := h.openRaw().ExecContext(t.Context(), "INSERT INTO expansions (version_id, is_applied) VALUES (9999, TRUE)")
		h.noError(err)
		h.open()
		beside, err := store.OpenMigrated(t.Context(), h.url, h.sealer)
		h.noError(err)
		h.noError(beside.Close())
	})
}

// Every statement of an expansion leaves what an earlier version reads and writes as it is.
func TestExpansions_OnlyAdd(t *testing.T) {
	names, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(names) < 14 {
		t.Fatalf("%v %v", names, err)
	}
	var oldTables []string
	for _, name := range names { // in their order
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		if filepath.Base(name) < "0014" {
			for _, created := range regexp.MustCompile(`CREATE TABLE (\w+)`).FindAllStringSubmatch(up, -1) {
				oldTables = append(oldTables, created[1])
			}
			continue
		}
		for _, statement := range strings.Split(removeComments(up), ";") {
			if problem := findProblem(strings.Join(strings.Fields(statement), " "), oldTables); problem != "" {
				t.Errorf("%s: %s: %s", name, problem, statement)
			}
		}
	}
}

func removeComments(text string) string { return regexp.MustCompile(`--.*`).ReplaceAllString(text, "") }

// findProblem says why a statement is not an expansion; empty: it is.
func findProblem(statement string, oldTables []string) string {
	added := regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN `).FindStringSubmatch(statement)
	created := regexp.MustCompile(`^CREATE (UNIQUE )?INDEX \w+ ON (\w+)`).FindStringSubmatch(statement)
	switch {
	case statement == "", strings.HasPrefix(statement, "CREATE TABLE "):
		return ""
	case created != nil && created[1] != "" && slices.Contains(oldTables, created[2]):
		return "an earlier version does not know that these are unique"
	case created != nil:
		return ""
	case added == nil:
		return "it may change what an earlier version uses"
	case slices.Contains(wholeTables, added[1]):
		return "an earlier version reads all columns of this table, and refuses one that it does not know"
	case strings.Contains(statement, "NOT NULL") && !strings.Contains(statement, "DEFAULT"):
		return "an earlier version cannot add a row without this column"
	}
	return ""
}

// wholeTables are those that version 4205efd reads with `SELECT x.*`.
var wholeTables = []string{"fleets", "hosts", "repo_access", "runs", "volumes"}

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
