package process_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
)

// The number of a killed keeper may belong to another process by now. That process and
// its children must not be killed.
func TestRunning_ReusedKeeperPID(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs linux: this system does not record the parents of processes")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "60") // a child of this test, whose number is the keeper's
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = other.Process.Kill(), other.Wait() }()
	dir := t.TempDir()
	spec := newSpec("")
	folder := filepath.Join(dir, string(spec.Attempt))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	state, err := json.Marshal(map[string]any{
		"Keeper": os.Getpid(), "Leader": ended.Process.Pid, "Birth": "1", "Boot": strings.TrimSpace(string(boot)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"lock": nil, "kept.json": state} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := enginetest.WaitForReport(t, openClean(t, dir), spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
	if !strings.Contains(r.Error, "was killed") {
		t.Errorf("report: %+v", r)
	}
	if got, err := syscall.Wait4(other.Process.Pid, nil, syscall.WNOHANG, nil); got != 0 {
		t.Errorf("another process was killed: %d, %v", got, err)
	}
}
