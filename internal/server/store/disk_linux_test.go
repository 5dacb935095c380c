package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
)

// On a full disk writes fail with a clear message, saved rows stay, and writes
// succeed again once there is space.
func TestSQLite_OnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs mount: not root: a small disk cannot be mounted")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("needs mount: a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	h := newFixture(t, "sqlite://"+dir+"/server.db")
	h.submit("before", t0)
	ballast := filepath.Join(dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 4<<20), 0o600) // fails when the disk is full, as it should

	var err error
	for range 300 {
		name := "run-" + uuid.NewString()[:8]
		run := dstack.Run{ID: dstack.RunID(uuid.NewString()), ProjectID: h.project.ID, User: "admin", Name: name, Spec: runSpec(name), SubmittedAt: t0}
		if err = h.s.SubmitRun(t.Context(), run); err != nil {
			break
		}
	}
	h.wantKind(dstack.Unavailable, err)
	if !strings.Contains(err.Error(), "disk") {
		t.Errorf("%v does not say what to do", err)
	}
	if _, err := h.s.Run(t.Context(), h.project.ID, "before"); err != nil {
		t.Errorf("what was saved cannot be read: %v", err)
	}
	h.noError(os.Remove(ballast))
	h.submit("after", t0.Add(time.Second))
}
