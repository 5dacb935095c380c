package process_test

import (
	"os"
	"path/filepath"
	"testing"

	"dstack/internal/dstack"
)

// A server that has run out of file descriptors cannot look at locks. What
// runs must not be taken for left behind, and killed, because of that.
func TestRunning_LockThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	e := at(t, dir)
	o := order("sleep 60")
	if err := e.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	until(t, e, o.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
	lock := filepath.Join(dir, string(o.Attempt), "lock")
	if err := os.Rename(lock, lock+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("lock", lock); err != nil { // opening it fails: it leads to itself
		t.Fatal(err)
	}
	all, err := e.Running(t.Context())
	if err := os.Rename(lock+".away", lock); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(all) != 1 || all[0].State != dstack.AttemptRunning {
		t.Errorf("reports %+v, %v", all, err)
	}
	if r := until(t, e, o.Attempt, func(dstack.Report) bool { return true }); r.State != dstack.AttemptRunning {
		t.Errorf("afterwards %+v", r)
	}
}
