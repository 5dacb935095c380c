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
)

// A keeper that was killed has no descendants any more; whoever has its number
// by now, and their children, are somebody else.
func TestRunning_KeepersNumberBelongsToAnother(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs linux: this system does not tell who descends from whom")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "60") // a child of this process, which has the keeper's number
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = other.Process.Kill(), other.Wait() }()
	dir := t.TempDir()
	o := order("")
	folder := filepath.Join(dir, string(o.Attempt))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	kept, err := json.Marshal(map[string]any{
		"Keeper": os.Getpid(), "Leader": gone.Process.Pid, "Birth": "1", "Boot": strings.TrimSpace(string(boot)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"lock": nil, "kept.json": kept} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := until(t, at(t, dir), o.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
	if !strings.Contains(r.Error, "was killed") {
		t.Errorf("report %+v", r)
	}
	if got, err := syscall.Wait4(other.Process.Pid, nil, syscall.WNOHANG, nil); got != 0 {
		t.Errorf("somebody else's process was killed: %d, %v", got, err)
	}
}
