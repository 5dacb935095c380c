package process_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/process"
)

// openConfined opens an engine whose attempts are in a folder "process" of the returned
// folder, which is hidden from them, and has a secret.
func openConfined(t *testing.T) (*process.Engine, string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil, ""
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	server := filepath.Join(home, ".dstack", "server")
	if err := os.MkdirAll(filepath.Join(server, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.yml", "data/sqlite.db", "../config.yml"} {
		if err := os.WriteFile(filepath.Join(server, name), []byte("secret of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e, err := process.New(process.Options{
		Dir: filepath.Join(server, "process"), KeeperProgram: self, Code: enginetest.Code, Files: enginetest.Files,
		Hidden: []string{server, filepath.Join(home, ".dstack"), filepath.Join(home, "missing")},
	})
	if err != nil {
		t.Fatal(err)
	}
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
	if !e.HidesServer() {
		if os.Geteuid() == 0 && canMount() {
			t.Error("root cannot hide the server's folder")
		}
		t.Log("this system does not allow a mount namespace")
		return nil, ""
	}
	return e, server
}

// canMount reports whether this process may mount, as root in a container may not.
func canMount() bool {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if bits, ok := strings.CutPrefix(line, "CapEff:"); ok {
			digits := strings.TrimSpace(bits)
			return len(digits) == 16 && strings.ContainsRune("2367abef", rune(digits[10])) // bit 21
		}
	}
	return false
}

// An attempt sees its own working folder and home, and nothing of the server's folder or
// of other attempts.
func TestConfine_HidesServer(t *testing.T) {
	e, server := openConfined(t)
	if e == nil {
		return
	}
	other := newSpec("echo own > own.txt; sleep 60")
	if err := e.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	enginetest.WaitForReport(t, e, other.Attempt, func(r dstack.Report) bool {
		_, err := os.Stat(filepath.Join(server, "process", string(other.Attempt), "work", "own.txt"))
		return r.State == dstack.AttemptRunning && err == nil
	})
	spec := newSpec(strings.ReplaceAll(`
test ! -e $S/config.yml || echo "sees config.yml"
cat $S/data/sqlite.db $S/../config.yml $S/process/OTHER/work/own.txt $S/process/*/order.json $S/process/*/log.1 2>/dev/null && echo "reads files"
cat ../../../config.yml ../../../data/sqlite.db ../order.json 2>/dev/null && echo "reads files upwards"
cat /proc/$PPID/root$S/config.yml 2>/dev/null && echo "reads through its keeper"
cat /proc/SERVER/root$S/config.yml 2>/dev/null && echo "reads through the server"
umount -l $S 2>/dev/null; umount -l $(dirname $S) 2>/dev/null; cat $S/config.yml 2>/dev/null && echo "removes the mount"
unshare -rm sh -c "umount -l $S; umount -l $(dirname $S); cat $S/config.yml" 2>/dev/null && echo "removes the mount in a namespace"
nsenter -t $PPID -m cat $S/config.yml 2>/dev/null && echo "enters another namespace"
(echo x > $S/planted) 2>/dev/null && echo "writes into the folder"
echo content > mine && test "$(cat mine)" = content && test -s app/hello.txt || echo "its own folder is broken"
test "$PWD" = "$S/process/$ID/work" || echo "it is in $PWD"
echo x > ~/cache.txt && test "$(cat ~/cache.txt)" = x || echo "its home is broken"
test -w /dev/null && echo x > /dev/null || echo "/dev is broken"
test -w /tmp || echo "/tmp is broken"
test $(id -u) = UID || echo "its user is $(id -u)"
echo done`, "SERVER", "$SERVER"))
	spec.Script = strings.NewReplacer("OTHER", string(other.Attempt), "UID", "$WANT_UID").Replace(spec.Script)
	spec.CodeHash = "code-of-enginetest"
	spec.Env["S"], spec.Env["ID"] = server, string(spec.Attempt)
	spec.Env["SERVER"], spec.Env["WANT_UID"] = strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getuid())
	r := enginetest.RunToEnd(t, e, spec)
	if r.State != dstack.AttemptExited || r.ExitCode != 0 || !slices.Equal(r.LastOutput, []string{"done"}) {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(server, "planted")); err == nil {
		t.Error("the attempt wrote into the server's folder")
	}
}

// A folder that is created after the engine was opened is hidden, too: the first start of a
// server writes the token of the command line into ~/.dstack when its engines are open.
func TestConfine_HidesFoldersThatAreCreatedLater(t *testing.T) {
	e, server := openConfined(t)
	if e == nil {
		return
	}
	later := filepath.Join(filepath.Dir(filepath.Dir(server)), "missing") // see openConfined
	if err := os.Mkdir(later, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(later, "config.yml"), []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := newSpec("cat " + later + "/config.yml 2>/dev/null; echo done")
	if r := enginetest.RunToEnd(t, e, spec); !slices.Equal(r.LastOutput, []string{"done"}) {
		t.Errorf("it printed %q", r.LastOutput)
	}
	if !e.HidesServer() {
		t.Error("the engine says that it does not hide the folder")
	}
}

// The contract of engines holds for confined attempts, too.
func TestEngine_Confined(t *testing.T) {
	probe, _ := openConfined(t)
	if probe == nil {
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Run(t, func(t *testing.T) enginetest.Fixture {
		hidden := t.TempDir()
		dir := filepath.Join(hidden, "server", "attempts")
		return enginetest.Fixture{
			Capabilities: process.Capabilities(),
			Open: func(t *testing.T) enginetest.Engine {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				e, err := process.New(process.Options{Dir: dir, VolumesDir: filepath.Join(hidden, "volumes"), KeeperProgram: self, Code: enginetest.Code,
					Files: enginetest.Files, Hidden: []string{hidden}})
				if err != nil {
					t.Fatal(err)
				}
				if !e.HidesServer() {
					t.Fatal("the folder is not hidden")
				}
				return e
			},
			Serve: "exec " + self + " serve", ServeLocally: "exec " + self + " serve", ReadsListeners: true,
			ListLeftovers: func(t *testing.T, id dstack.AttemptID) []string { return listLeftovers(t, dir, id) },
			KillKeeper: func(t *testing.T, id dstack.AttemptID) {
				if err := syscall.Kill(readKeeperPID(t, dir, id), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// A server that does not run as root hides its folder, too, where the system lets users
// have namespaces.
func TestConfine_HidesServerOfAnotherUser(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		return // TestConfine_HidesServer is this test
	}
	dir, err := os.MkdirTemp("", "confine")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const nobody = 65534
	program := filepath.Join(dir, "test")
	if err := copyProgram(program); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, program} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	test := exec.Command(program, "-test.run", "^TestConfine_HidesServer$", "-test.v")
	test.Dir, test.Env = dir, []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	test.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := test.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if exec.Command("unshare", "--version").Run() == nil && strings.Contains(string(out), "does not allow") {
		user := exec.Command("unshare", "-Urm", "true")
		user.SysProcAttr = test.SysProcAttr
		if user.Run() == nil {
			t.Errorf("a user may have a mount namespace, but: %s", out)
		}
	}
}

// copyProgram copies this test program to a place where other users may run it.
func copyProgram(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer from.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, from); err != nil {
		return err
	}
	return w.Close()
}
