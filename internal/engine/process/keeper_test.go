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
	"dstack/internal/engine/process"
)

// keeperOf reads the number of an attempt's keeper.
func keeperOf(t *testing.T, dir string, id dstack.AttemptID) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, string(id), "kept.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Keeper int }
	if err := json.Unmarshal(data, &kept); err != nil {
		t.Fatal(err)
	}
	return kept.Keeper
}

func order(script string) dstack.AttemptSpec {
	return dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Run: "r", WorkingDir: ".", Script: script,
		Port: 11999, StopGracePeriod: 5 * time.Second, Env: map[string]string{},
	}
}

// ended starts an order and returns its report once it is over.
func ended(t *testing.T, e *process.Engine, spec dstack.AttemptSpec) dstack.Report {
	t.Helper()
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return until(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
}

func until(t *testing.T, e *process.Engine, id dstack.AttemptID, good func(dstack.Report) bool) dstack.Report {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	var last dstack.Report
	for late := time.After(20 * time.Second); ; {
		all, err := e.Running(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Attempt == id {
				if last = r; good(r) {
					return r
				}
			}
		}
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("it stays %+v", last)
		}
	}
}

// at opens an engine over a folder, and leaves nothing running.
func at(t *testing.T, dir string) *process.Engine {
	t.Helper()
	e := open(t, dir)
	t.Cleanup(func() {
		all, _ := e.Running(context.Background())
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
		o := order("sleep 60")
		o.Port = l.Addr().(*net.TCPAddr).Port
		r := ended(t, at(t, t.TempDir()), o)
		if want := fmt.Sprintf("port %d is already in use on this machine", o.Port); r.State != dstack.AttemptRefused ||
			!r.Permanent || !strings.Contains(r.Error, want) {
			t.Errorf("on %q: %+v", host, r)
		}
	}
}

func TestStart_SecretsAreNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	e := at(t, dir)
	o := order("echo up; sleep 60 # canary-script")
	o.Env["TOKEN"] = "canary-env"
	o.Auth = &dstack.RegistryAuth{Username: "u", Password: "canary-password"}
	if err := e.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	until(t, e, o.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptRunning })
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "canary") {
			t.Errorf("%s holds %s", path, data)
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
	e, err := process.New(process.Options{Dir: t.TempDir(), Self: self, GPUs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	o := order(`echo "gpus: [$CUDA_VISIBLE_DEVICES] ${CUDA_VISIBLE_DEVICES+set}"`)
	if got := ended(t, e, o).LastOutput; !slices.Equal(got, []string{"gpus: [] set"}) {
		t.Errorf("without: %q", got)
	}
	o = order(`echo "gpus: [$CUDA_VISIBLE_DEVICES]"`)
	o.GPUs = []dstack.GPU{{ID: "GPU-a"}, {ID: "GPU-b"}}
	if got := ended(t, e, o).LastOutput; !slices.Equal(got, []string{"gpus: [GPU-a,GPU-b]"}) {
		t.Errorf("with two: %q", got)
	}
}

// A server that was killed while it prepared an attempt leaves a folder that
// nobody holds: the attempt is absent, and may be started.
func TestRunning_SweepsWhatNeverBegan(t *testing.T) {
	dir := t.TempDir()
	o := order("echo up")
	half := filepath.Join(dir, string(o.Attempt))
	if err := os.MkdirAll(filepath.Join(half, "work", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := at(t, dir)
	if all, err := e.Running(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("the folder is still there")
	}
	if r := ended(t, e, o); r.State != dstack.AttemptExited || r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
}

func TestKeep_ByHandDoesNothing(t *testing.T) {
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

// Whoever leaves the group is found again, where the system tells.
func TestStop_FindsThoseWhoLeftTheGroup(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs linux: this system does not tell who descends from whom")
	}
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip("needs setsid: there is none")
	}
	dir := t.TempDir()
	e := at(t, dir)
	o := order(setsid + ` bash -c 'trap "" TERM HUP; echo $$ > pid; while :; do sleep 1; done' & while [ ! -s pid ]; do sleep 0.01; done; echo left; exit 3`)
	r := ended(t, e, o)
	if r.ExitCode != 3 {
		t.Errorf("%+v", r)
	}
	got := left(t, dir, o.Attempt)
	for late := time.Now().Add(5 * time.Second); len(got) != 1 && time.Now().Before(late); got = left(t, dir, o.Attempt) {
		time.Sleep(5 * time.Millisecond) // the keeper, which works there too, ends after it has told
	}
	if len(got) != 1 { // its folder
		t.Errorf("left: %v", got)
	}
}

// A disk that is full when an attempt starts is a plain refusal.
func TestStart_FullDisk(t *testing.T) {
	dir := smallDisk(t, 64<<10)
	fill(t, dir)
	e := at(t, dir)
	r := ended(t, e, order("echo up"))
	if r.State != dstack.AttemptRefused || r.Permanent || !strings.Contains(r.Error, "full") {
		t.Errorf("%+v", r)
	}
}

// A disk that becomes full loses output and nothing else, and says so.
func TestOutput_FullDisk(t *testing.T) {
	dir := smallDisk(t, 512<<10)
	e := at(t, dir)
	o := order(`i=0; while [ $i -lt 9000 ]; do echo "line $i of a text that is long enough to fill a small disk soon"; i=$((i+1)); done
		touch full; while [ -f full ]; do sleep 0.01; done; echo there is room; exit 5`)
	if err := e.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	until(t, e, o.Attempt, func(dstack.Report) bool {
		_, err := os.Stat(filepath.Join(dir, string(o.Attempt), "work", "full"))
		return err == nil
	})
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, string(o.Attempt), "work", "full")); err != nil {
		t.Fatal(err)
	}
	r := until(t, e, o.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
	if r.ExitCode != 5 {
		t.Errorf("%+v", r)
	}
	var said []string
	for l, err := range e.Logs(t.Context(), o.Attempt, time.Time{}) {
		if err != nil {
			t.Error(err)
		}
		said = append(said, string(l.Text))
	}
	if last := said[len(said)-1]; last != "there is room" {
		t.Errorf("it ended with %q", last)
	}
	// Where it is said depends on how much the keeper had read when there was
	// room again.
	lines, missing := 0, 0
	for _, text := range said[:len(said)-1] {
		var some int
		if n, _ := fmt.Sscanf(text, "dstack: %d lines of output are missing here: ", &some); n == 1 {
			missing += some
		} else {
			lines++
		}
	}
	if missing == 0 || lines+missing != 9000 {
		t.Errorf("%d lines and %d missing", lines, missing)
	}
}

// smallDisk mounts a disk of a few bytes, with some ballast on it.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "small", dir).CombinedOutput()
	if err != nil {
		t.Skipf("needs mount: no small disk can be mounted: %s", out)
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

func fill(t *testing.T, dir string) {
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

// Only the newest output is kept, and who reads too late is told.
func TestOutput_IsBounded(t *testing.T) {
	dir := t.TempDir()
	e := at(t, dir)
	o := order(`line=$(printf 'x%.0s' {1..1000}); for i in {1..20000}; do echo "$i $line"; done`)
	if err := e.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r := until(t, e, o.Attempt, func(r dstack.Report) bool { return r.State.IsOver() })
	if r.ExitCode != 0 || len(r.LastOutput) != 10 || !strings.HasPrefix(r.LastOutput[9], "20000 ") {
		t.Errorf("%+v", r)
	}
	var size int64
	files, _ := filepath.Glob(filepath.Join(dir, string(o.Attempt), "log.*"))
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
	for l, err := range e.Logs(t.Context(), o.Attempt, time.Time{}) {
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
	e := at(t, dir)
	o := order("mkdir -p cache/deep; touch cache/deep/file; chmod -R a-w cache")
	ended(t, e, o)
	if err := e.Remove(t.Context(), o.Attempt); err != nil {
		t.Error(err)
	}
	if got := left(t, dir, o.Attempt); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestStop_BeforeItStarted(t *testing.T) {
	for range 20 {
		e := at(t, t.TempDir())
		o := order("exec sleep 60")
		if err := e.Start(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(t.Context(), o.Attempt, 0); err != nil {
			t.Fatal(err)
		}
		if r := until(t, e, o.Attempt, func(r dstack.Report) bool { return r.State.IsOver() }); r.State != dstack.AttemptExited {
			t.Errorf("%+v", r)
		}
	}
}

func TestStart_MissingProgram(t *testing.T) {
	e, err := process.New(process.Options{Dir: t.TempDir(), Self: "/no/such/dstack"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if r := ended(t, e, order("echo")); r.State != dstack.AttemptRefused || !strings.Contains(r.Error, "/no/such/dstack") {
		t.Errorf("%+v", r)
	}
}
