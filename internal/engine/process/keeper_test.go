package process_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/process"
)

// readKeeperPID returns the process number of an attempt's keeper.
func readKeeperPID(t *testing.T, dir string, id dstack.AttemptID) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, string(id), "kept.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ Keeper int }
	if err := json.Unmarshal(data, &state); err != nil {
		t.Fatal(err)
	}
	return state.Keeper
}

func newSpec(script string) dstack.AttemptSpec {
	return dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Run: "r", WorkingDir: ".", Script: script,
		Port: 11999, StopGracePeriod: 5 * time.Second, Env: map[string]string{},
	}
}

// openClean opens an engine and removes all of its attempts at the end of the test.
func openClean(t *testing.T, dir string) *process.Engine {
	t.Helper()
	e := openEngine(t, dir)
	t.Cleanup(func() {
		all, _ := e.ListReports(context.Background())
		for _, r := range all {
			if err := e.Remove(context.Background(), r.Attempt); err != nil {
				t.Error(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestStart_PortInUse(t *testing.T) {
	for _, host := range []string{"127.0.0.1", ""} {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		spec := newSpec("sleep 60")
		spec.Port = l.Addr().(*net.TCPAddr).Port
		r := enginetest.RunToEnd(t, openClean(t, t.TempDir()), spec)
		if want := fmt.Sprintf("port %d is already in use on this machine", spec.Port); r.State != dstack.AttemptRefused ||
			!r.Permanent || !strings.Contains(r.Error, want) {
			t.Errorf("on %q: %+v", host, r)
		}
	}
}

func TestStart_SecretsAreNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	e := openClean(t, dir)
	spec := newSpec("echo up; sleep 60 # canary-script")
	spec.Env["TOKEN"] = "canary-env"
	spec.Auth = &dstack.RegistryAuth{Username: "u", Password: "canary-password"}
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "canary") {
			t.Errorf("%s contains %s", path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStart_HidesGPUs(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e, err := process.New(process.Options{Dir: t.TempDir(), KeeperProgram: self, GPUs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	spec := newSpec(`echo "gpus: [$CUDA_VISIBLE_DEVICES] ${CUDA_VISIBLE_DEVICES+set}"`)
	if got := enginetest.RunToEnd(t, e, spec).LastOutput; !slices.Equal(got, []string{"gpus: [] set"}) {
		t.Errorf("without GPUs: %q", got)
	}
	spec = newSpec(`echo "gpus: [$CUDA_VISIBLE_DEVICES]"`)
	spec.GPUs = []dstack.GPU{{ID: "GPU-a"}, {ID: "GPU-b"}}
	if got := enginetest.RunToEnd(t, e, spec).LastOutput; !slices.Equal(got, []string{"gpus: [GPU-a,GPU-b]"}) {
		t.Errorf("with two GPUs: %q", got)
	}
}

// A server that was killed while it prepared an attempt leaves an unlocked folder: the
// attempt is absent, and may be started.
func TestRunning_DeletesUnstartedFolder(t *testing.T) {
	dir := t.TempDir()
	spec := newSpec("echo up")
	unstarted := filepath.Join(dir, string(spec.Attempt))
	if err := os.MkdirAll(filepath.Join(unstarted, "work", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unstarted, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := openClean(t, dir)
	if all, err := e.ListReports(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := os.Stat(unstarted); err == nil {
		t.Error("the folder is still there")
	}
	if r := enginetest.RunToEnd(t, e, spec); r.State != dstack.AttemptExited || r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
}

func TestKeep_RefusesManualStart(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(self, "keep", dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "started by the server") {
		t.Errorf("%v: %s", err, out)
	}
}

// Linux has the information to find processes that have left the process group.
func TestKeep_KillsProcessesOutsideGroup(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs linux: this system has no /proc/self/stat")
	}
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip("needs setsid: it is not installed")
	}
	dir := t.TempDir()
	e := openClean(t, dir)
	spec := newSpec(setsid + ` bash -c 'trap "" TERM HUP; echo $$ > pid; while :; do sleep 1; done' & while [ ! -s pid ]; do sleep 0.01; done; echo left; exit 3`)
	r := enginetest.RunToEnd(t, e, spec)
	if r.ExitCode != 3 {
		t.Errorf("%+v", r)
	}
	got := listLeftovers(t, dir, spec.Attempt)
	for timeout := time.Now().Add(5 * time.Second); len(got) != 1 && time.Now().Before(timeout); got = listLeftovers(t, dir, spec.Attempt) {
		time.Sleep(5 * time.Millisecond) // the keeper ends shortly after it has written exit.json
	}
	if len(got) != 1 { // only the folder
		t.Errorf("left: %v", got)
	}
}

// An attempt is refused, and may be retried, if the disk is full when it starts.
func TestStart_FullDisk(t *testing.T) {
	dir := mountSmallDisk(t, 64<<10)
	fillDisk(t, dir)
	e := openClean(t, dir)
	r := enginetest.RunToEnd(t, e, newSpec("echo up"))
	if r.State != dstack.AttemptRefused || r.Permanent || !strings.Contains(r.Error, "full") {
		t.Errorf("%+v", r)
	}
}

// If the disk becomes full, only output is lost, and the journal says how much.
func TestOutput_FullDisk(t *testing.T) {
	dir := mountSmallDisk(t, 512<<10)
	e := openClean(t, dir)
	spec := newSpec(`i=0; while [ $i -lt 9000 ]; do echo "line $i of a text that is long enough to fill a small disk soon"; i=$((i+1)); done
		touch full; while [ -f full ]; do sleep 0.01; done; echo space again; exit 5`)
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	enginetest.WaitForReport(t, e, spec.Attempt, func(dstack.Report) bool {
		_, err := os.Stat(filepath.Join(dir, string(spec.Attempt), "work", "full"))
		return err == nil
	})
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, string(spec.Attempt), "work", "full")); err != nil {
		t.Fatal(err)
	}
	r := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
	if r.ExitCode != 5 {
		t.Errorf("%+v", r)
	}
	var output []string
	for l, err := range e.Logs(t.Context(), spec.Attempt, time.Time{}) {
		if err != nil {
			t.Error(err)
		}
		output = append(output, string(l.Text))
	}
	if last := output[len(output)-1]; last != "space again" {
		t.Errorf("the last line is %q", last)
	}
	// The place of the notice depends on how much output the keeper had read when there
	// was space again.
	lines, missing := 0, 0
	for _, text := range output[:len(output)-1] {
		var count int
		if n, _ := fmt.Sscanf(text, "dstack: %d lines of output are missing here: ", &count); n == 1 {
			missing += count
		} else {
			lines++
		}
	}
	if missing == 0 || lines+missing != 9000 {
		t.Errorf("%d lines and %d missing", lines, missing)
	}
}

// mountSmallDisk mounts a disk of the given size in bytes. A file named ballast takes a
// quarter of it.
func mountSmallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "small", dir).CombinedOutput()
	if err != nil {
		t.Skipf("needs mount: cannot mount a small disk: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, size/4), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filling"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Fatal(err)
	}
}

// Only the newest output is kept.
func TestOutput_IsLimited(t *testing.T) {
	dir := t.TempDir()
	e := openClean(t, dir)
	spec := newSpec(`line=$(printf 'x%.0s' {1..1000}); for i in {1..20000}; do echo "$i $line"; done`)
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	r := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
	if r.ExitCode != 0 || len(r.LastOutput) != 10 || !strings.HasPrefix(r.LastOutput[9], "20000 ") {
		t.Errorf("%+v", r)
	}
	var size int64
	files, _ := filepath.Glob(filepath.Join(dir, string(spec.Attempt), "log.*"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 17<<20 || len(files) != 2 {
		t.Errorf("%d bytes in %v", size, files)
	}
	n, last := 0, ""
	for l, err := range e.Logs(t.Context(), spec.Attempt, time.Time{}) {
		if err != nil {
			t.Error(err)
		}
		n, last = n+1, string(l.Text)
	}
	if n < 7000 || !strings.HasPrefix(last, "20000 ") {
		t.Errorf("%d lines, the last is %.10q", n, last)
	}
}

func TestRemove_FoldersWithoutWritePermission(t *testing.T) {
	dir := t.TempDir()
	e := openClean(t, dir)
	spec := newSpec("mkdir -p cache/deep; touch cache/deep/file; chmod -R a-w cache")
	enginetest.RunToEnd(t, e, spec)
	if err := e.Remove(t.Context(), spec.Attempt); err != nil {
		t.Error(err)
	}
	if got := listLeftovers(t, dir, spec.Attempt); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestStop_BeforeItStarted(t *testing.T) {
	for range 20 {
		e := openClean(t, t.TempDir())
		spec := newSpec("exec sleep 60")
		if err := e.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(t.Context(), spec.Attempt, 0); err != nil {
			t.Fatal(err)
		}
		if r := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() }); r.State != dstack.AttemptExited {
			t.Errorf("%+v", r)
		}
	}
}

func TestStart_MissingProgram(t *testing.T) {
	e, err := process.New(process.Options{Dir: t.TempDir(), KeeperProgram: "/no/such/dstack"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if r := enginetest.RunToEnd(t, e, newSpec("echo")); r.State != dstack.AttemptRefused || !strings.Contains(r.Error, "/no/such/dstack") {
		t.Errorf("%+v", r)
	}
}
