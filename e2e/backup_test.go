package e2e

import (
	"path/filepath"
	"testing"
	"time"
)

// TestBackup makes a backup of a running server under load, and restores it later: the run that was there goes on with the
// replica that it has, and the replica of a newer run, which nobody knows any more, is stopped.
func TestBackup(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(h.workloadConfig("stays")))
	instance := h.waitForInstances("stays", 1)
	requests := h.startTraffic(50, h.serviceURL("stays", "/who"))
	file := filepath.Join(t.TempDir(), "backup.tar.gz")
	h.runCLI("server", "backup", file, "-o", "json").expectExit(0).expectText(`"file":"` + file + `"`)
	requests.expectNoFailure("requests during the backup")
	h.applyAndWait(h.newFolder(h.workloadConfig("newer")))
	processes := len(h.listProcesses())
	h.runCLI("server", "restore", file).expectExit(1).expectText("another dstack server already uses", "stop it before its data is replaced")

	h.stopServer()
	h.runCLI("server", "restore", file).expectExit(0).expectText("what was there before is in " + h.serverDir)
	h.startServer()
	if after := h.waitForInstances("stays", 1); after[0] != instance[0] {
		t.Errorf("the replica was %s, and is %s", instance, after)
	}
	h.waitUntil(20*time.Second, "the replica of the newer run is stopped", func() error {
		if left := h.listProcesses(); len(left) >= processes {
			return errNotYet
		}
		return nil
	})
	if runs := h.listActiveRuns(); len(runs) != 1 {
		t.Errorf("the runs are %v", runs)
	}
}
