package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// everything returns all bytes of the database: its files, or a dump.
func (h *fixture) everything() []byte {
	h.t.Helper()
	var all bytes.Buffer
	if path, ok := strings.CutPrefix(h.url, "sqlite://"); ok {
		files, err := filepath.Glob(path + "*")
		h.noError(err)
		if len(files) < 2 {
			h.t.Fatalf("only %v to look into: the write-ahead log is missing", files)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			h.noError(err)
			all.Write(text)
		}
		return all.Bytes()
	}
	db := h.openRaw()
	tables := strings.Fields("installation users projects members secrets repos codes runs revisions events replicas attempts instances claims reports certificates")
	for _, table := range tables {
		rows, err := db.QueryContext(h.t.Context(), "SELECT row_to_json(x)::text FROM "+table+" AS x")
		h.noError(err)
		for rows.Next() {
			var text string
			h.noError(rows.Scan(&text))
			all.WriteString(text)
		}
		h.noError(rows.Err())
		h.noError(rows.Close())
	}
	return all.Bytes()
}

func TestSecrets_AreEncryptedInTheDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.ready("web", "127.0.0.1:1", t0)
		all := h.everything()
		if !bytes.Contains(all, []byte(hash("admin"))) {
			t.Fatal("this test does not see what is in the database")
		}
		for _, secret := range []string{"canary-of-web", "canary-password", "SECRET"} {
			if bytes.Contains(all, []byte(secret)) {
				t.Errorf("%q is readable", secret)
			}
		}
	})
}

func TestSecrets_OpenOnlyInTheirOwnRow(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		a, b := h.submit("a", t0), h.submit("b", t0.Add(1000))
		h.submit("c", t0.Add(2000))
		raw := h.openRaw()
		for _, swap := range []string{
			"UPDATE runs SET repo = (SELECT spec FROM runs AS b WHERE b.name = 'b') WHERE name = 'a'",
			"UPDATE runs SET spec = (SELECT spec FROM runs AS a WHERE a.name = 'a') WHERE name = 'b'",
			"UPDATE runs SET spec = repo WHERE name = 'a'",
		} {
			_, err := raw.ExecContext(ctx, swap)
			h.noError(err)
		}
		for _, id := range []dstack.RunID{a.ID, b.ID} {
			if facts, err := h.s.RunFacts(ctx, id); err == nil {
				t.Errorf("run %s has the spec of another: %v", facts.Run.Name, facts.Run.Spec.Configuration.Env)
			}
		}
		// The broken ones hide nothing, and can be ended.
		runs, err := h.s.Runs(ctx, store.RunQuery{Ascending: true})
		h.noError(err)
		if len(runs) != 3 || runs[0].Reason == "" || len(runs[0].Spec.Configuration.Env) > 0 || runs[2].Reason != "" {
			t.Errorf("got %v", runs)
		}
		h.finish(a.ID, t0)
	})
}

// A run that cannot be read does not stop the other replicas of its machine, and
// none of its attempts is started.
func TestSecrets_AnUnreadableRunOnAMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		run, r := h.replica("a", t0)
		h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
		_, err := h.openRaw().ExecContext(ctx, "UPDATE runs SET spec = 'enc:v1:00000000:AAAA'")
		h.noError(err)
		seen, err := h.s.InstanceFacts(ctx, "local-box")
		h.noError(err)
		if commands := lifecycle.PlanEngineCommands(seen.Instance, seen.Replicas, nil); len(seen.Replicas) != 1 || len(commands) != 0 {
			t.Errorf("the engine gets commands %v", commands)
		}
		if _, err := h.s.ReplicaFacts(ctx, r.ID); err == nil {
			t.Error("a replica of a run that cannot be read goes on")
		}
		h.noError(h.s.StopRun(ctx, run.ID, dstack.StopGraceful, "admin", t0))
		h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunTerminating, Terminate: []dstack.ReplicaID{r.ID}}, t0)
		h.replicaStep(r.ID, lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}, t0)
	})
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key := strings.Repeat("A", 43) + "=\n"
	for _, c := range []struct{ name, file, says string }{
		{"none in it", write("empty", "# nothing\n", 0o600), "there is no key in it"},
		{"not base64", write("bad", key+"%%%\n", 0o600), "line 2"},
		{"too short", write("short", "AAAA\n", 0o600), "line 1"},
		{"readable by others", write("open", key, 0o644), "others can read it"},
		{"a folder", dir, "is a directory"},
		{"no folder", filepath.Join(dir, "no", "such"), "no such file"},
	} {
		_, err := store.NewSealer(c.file)
		if err == nil || !strings.Contains(err.Error(), c.says) || dstack.KindOf(err) != dstack.Unavailable {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	file := filepath.Join(dir, "fresh")
	for range 2 { // made, then read
		if _, err := store.NewSealer(file); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestKeys_WrongKeyIsRefusedAndOldKeysOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		h.submit("before", t0)
		dir := t.TempDir()
		other, err := store.NewSealer(filepath.Join(dir, "other"))
		h.noError(err)
		for _, wrong := range []*store.Sealer{other, nil} {
			_, err = store.Open(ctx, h.url, wrong)
			h.wantKind(dstack.Unavailable, err)
		}
	})
}

func TestKeys_Rotate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	old, err := store.NewSealer(file)
	if err != nil {
		t.Fatal(err)
	}
	h := &fixture{t: t, url: "sqlite://" + filepath.Join(dir, "db"), sealer: old}
	h.open()
	h.user = dstack.User{ID: "u", Name: "admin", GlobalRole: dstack.RoleAdmin, TokenHash: "x", CreatedAt: t0}
	h.project = dstack.Project{ID: "p", Name: "main", Owner: "u", CreatedAt: t0}
	h.noError(h.s.CreateUser(t.Context(), h.user))
	h.noError(h.s.CreateProject(t.Context(), h.project))
	h.submit("before", t0)

	text, err := os.ReadFile(file)
	h.noError(err)
	h.noError(os.WriteFile(file, append([]byte(strings.Repeat("B", 43)+"=\n"), text...), 0o600))
	h.sealer, err = store.NewSealer(file)
	h.noError(err)
	h.restart()
	h.submit("after", t0)
	runs, err := h.s.Runs(t.Context(), store.RunQuery{})
	h.noError(err)
	for _, run := range runs {
		if run.Reason != "" {
			t.Errorf("%s: %s", run.Name, run.Reason)
		}
	}
	var ids []string
	rows, err := h.openRaw().QueryContext(t.Context(), "SELECT substr(spec, 1, 15) FROM runs ORDER BY name")
	h.noError(err)
	for rows.Next() {
		var id string
		h.noError(rows.Scan(&id))
		ids = append(ids, id)
	}
	if h.noError(rows.Close()); len(ids) != 2 || ids[0] == ids[1] {
		t.Errorf("sealed with the keys %v", ids)
	}
	h.noError(h.s.Close())
}
