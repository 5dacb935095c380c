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
)

func packed(t *testing.T, dir string) []string {
	t.Helper()
	box, err := archiveFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	content, err := io.ReadAll(box.newReader())
	if err != nil || int64(len(content)) != box.Size {
		t.Fatalf("%d bytes, said %d (%v)", len(content), box.Size, err)
	}
	return tarNames(t, content)
}

func TestPack_WhatIsIgnoredStaysAtHome(t *testing.T) {
	u := newUser(t, nil)
	for _, name := range []string{
		".git/config", "sub/.git/HEAD", "keep.txt", "a.log", "deep/b.log", "deep/keep.log", "build/x", "sub/build/y",
		"data/big.bin", "data/small.txt", "secret.env", "weights/w.bin", "#odd", "sub/only-here", "only-here", "with space ",
	} {
		u.write(name, "x")
	}
	u.write(".git/info/exclude", "secret.env\n")
	u.write(".gitignore", "# a comment\n*.log\r\n!keep.log\n/build/\n\\#odd\n\ndata/*.bin\n")
	u.write("sub/.gitignore", "/only-here\n")
	u.write(".dstackignore", "weights\n!data/big.bin\n")
	want := []string{".dstackignore", ".gitignore", "data/", "data/big.bin", "data/small.txt", "deep/", "deep/keep.log",
		"keep.txt", "only-here", "sub/", "sub/.gitignore", "sub/build/", "sub/build/y", "with space "}
	if got := packed(t, u.dir); !slices.Equal(got, want) {
		t.Errorf("packed %q\nwant   %q", got, want)
	}
	// From a folder below, the rules above hold too.
	if got, want := packed(t, filepath.Join(u.dir, "sub")), []string{".gitignore", "build/", "build/y"}; !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
}

func TestPack_TheSameContentIsTheSameParcel(t *testing.T) {
	u := newUser(t, nil)
	u.write("b", "1")
	u.write("a/c", "2")
	first, err := archiveFolder(t.Context(), u.dir)
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
	again, err := archiveFolder(t.Context(), u.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if first.Hash != again.Hash {
		t.Error("touching a file made another parcel")
	}
	u.write("b", "2")
	other, err := archiveFolder(t.Context(), u.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if first.Hash == other.Hash {
		t.Error("changing a file made the same parcel")
	}
}

func TestPack_StrangeFilesAreNamedAllAtOnce(t *testing.T) {
	u := newUser(t, nil)
	u.write("fine", "x")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Truncate(filepath.Join(u.dir, "fine"), 0))
	u.write("huge", "")
	must(os.Truncate(filepath.Join(u.dir, "huge"), maxFileSize+1))
	must(syscall.Mkfifo(filepath.Join(u.dir, "pipe"), 0o600))
	must(os.Symlink("fine", filepath.Join(u.dir, "ok-link")))
	must(os.Symlink("nothing", filepath.Join(u.dir, "ok-dangling")))
	must(os.Symlink("../outside", filepath.Join(u.dir, "link-up")))
	must(os.Symlink("/etc/passwd", filepath.Join(u.dir, "link-abs")))
	must(os.Symlink("link-up/x", filepath.Join(u.dir, "link-through")))
	t.Chdir(u.dir) // a socket's path must be short
	socket, err := net.Listen("unix", "sock")
	must(err)
	defer socket.Close()

	_, err = archiveFolder(t.Context(), u.dir)
	if dstack.KindOf(err) != dstack.TooLarge {
		t.Fatalf("got %v", err)
	}
	want := " because of 6 files:\nhuge has 16MB, the limit is 16MB\nlink-abs is a link out of the folder, to /etc/passwd\n" +
		"link-through is a link out of the folder, to link-up/x\nlink-up is a link out of the folder, to ../outside\n" +
		"pipe is a named pipe\nsock is a socket"
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	u.write(".dstackignore", "huge\nlink-*\npipe\nsock\n")
	if got, want := packed(t, u.dir), []string{".dstackignore", "fine", "ok-dangling", "ok-link"}; !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
}

func TestPack_TooMuch(t *testing.T) {
	u := newUser(t, nil)
	for i := range 5 {
		name := fmt.Sprint("part", i)
		u.write(name, "")
		if err := os.Truncate(filepath.Join(u.dir, name), 14<<20); err != nil {
			t.Fatal(err)
		}
	}
	_, err := archiveFolder(t.Context(), u.dir)
	if dstack.KindOf(err) != dstack.TooLarge || !strings.Contains(err.Error(), "more than 64MB in all") {
		t.Errorf("got %v", err)
	}
}

func TestPack_TokensNeverTravel(t *testing.T) {
	f, u := applier(t, ready)
	u.dir = u.home
	u.write("service.dstack.yml", serviceFile)
	u.write("app.py", "pass\n")
	u.write(".dstack/config.yml", "projects: []\n")
	u.write(".dstack/server/key", "secret")
	u.types("apply", "-y", "-d", "-f", "service.dstack.yml").want(t, ExitDone, nil, nil)
	for _, content := range f.uploads {
		if got := tarNames(t, content); !slices.Equal(got, []string{"app.py"}) {
			t.Errorf("uploaded %q", got)
		}
	}
	if len(f.uploads) != 1 {
		t.Errorf("%d uploads", len(f.uploads))
	}
}

func TestPack_AnInterruptEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archiveFolder(ctx, t.TempDir()); err == nil {
		t.Error("it went on")
	}
}

func TestRepoID_AsTheReferenceCountsIt(t *testing.T) {
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
