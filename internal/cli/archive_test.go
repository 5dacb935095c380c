package cli

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/gitignore"
)

func archivedNames(t *testing.T, dir string) []string {
	t.Helper()
	packed, err := archiveFolder(t.Context(), dir, gitignore.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	content, err := io.ReadAll(packed.newReader())
	if err != nil || int64(len(content)) != packed.Size {
		t.Fatalf("the archive has %d bytes, its size is %d (%v)", len(content), packed.Size, err)
	}
	return tarNames(t, content)
}

func TestArchive_LeavesOutIgnoredFiles(t *testing.T) {
	u := newTestUser(t, nil)
	for _, name := range []string{
		".git/objects/x", ".git/refs/x", "sub/.git/HEAD", "keep.txt", "a.log", "deep/b.log", "deep/keep.log", "build/x", "sub/build/y",
		"data/big.bin", "data/small.txt", "secret.env", "weights/w.bin", "#odd", "sub/only-here", "only-here", "with space ",
	} {
		u.writeFile(name, "x")
	}
	u.writeFile(".git/HEAD", "ref: refs/heads/main\n")
	u.writeFile(".git/info/exclude", "secret.env\n")
	u.writeFile(".gitignore", "# a comment\n*.log\r\n!keep.log\n/build/\n\\#odd\n\ndata/*.bin\n")
	u.writeFile("sub/.gitignore", "/only-here\n")
	u.writeFile(".dstackignore", "weights\n!data/big.bin\n")
	want := []string{".dstackignore", ".gitignore", "data/", "data/big.bin", "data/small.txt", "deep/", "deep/keep.log",
		"keep.txt", "only-here", "sub/", "sub/.gitignore", "sub/build/", "sub/build/y", "with space "}
	if got := archivedNames(t, u.dir); !slices.Equal(got, want) {
		t.Errorf("packed %q\nwant   %q", got, want)
	}
	// In a subfolder, the rules of the folders above it apply too.
	if got, want := archivedNames(t, filepath.Join(u.dir, "sub")), []string{".gitignore", "build/", "build/y"}; !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
}

func TestArchive_HasTheHashOfItsContent(t *testing.T) {
	u := newTestUser(t, nil)
	u.writeFile("b", "1")
	u.writeFile("a/c", "2")
	first, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := os.Chtimes(filepath.Join(u.dir, "b"), time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(u.dir, "b"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if first.Hash != again.Hash {
		t.Error("the modification time changed the hash")
	}
	u.writeFile("b", "2")
	other, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if first.Hash == other.Hash {
		t.Error("the content did not change the hash")
	}
}

func TestArchive_ReportsAllRejectedFiles(t *testing.T) {
	u := newTestUser(t, nil)
	for _, name := range []string{"huge", "sub/vast"} {
		u.writeFile(name, "")
		if err := os.Truncate(filepath.Join(u.dir, name), maxFileSize+1); err != nil {
			t.Fatal(err)
		}
	}
	u.writeFile("fine", "x")
	_, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	want := " because of 2 files:\nhuge has 16MB, the limit is 16MB\nsub/vast has 16MB, the limit is 16MB"
	if dstack.KindOf(err) != dstack.TooLarge || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	u.writeFile(".dstackignore", "huge\nvast\n")
	if got, want := archivedNames(t, u.dir), []string{".dstackignore", "fine"}; !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
}

// Links travel as links. What leads out of the folder, and what is neither a file nor a
// folder, is left out with a note.
func TestArchive_LeavesOutWhatCannotTravel(t *testing.T) {
	u := newTestUser(t, nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u.writeFile("fine", "x")
	u.writeFile("venv/bin/tool", "x")
	for name, target := range map[string]string{
		"ok-link": "fine", "ok-dangling": "nothing", "ok-folder": "venv", "ok-up": "venv/bin/../../fine", "ok-circle": "ok-circle",
		"ok-through": "ok-folder/bin/tool", "venv/bin/ok-parent": "../../fine", "ok-file": "fine/below",
		"link-up": "../outside", "link-abs": "/etc/passwd", "link-through": "link-up/x", "link-inside-abs": filepath.Join(u.dir, "fine"),
		"venv/bin/python": "python3", "venv/bin/python3": "/usr/bin/python3", "venv/link-up-later": "bin/../../../x",
		"link-chain": "ok-folder/../../x",
	} {
		must(os.Symlink(target, filepath.Join(u.dir, name)))
	}
	must(syscall.Mkfifo(filepath.Join(u.dir, "pipe"), 0o600))
	t.Chdir(u.dir) // the path of a socket must be short
	socket, err := net.Listen("unix", "sock")
	must(err)
	defer socket.Close()

	packed, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	must(err)
	defer packed.Close()
	wantNotes := []string{
		"link-abs is a link out of the folder, to /etc/passwd: left out",
		"link-chain is a link out of the folder, to ok-folder/../../x: left out",
		"link-inside-abs is a link with an absolute path, to " + filepath.Join(u.dir, "fine") + ": left out",
		"link-through is a link to link-up/x, which leads out of the folder, to ../outside: left out",
		"link-up is a link out of the folder, to ../outside: left out",
		"pipe is a named pipe: left out",
		"sock is a socket: left out",
		"venv/bin/python is a link to python3, which leads out of the folder, to /usr/bin/python3: left out",
		"venv/bin/python3 is a link out of the folder, to /usr/bin/python3: left out",
		"venv/link-up-later is a link out of the folder, to bin/../../../x: left out",
	}
	if diff := cmp.Diff(wantNotes, packed.Notes); diff != "" {
		t.Errorf("notes: %s", diff)
	}
	links := map[string]string{}
	for source := tar.NewReader(packed.newReader()); ; {
		h, err := source.Next()
		if err != nil {
			break
		}
		if h.Typeflag == tar.TypeSymlink {
			links[h.Name] = h.Linkname
		}
	}
	wantLinks := map[string]string{
		"ok-link": "fine", "ok-dangling": "nothing", "ok-folder": "venv", "ok-up": "venv/bin/../../fine", "ok-circle": "ok-circle",
		"ok-through": "ok-folder/bin/tool", "venv/bin/ok-parent": "../../fine", "ok-file": "fine/below",
	}
	if diff := cmp.Diff(wantLinks, links); diff != "" {
		t.Errorf("links: %s", diff)
	}
}

func TestArchive_NamesAFewOfManyLinks(t *testing.T) {
	u := newTestUser(t, nil)
	for i := range maxNamedFiles + 5 {
		if err := os.Symlink("/nowhere", filepath.Join(u.dir, fmt.Sprintf("link-%02d", i))); err != nil {
			t.Fatal(err)
		}
	}
	packed, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	last := packed.Notes[len(packed.Notes)-1]
	if len(packed.Notes) != maxNamedFiles+1 || last != "5 more links, sockets or unreadable files are left out" {
		t.Errorf("%d notes, ending in %q", len(packed.Notes), last)
	}
}

func TestArchive_RejectsLargeFolders(t *testing.T) {
	u := newTestUser(t, nil)
	for i := range 5 {
		name := fmt.Sprint("part", i)
		u.writeFile(name, "")
		if err := os.Truncate(filepath.Join(u.dir, name), 14<<20); err != nil {
			t.Fatal(err)
		}
	}
	_, err := archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if dstack.KindOf(err) != dstack.TooLarge || !strings.Contains(err.Error(), "more than 64MB in all") {
		t.Errorf("got %v", err)
	}
}

func TestArchive_LeavesOutTokens(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.dir = u.home
	u.writeFile("service.dstack.yml", serviceFile)
	u.writeFile("app.py", "pass\n")
	u.writeFile(".dstack/config.yml", "projects: []\n")
	u.writeFile(".dstack/server/key", "secret")
	u.run("apply", "-y", "-d", "-f", "service.dstack.yml").check(t, ExitDone, nil, nil)
	for _, content := range f.uploads {
		if got := tarNames(t, content); !slices.Equal(got, []string{"app.py"}) {
			t.Errorf("uploaded %q", got)
		}
	}
	if len(f.uploads) != 1 {
		t.Errorf("%d uploads", len(f.uploads))
	}
}

func TestArchive_StopsOnInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archiveFolder(ctx, t.TempDir(), gitignore.Environment{}); err == nil {
		t.Error("the canceled context was ignored")
	}
}

func TestRepoID_EqualsThatOfThePublishedClient(t *testing.T) {
	if got := hashPath("github.com/dstackai/dstack"); got != "nizdmsg0" {
		t.Errorf("got %s", got)
	}
	if got := repoID("/home/me/my project!"); !strings.HasPrefix(got, "myproject-") {
		t.Errorf("got %s", got)
	}
	if got := repoID("/"); !strings.HasPrefix(got, "folder-") {
		t.Errorf("got %s", got)
	}
}
