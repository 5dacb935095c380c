package cli

import (
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
	u.writeFile("fine", "x")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Truncate(filepath.Join(u.dir, "fine"), 0))
	u.writeFile("huge", "")
	must(os.Truncate(filepath.Join(u.dir, "huge"), maxFileSize+1))
	must(syscall.Mkfifo(filepath.Join(u.dir, "pipe"), 0o600))
	must(os.Symlink("fine", filepath.Join(u.dir, "ok-link")))
	must(os.Symlink("nothing", filepath.Join(u.dir, "ok-dangling")))
	must(os.Symlink("../outside", filepath.Join(u.dir, "link-up")))
	must(os.Symlink("/etc/passwd", filepath.Join(u.dir, "link-abs")))
	must(os.Symlink("link-up/x", filepath.Join(u.dir, "link-through")))
	t.Chdir(u.dir) // the path of a socket must be short
	socket, err := net.Listen("unix", "sock")
	must(err)
	defer socket.Close()

	_, err = archiveFolder(t.Context(), u.dir, gitignore.Environment{})
	if dstack.KindOf(err) != dstack.TooLarge {
		t.Fatalf("got %v", err)
	}
	want := " because of 6 files:\nhuge has 16MB, the limit is 16MB\nlink-abs is a link out of the folder, to /etc/passwd\n" +
		"link-through is a link out of the folder, to link-up/x\nlink-up is a link out of the folder, to ../outside\n" +
		"pipe is a named pipe\nsock is a socket"
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	u.writeFile(".dstackignore", "huge\nlink-*\npipe\nsock\n")
	if got, want := archivedNames(t, u.dir), []string{".dstackignore", "fine", "ok-dangling", "ok-link"}; !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
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
