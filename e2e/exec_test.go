package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestExec runs commands in a replica without a terminal.
func TestExec(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		set := h.newCommand(h.home, "secret", "set", "API_KEY")
		set.Stdin = strings.NewReader("s3cret value\n")
		if out, err := set.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		h.applyAndWait(h.newFolder(h.workloadConfig("web", "- GREETING=a b  c", "- KEY=${{ secrets.API_KEY }}")))
		if r := h.runCLI("exec", "web", "--", "sh", "-c", `test "$KEY" = "s3cret value" && echo same`).expectExit(0); r.out != "same\n" {
			t.Errorf("the secret is not in the environment: %q", r.out)
		}

		r := h.runCLI("exec", "web", "--", "sh", "-c", `echo "$GREETING $DSTACK_REPLICA_NUM"; ls; echo oops >&2; exit 7`).expectExit(7)
		if !strings.HasPrefix(r.out, "a b  c 0\n") || !strings.Contains(r.out, "workload") || r.err != "oops\n" {
			t.Errorf("stdout %q, stderr %q", r.out, r.err)
		}
		h.runCLI("exec", "web", "--replica", "0", "--", "true").expectExit(0)
		h.runCLI("exec", "web", "--", "sh", "-c", "kill -9 $$").expectExit(137)
		h.runCLI("exec", "web", "--", "no-such-program").expectError(127, "no program `no-such-program`")
		h.runCLI("exec", "web", "--", "/proc").expectError(126, "/proc")
		h.runCLI("exec", "web", "--replica", "7", "--", "true").expectError(1, "web has no replica 7; there is: replica 0")
		h.runCLI("exec", "wbe", "--", "true").expectError(1, "did you mean `web`?")
		h.runCLI("exec", "web", "ls", "-l").expectError(2)
		h.runCLI("exec", "web", "ls").expectError(2, "dstack exec web -- ls")
		h.runCLI("exec", "web", "--replica", "-1").expectError(2, "cannot be negative")

		shell := h.newCommand(h.home, "exec", "web")
		shell.Stdin = strings.NewReader("cd /; pwd; exit 3\n")
		if out, err := shell.Output(); string(out) != "/\n" || shell.ProcessState.ExitCode() != 3 {
			t.Errorf("a shell with piped input: %q, %v", out, err)
		}

		sent := make([]byte, 10<<20)
		_, _ = rand.Read(sent)
		cat := h.newCommand(h.home, "exec", "web", "--", "cat")
		cat.Stdin = bytes.NewReader(sent)
		got, err := cat.Output()
		if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
			t.Errorf("%d bytes came back as %d: %v", len(sent), len(got), err)
		}
		// A command that does not read its input neither hangs nor holds the client back.
		deaf := h.newCommand(h.home, "exec", "web", "--", "sh", "-c", "sleep 1; exit 4")
		deaf.Stdin = bytes.NewReader(sent)
		if out, err := deaf.CombinedOutput(); deaf.ProcessState.ExitCode() != 4 {
			t.Errorf("a command that reads nothing: %q, %v", out, err)
		}

		events := h.runCLI("events", "web").expectExit(0).expectText("exec: a command · by admin", "exec: a shell · by admin")
		events.expectNoText("GREETING", "no-such-program")
		h.runCLI("stop", "web", "-y")
		h.waitUntil(time.Minute, "web stops", h.checkNothingLeft)
		h.runCLI("exec", "web", "--", "true").expectError(1, "web has no running replica", "dstack events web")
	})
}

// userTerminal is the terminal of a person who runs one command.
type userTerminal struct {
	h    *harness
	file *os.File
	cmd  *exec.Cmd
	out  safeBuffer
}

func (h *harness) openTerminal(args ...string) *userTerminal {
	h.t.Helper()
	u := &userTerminal{h: h, cmd: h.newCommand(h.home, args...)}
	u.cmd.Env = append(u.cmd.Env, "TERM=xterm-256color")
	file, err := pty.StartWithSize(u.cmd, &pty.Winsize{Cols: 101, Rows: 37})
	if err != nil {
		h.t.Fatal(err)
	}
	u.file = file
	h.t.Cleanup(func() { _ = file.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			_, _ = u.out.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	return u
}

func (u *userTerminal) write(keys string) {
	u.h.t.Helper()
	if _, err := u.file.WriteString(keys); err != nil {
		u.h.t.Fatal(err)
	}
}

func (u *userTerminal) waitForText(text string) {
	u.h.t.Helper()
	u.h.waitUntil(30*time.Second, "the terminal shows "+text, func() error {
		if !strings.Contains(u.out.String(), text) {
			return fmt.Errorf("it shows %q", u.out.String())
		}
		return nil
	})
}

func (u *userTerminal) waitForExit(code int) {
	u.h.t.Helper()
	limit := time.AfterFunc(time.Minute, func() { _ = u.cmd.Process.Kill() })
	defer limit.Stop()
	_ = u.cmd.Wait()
	if got := u.cmd.ProcessState.ExitCode(); got != code {
		u.h.t.Errorf("exit status %d, want %d; the terminal shows %q", got, code, u.out.String())
	}
}

// TestExecTerminal uses a shell in a replica on a real terminal.
func TestExecTerminal(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("web", "- GREETING=hello")))

		u := h.openTerminal("exec", "web")
		u.write("PS1='ready> '; stty -echo; echo $GREETING from $(tty) $TERM\n")
		u.waitForText("hello from /dev/pts/")
		u.waitForText("xterm-256color\r\n")
		u.write("echo size=$(stty size)\n")
		u.waitForText("size=37 101\r\n")
		if err := pty.Setsize(u.file, &pty.Winsize{Cols: 222, Rows: 11}); err != nil {
			t.Fatal(err)
		}
		u.write("while [ \"$(stty size)\" != '11 222' ]; do sleep 0.1; done; echo resized\n")
		u.waitForText("resized\r\n")
		u.write("sleep 1000\n")
		time.Sleep(300 * time.Millisecond) // so that the shell has started it
		u.write("\x03")
		u.write("echo interrupted=$?\n")
		u.waitForText("interrupted=130\r\n")
		// An editor reads every key as it is, Ctrl-P and Ctrl-Q (Docker's detach keys) among them.
		u.write("stty raw; echo raw; head -c 6 | od -An -tx1; stty -raw; exit 5\n")
		u.waitForText("raw")
		u.write("\x10\x11\x03\x1a\x00\x1b")
		u.waitForText("10 11 03 1a 00 1b")
		u.waitForExit(5)

		// A terminal that is closed ends what runs there.
		u = h.openTerminal("exec", "web", "--", "sh", "-c", beatScript+"sleep 1000")
		u.waitForText("started")
		_ = u.cmd.Process.Signal(syscall.SIGHUP)
		_ = u.cmd.Wait()
		h.expectSilence("web")
	})
}

// beatScript starts a process that ignores SIGHUP and writes to a file until it is killed.
const beatScript = `echo beat > beat; (trap "" HUP INT TERM; while :; do echo beat >> beat; sleep 0.1; done) & echo started; `

// expectSilence checks that a process of beatScript has ended.
func (h *harness) expectSilence(run string) {
	h.t.Helper()
	last, since := "", time.Now()
	h.waitUntil(30*time.Second, "nothing is left of a command", func() error {
		if now := h.runCLI("exec", run, "--", "cat", "beat").expectExit(0).out; now != last {
			last, since = now, time.Now()
		}
		if last == "" || time.Since(since) < time.Second {
			return fmt.Errorf("it wrote %d lines", len(last)/5)
		}
		return nil
	})
}

// TestExecEndsWithClientAndServer kills the client, and then the server: the command in the
// replica ends each time.
func TestExecEndsWithClientAndServer(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		h.applyAndWait(h.newFolder(h.workloadConfig("web")))
		start := func() (*exec.Cmd, *safeBuffer) {
			var out safeBuffer
			cmd := h.newCommand(h.home, "exec", "web", "--", "sh", "-c", beatScript+"sleep 1000")
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			h.waitUntil(30*time.Second, "the command starts", func() error {
				if !strings.Contains(out.String(), "started") {
					return fmt.Errorf("it printed %q", out.String())
				}
				return nil
			})
			return cmd, &out
		}
		cmd, _ := start()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.expectSilence("web")

		cmd, out := start()
		_ = cmd.Process.Signal(syscall.SIGINT)
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("exit status %d after Ctrl-C: %s", cmd.ProcessState.ExitCode(), out.String())
		}
		h.expectSilence("web")

		for _, end := range []func(){h.stopServer, h.killServer} {
			cmd, out = start()
			end()
			_ = cmd.Wait()
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "the command was ended") {
				t.Errorf("exit status %d without the server: %s", cmd.ProcessState.ExitCode(), out.String())
			}
			h.startServer()
			h.expectSilence("web")
		}
	})
}
