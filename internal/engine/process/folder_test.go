package process_test

import (
	"os"
	"path/filepath"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
)

// A server without free file descriptors cannot open locks. It must not kill running
// attempts as orphans because of that.
func TestRunning_UnreadableLock(t *testing.T) {
	dir := t.TempDir()
	e := openClean(t, dir)
	spec := newSpec("sleep 60")
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
	lock := filepath.Join(dir, string(spec.Attempt), "lock")
	if err := os.Rename(lock, lock+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("lock", lock); err != nil { // a link to itself cannot be opened
		t.Fatal(err)
	}
	all, err := e.ListReports(t.Context())
	if err := os.Rename(lock+".away", lock); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(all) != 1 || all[0].State != dstack.AttemptRunning {
		t.Errorf("reports %+v, %v", all, err)
	}
	if r := enginetest.WaitForReport(t, e, spec.Attempt, func(dstack.Report) bool { return true }); r.State != dstack.AttemptRunning {
		t.Errorf("afterwards %+v", r)
	}
}
