package logs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/server/logs"
)

func TestAppend_FullTmpfs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs mount: not root; TestAppend_FullDisk simulates a full disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs mount: %v; TestAppend_FullDisk simulates a full disk", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := logs.New(filepath.Join(dir, "logs"), 1<<20)
	ballast := filepath.Join(dir, "ballast")
	mustAppend(t, s, testKey("a"), t0, "first")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is larger than expected")
	}
	const n = 100
	for i := range n {
		mustAppend(t, s, testKey("a"), t0.Add(time.Duration(i+1)*time.Second), strings.Repeat("z", 1000))
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, testKey("a"), t0.Add(time.Hour), "last")
	got := lineTexts(readLines(t, s, testKey("a")))
	kept := len(got) - 3
	want := fmt.Sprintf("… %d lines lost: the disk was full", n-kept)
	if kept < 0 || kept == n || got[0] != "first" || got[len(got)-2] != want || got[len(got)-1] != "last" {
		t.Errorf("got %d lines, ending with %q; want %q", len(got), got[max(0, len(got)-2):], want)
	}
}
