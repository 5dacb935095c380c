package sshclient

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

func TestOpenSSH_RunsCommands(t *testing.T) {
	t.Parallel()
	c := startSSHD(t).client()
	for _, test := range []struct {
		name, command, stdin, stdout, stderr string
		exitCode                             int
		signal                               string
	}{
		{name: "output", command: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n"},
		{name: "an exit code", command: "exit 3", exitCode: 3},
		{name: "a missing program", command: "exec no-such-program 2>/dev/null", exitCode: 127},
		{name: "a signal", command: "kill -TERM $$", exitCode: -1, signal: "TERM"},
		{name: "input", command: "cat", stdin: "text", stdout: "text"},
		{name: "no input", command: "cat"},
		{name: "quotes", command: `printf '%s\n' "it's" 'a\b' "\$HOME"`, stdout: "it's\na\\b\n$HOME\n"},
		{name: "bytes as they are", command: `printf 'a\r\n\000b'`, stdout: "a\r\n\x00b"}, // without a terminal
		{name: "much output", command: "head -c 300000 /dev/zero", stdout: strings.Repeat("\x00", 300000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdin io.Reader
			if test.stdin != "" {
				stdin = strings.NewReader(test.stdin)
			}
			got, err := c.Run(t.Context(), test.command, stdin)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Stdout) != test.stdout || string(got.Stderr) != test.stderr || got.ExitCode != test.exitCode ||
				got.Signal != test.signal {
				t.Errorf("got %.200q %q, exit %d, signal %q", got.Stdout, got.Stderr, got.ExitCode, got.Signal)
			}
		})
	}
	if s := c.State(); !s.IsConnected || s.Connections != 1 || s.Channels != 0 || s.Err != nil || s.LastAnswer.IsZero() {
		t.Errorf("got %+v", s)
	}
}

// Rule 14: what the login shell prints first is cut off and reported.
func TestOpenSSH_Rule14_LoginShellPrints(t *testing.T) {
	t.Parallel()
	c := startSSHD(t, `ForceCommand printf 'hello from rc'; eval "$SSH_ORIGINAL_COMMAND"`).client()
	for range 2 {
		got, err := c.Run(t.Context(), "echo ok", nil)
		if err != nil || string(got.Stdout) != "ok\n" || got.Noise != "hello from rc" {
			t.Errorf("got %q, noise %q, %v", got.Stdout, got.Noise, err)
		}
	}
	if noise := c.State().Noise; noise != "hello from rc" {
		t.Errorf("state: %q", noise)
	}
	conn, err := c.Pipe(t.Context(), "cat; printf bye")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, conn)
}

// Rule 14: a login shell that runs nothing says so, and is not taken for a failed command.
func TestOpenSSH_Rule14_NoShell(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ force, want string }{
		"nologin":           {"echo 'This account is currently not available.'; exit 1", "This account is currently not available."},
		"false":             {"/bin/false", "exit code 1"},
		"a missing program": {"/no/such/program", "No such file or directory"},
		"too much text":     {"yes no", "no\nno"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startSSHD(t, "ForceCommand "+test.force).client()
			c.times.warmUp = 200 * time.Millisecond
			_, err := c.Run(t.Context(), "echo ok", nil)
			if dstack.KindOf(err) != dstack.Unsupported || StepOf(err) != dstack.HostStepShell || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run: %v", err)
			}
			conn, err := c.Pipe(t.Context(), "cat")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, err = io.ReadAll(conn)
			if dstack.KindOf(err) != dstack.Unsupported || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Pipe: %v", err)
			}
		})
	}
}

// Rules 1 and 15: a failed command of Pipe keeps its exit code and its last words.
func TestOpenSSH_PipeFails(t *testing.T) {
	t.Parallel()
	c := startSSHD(t).client()
	conn, err := c.Pipe(t.Context(), "echo begun; echo sudo: a password is required >&2; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	got, err := io.ReadAll(conn)
	exit, ok := errors.AsType[*ExitError](err)
	if string(got) != "begun\n" || !ok || exit.ExitCode != 1 || exit.Stderr != "sudo: a password is required" ||
		dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("got %q, %v", got, err)
	}
}

// Rule 20: a command that is given up does not run on, and its session becomes free.
func TestOpenSSH_Rule20_KillsCommands(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	c := s.client()
	file := filepath.Join(s.dir, "pid")
	hasEnded := func() bool {
		pid, err := os.ReadFile(file)
		if err != nil || len(pid) == 0 {
			return false
		}
		_, err = os.Stat("/proc/" + strings.TrimSpace(string(pid)))
		return err != nil
	}
	t.Run("Run", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			_, err := c.Run(ctx, "trap '' HUP TERM; sh -c 'echo $$ >"+file+"; sleep 100' ; true", nil)
			result <- err
		}()
		eventually(t, "the command runs", func() bool { text, _ := os.ReadFile(file); return len(text) > 0 })
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		eventually(t, "the command is killed", hasEnded)
		eventually(t, "its session is free", func() bool { return c.State().Channels == 0 })
	})
	t.Run("Pipe", func(t *testing.T) {
		_ = os.Remove(file)
		conn, err := c.Pipe(t.Context(), "echo $$ >"+file+"; while true; do sleep 1; done")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the command runs", func() bool { text, _ := os.ReadFile(file); return len(text) > 0 })
		_ = conn.Close()
		eventually(t, "the command is killed", hasEnded)
		eventually(t, "its session is free", func() bool { return c.State().Channels == 0 })
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.links[0]; l.sessions != 0 || l.stuck != 0 {
		t.Errorf("%d sessions, %d stuck", l.sessions, l.stuck)
	}
}
