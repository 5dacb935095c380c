package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// unpackFiles unpacks an archive to target, in a folder that has old/file and a link out.
func unpackFiles(t *testing.T, target string, entries ...testEntry) (dir string, leftOut []string, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "in")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "old"), 0o755), os.WriteFile(filepath.Join(dir, "old", "file"), nil, 0o600),
		os.Symlink("..", filepath.Join(dir, "out"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	leftOut, err = engine.UnpackFiles(context.Background(), root, target, bytes.NewReader(buildArchive(t, entries...)))
	return dir, leftOut, err
}

// namedFolder is a folder as the published client packs it.
var namedFolder = []testEntry{{"conf", tar.TypeDir, "", ""}, {"conf/a", tar.TypeReg, "", "one"}, {"conf/d", tar.TypeDir, "", ""}, {"conf/d/b", tar.TypeReg, "", "two"},
	{"conf/d/link", tar.TypeSymlink, "../a", ""}, {"conf/d/out", tar.TypeSymlink, "../../a", ""}, {"conf/hard", tar.TypeLink, "conf/a", ""}}

func TestUnpackFiles(t *testing.T) {
	file := []testEntry{{"app.yml", tar.TypeReg, "", "one"}}
	for _, c := range []struct {
		name, target string
		entries      []testEntry
		want         map[string]string
	}{
		{"a folder", "x/y", namedFolder, map[string]string{"x/y/a": "one", "x/y/d/b": "two", "x/y/d/link": "one", "x/y/hard": "one", "old/file": ""}},
		{"a folder instead of a folder", "old", namedFolder, map[string]string{"old/a": "one"}},
		{"a folder instead of everything", ".", namedFolder, map[string]string{"a": "one"}},
		{"a folder instead of a file", "old/file", namedFolder, map[string]string{"old/file/a": "one"}},
		{"a folder instead of a link", "out", namedFolder, map[string]string{"out/a": "one"}},
		{"the folder above", "x", []testEntry{{"..", tar.TypeDir, "", ""}, {"../a", tar.TypeReg, "", "one"}}, map[string]string{"x/a": "one"}},
		{"a file", "x/app.yml", file, map[string]string{"x/app.yml": "one"}},
		{"a file instead of a folder", "old", file, map[string]string{"old": "one"}},
		{"a file instead of a link", "out", file, map[string]string{"out": "one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _, err := unpackFiles(t, c.target, c.entries...)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range c.want {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
					t.Errorf("%s has content %q, %v; want %q", name, got, err, want)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "old", "file")); err == nil && c.want["old/file"] == "" && strings.Contains(c.name, "instead of a folder") {
				t.Error("what was there has not been replaced")
			}
			if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
				t.Errorf("files outside of the folder: %v", beside)
			}
		})
	}
	if _, leftOut, _ := unpackFiles(t, "x", namedFolder...); !slices.Equal(leftOut, []string{"d/out"}) {
		t.Errorf("left out: %q", leftOut)
	}
	if dir, _, err := unpackFiles(t, "empty", namedFolder[0]); err != nil {
		t.Error(err)
	} else if info, err := os.Stat(filepath.Join(dir, "empty")); err != nil || !info.IsDir() {
		t.Errorf("an empty folder: %v", err)
	}
}

// maliciousFiles are archives of files that no client makes.
var maliciousFiles = map[string][]testEntry{
	"nothing":              nil,
	"two roots":            {{"a/x", tar.TypeReg, "", "x"}, {"b/x", tar.TypeReg, "", "x"}},
	"two files":            {{"a", tar.TypeReg, "", "x"}, {"a", tar.TypeReg, "", "x"}},
	"file and folder":      {{"a", tar.TypeDir, "", ""}, {"a", tar.TypeReg, "", "x"}},
	"file below a file":    {{"a", tar.TypeReg, "", "x"}, {"a/b", tar.TypeReg, "", "x"}},
	"a link":               {{"a", tar.TypeSymlink, "/etc", ""}},
	"a hard link":          {{"a", tar.TypeLink, "/etc/passwd", ""}},
	"absolute":             {{"/etc/passwd", tar.TypeReg, "", "x"}},
	"absolute below root":  {{"a//etc/passwd", tar.TypeReg, "", "x"}},
	"parent":               {{"a/../../out", tar.TypeReg, "", "x"}},
	"parent of the parent": {{"../../out", tar.TypeReg, "", "x"}},
	"hard link above":      {{"a/f", tar.TypeReg, "", "x"}, {"a/l", tar.TypeLink, "a/../../f", ""}},
	"below a link":         {{"a/d", tar.TypeDir, "", ""}, {"a/l", tar.TypeSymlink, "d", ""}, {"a/l/x", tar.TypeReg, "", "x"}},
	"device":               {{"a/d", tar.TypeChar, "", ""}},
}

func TestUnpackFiles_RefusesPathsOutside(t *testing.T) {
	for name, entries := range maliciousFiles {
		t.Run(name, func(t *testing.T) {
			dir, _, err := unpackFiles(t, "x", entries...)
			if dstack.KindOf(err) != dstack.Invalid {
				t.Errorf("the archive was accepted: %v", err)
			}
			if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
				t.Errorf("files outside of the folder: %v", beside)
			}
			if _, err := engine.CheckFiles(t.Context(), bytes.NewReader(buildArchive(t, entries...))); dstack.KindOf(err) != dstack.Invalid {
				t.Errorf("the archive passed the check: %v", err)
			}
			if _, err := engine.RepackFiles(t.Context(), io.Discard, "x", false, bytes.NewReader(buildArchive(t, entries...))); dstack.KindOf(err) != dstack.Invalid {
				t.Errorf("the archive was repacked: %v", err)
			}
		})
	}
}

// A link in the folder, for example of a cloned repository, is not followed out of it.
func TestUnpackFiles_FollowsNoLinkOut(t *testing.T) {
	for _, entries := range [][]testEntry{namedFolder, {{"a", tar.TypeReg, "", "x"}}} {
		dir, _, err := unpackFiles(t, "out/x", entries...)
		if err == nil {
			t.Error("the archive was unpacked below a link that leads out")
		}
		if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
			t.Errorf("files outside of the folder: %v", beside)
		}
	}
	if _, _, err := unpackFiles(t, ".", testEntry{"a", tar.TypeReg, "", "x"}); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("a file replaces the whole folder: %v", err)
	}
}

func TestRepackFiles(t *testing.T) {
	var buf bytes.Buffer
	leftOut, err := engine.RepackFiles(t.Context(), &buf, "etc/app", true, bytes.NewReader(buildArchive(t, namedFolder...)))
	if err != nil || !slices.Equal(leftOut, []string{"d/out"}) {
		t.Fatalf("%q, %v", leftOut, err)
	}
	var got []string
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(h.Typeflag)+" "+h.Name+" "+h.Linkname)
	}
	want := []string{"0 etc/app ", "5 etc/app ", "0 etc/app/a ", "5 etc/app/d ", "0 etc/app/d/b ", "2 etc/app/d/link ../a", "1 etc/app/hard etc/app/a"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestResolveTarget(t *testing.T) {
	spec := dstack.AttemptSpec{Env: map[string]string{"HOME": "/home/ann"}}
	for name, want := range map[string]string{"a": "/work/a", ".": "/work", "../a/": "/a", "/b/c/": "/b/c", "~": "/home/ann", "~/x": "/home/ann/x", "..": "", "/": ""} {
		got, err := engine.ResolveTarget(spec, "/work", name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, _ := engine.ResolveTarget(dstack.AttemptSpec{}, "/work", "~/x"); got != "/root/x" {
		t.Errorf("without HOME: %q", got)
	}
}
