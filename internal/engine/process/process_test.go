package process_test

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/process"
)

// TestMain makes the test program also a keeper, and a small web server.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "keep":
		syscall.Exit(process.Keep(os.Args[2])) // os.Exit would wait for the race detector
	case len(os.Args) == 3 && os.Args[1] == "keep-command":
		syscall.Exit(process.KeepCommand(os.Args[2]))
	case len(os.Args) > 2 && os.Args[1] == process.ConfineCommand:
		syscall.Exit(process.Confine(os.Args[2:]))
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.FileServer(http.Dir(".")))
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func openEngine(t testing.TB, dir string) *process.Engine {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e, err := process.New(process.Options{Dir: dir, VolumesDir: filepath.Join(filepath.Dir(dir), "volumes"), KeeperProgram: self, Code: enginetest.Code,
		Files: enginetest.Files})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngine(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Run(t, func(t *testing.T) enginetest.Fixture {
		dir := filepath.Join(t.TempDir(), "attempts")
		return enginetest.Fixture{
			Capabilities:   process.Capabilities(),
			Open:           func(t *testing.T) enginetest.Engine { return openEngine(t, dir) },
			Serve:          "exec " + self + " serve",
			ServeLocally:   "exec " + self + " serve",
			ReadsListeners: runtime.GOOS == "linux",
			ListLeftovers:  func(t *testing.T, id dstack.AttemptID) []string { return listLeftovers(t, dir, id) },
			KillKeeper: func(t *testing.T, id dstack.AttemptID) {
				if err := syscall.Kill(readKeeperPID(t, dir, id), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// listLeftovers returns the folders of an attempt, and the processes whose working folder
// is in them.
func listLeftovers(t *testing.T, dir string, id dstack.AttemptID) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"+string(id)))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "linux" {
		return found
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range procs {
		if cwd, err := os.Readlink(p); err == nil && strings.Contains(cwd, string(id)) {
			found = append(found, p)
		}
	}
	return found
}
