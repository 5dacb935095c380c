package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/gitignore"
)

// Files and folders that cannot be read are left out with a note.
func TestArchive_LeavesOutUnreadableFiles(t *testing.T) {
	dir, err := os.MkdirTemp("", "dstack-unreadable-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, name := range []string{"fine", "file", "closed/x", "listed/x", "open/x"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{".": 0o755, "file": 0, "closed": 0, "listed": 0o444, "open": 0o755} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 { // root reads everything: this thread becomes nobody for the file system
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		defer func() { _, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0) }()
	}
	packed, err := archiveFolder(t.Context(), dir, gitignore.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	want := []string{"closed/ cannot be read: left out", "file cannot be read: left out", "listed/ cannot be read: left out"}
	if diff := cmp.Diff(want, packed.Notes); diff != "" || packed.Files != 2 {
		t.Errorf("%d files: %s", packed.Files, diff)
	}
}
