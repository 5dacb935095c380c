package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server"
	"dstack/internal/server/store"
)

// makeServerData makes the folder of a server with one project, and sets the environment to it.
func makeServerData(t *testing.T, project string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "server")
	t.Setenv("DSTACK_SERVER_DIR", dir)
	t.Setenv("DSTACK_DATABASE_URL", "")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := "projects:\n- name: " + project + "\n"
	if err := os.WriteFile(filepath.Join(dir, configName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, _, err := server.ReadConfig(dir, server.DefaultProject, newConfigFormat(backendTypes))
	if err != nil {
		t.Fatal(err)
	}
	s := openServerData(t, dir)
	defer s.Close()
	if _, err := server.Boot(t.Context(), server.BootOptions{Store: s, Dir: dir, Config: config}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openServerData(t *testing.T, dir string) *store.Store {
	t.Helper()
	sealer, err := store.NewSealer(filepath.Join(dir, keyName))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), "sqlite://"+filepath.Join(dir, "data", databaseName), sealer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hasProject reports whether the server's data has a project.
func hasProject(t *testing.T, dir, project string) bool {
	t.Helper()
	s := openServerData(t, dir)
	defer s.Close()
	_, err := s.Project(t.Context(), project)
	if err != nil && dstack.KindOf(err) != dstack.NotFound {
		t.Fatal(err)
	}
	return err == nil
}

func TestBackup_IsRestoredIntoAnotherFolder(t *testing.T) {
	dir := makeServerData(t, "first")
	used := openServerData(t, dir) // as if the server were running
	defer used.Close()
	file := filepath.Join(t.TempDir(), "backup.tar.gz")
	if err := runBackup(t.Context(), file, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v %v", info, err)
	}
	if err := runBackup(t.Context(), file, false, io.Discard); dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("a file was overwritten: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the backup: %v %v", left, err)
	}
	dir = makeServerData(t, "second")
	var out strings.Builder
	if err := runRestore(t.Context(), file, false, &out); err != nil {
		t.Fatal(err)
	}
	if !hasProject(t, dir, "first") || hasProject(t, dir, "second") {
		t.Error("the projects are not those of the backup")
	}
	kept, err := filepath.Glob(filepath.Join(dir, "before-restore-*"))
	if err != nil || len(kept) != 1 || !strings.Contains(out.String(), kept[0]) {
		t.Fatalf("kept: %v %v; it said %q", kept, err, out.String())
	}
	for _, name := range []string{databaseName, keyName, configName} {
		if _, err := os.Stat(filepath.Join(kept[0], name)); err != nil {
			t.Errorf("the earlier data is not complete: %v", err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "restore-*")); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v %v", left, err)
	}
}

func TestRestore_RefusesWhileAServerRuns(t *testing.T) {
	dir := makeServerData(t, "first")
	file := filepath.Join(t.TempDir(), "backup.tar.gz")
	if err := runBackup(t.Context(), file, true, io.Discard); err != nil {
		t.Fatal(err)
	}
	lock, err := lockFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = runRestore(ctx, file, false, io.Discard)
	if e, ok := errors.AsType[*dstack.Error](err); !ok || e.Kind != dstack.Conflict || e.Hint != "stop it before its data is replaced" {
		t.Errorf("the error is %v", err)
	}
}

func TestRestore_RefusesWithoutAChange(t *testing.T) {
	dir := makeServerData(t, "other")
	otherKey, err := os.ReadFile(filepath.Join(dir, keyName))
	if err != nil {
		t.Fatal(err)
	}
	dir = makeServerData(t, "first")
	good := filepath.Join(t.TempDir(), "backup.tar.gz")
	if err := runBackup(t.Context(), good, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	files := readBackup(t, good)
	for _, c := range []struct {
		name   string
		change func(files map[string]string) (names []string)
		want   string
	}{
		{"not compressed", nil, "it is not compressed"},
		{"without the key", func(f map[string]string) []string { return []string{manifestName, databaseName} }, "it is not complete"},
		{"without the manifest", func(f map[string]string) []string { return []string{keyName, databaseName} }, "it is not complete"},
		{"a file twice", func(f map[string]string) []string { return []string{manifestName, keyName, keyName} }, `it contains "encryption.key"`},
		{"a path", func(f map[string]string) []string { f["../evil"] = "x"; return []string{manifestName, "../evil"} }, `it contains "../evil"`},
		{"a later form", func(f map[string]string) []string { f[manifestName] = `{"format": 2}`; return []string{manifestName} }, "its form is that of another version"},
		{"another key", func(f map[string]string) []string {
			f[keyName] = string(otherKey)
			return []string{manifestName, keyName, databaseName}
		}, "its secrets were sealed with another key"},
		{"a damaged database", func(f map[string]string) []string {
			f[databaseName] = f[databaseName][:8192] + strings.Repeat("x", len(f[databaseName])-8192)
			return []string{manifestName, keyName, databaseName}
		}, "the backup cannot be used"},
		{"a broken configuration", func(f map[string]string) []string {
			f[configName] = "projects: nonsense"
			return []string{manifestName, keyName, configName, databaseName}
		}, "the backup cannot be used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad.tar.gz")
			if c.change == nil {
				if err := os.WriteFile(bad, []byte("text"), 0o600); err != nil {
					t.Fatal(err)
				}
			} else {
				changed := map[string]string{}
				for name, text := range files {
					changed[name] = text
				}
				writeBackupFile(t, bad, changed, c.change(changed))
			}
			if err := runRestore(t.Context(), bad, false, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
			if !hasProject(t, dir, "first") {
				t.Error("the data is not what it was")
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, "*restore-*")); len(kept) > 0 {
				t.Errorf("left in the folder: %v", kept)
			}
		})
	}
	t.Run("cut off", func(t *testing.T) {
		text, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(t.TempDir(), "bad.tar.gz")
		if err := os.WriteFile(bad, text[:len(text)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := runRestore(t.Context(), bad, false, io.Discard); err == nil || !hasProject(t, dir, "first") {
			t.Errorf("the error is %v", err)
		}
	})
}

func readBackup(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compressed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(compressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(text)
	}
}

func writeBackupFile(t *testing.T, path string, files map[string]string, names []string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	compressed := gzip.NewWriter(f)
	archive := tar.NewWriter(compressed)
	for _, name := range names {
		if err := addBytes(archive, name, []byte(files[name]), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{archive, compressed, f} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
