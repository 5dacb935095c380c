package e2e

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// harness is a server with its own home folder, and the user of that server.
type harness struct {
	t              *testing.T
	engine         string
	home           string
	serverDir      string // the server's folder
	port           int
	token          string
	extraEnv       []string // of the server and of commands
	serverArgs     []string // of `dstack server`; nil: the port and --default
	program        string   // that is the server; empty: the one that is tested
	cleanUpTimeout time.Duration

	installation string // read from the server's database on first use

	cmd  *exec.Cmd
	done chan struct{} // closed when the server has ended; nil if it was not started
	log  safeBuffer
}

// newHarness starts a server with the local backend and the given engine. At the end
// of the test it stops every run and the server, and checks that nothing is left.
func newHarness(t *testing.T, engine string, env ...string) *harness {
	t.Helper()
	h := newStoppedHarness(t, engine, env...)
	h.startServer()
	return h
}

// newStoppedHarness returns a harness whose server has not been started.
func newStoppedHarness(t *testing.T, engine string, env ...string) *harness {
	t.Helper()
	home := t.TempDir()
	h := &harness{t: t, engine: engine, home: home, serverDir: filepath.Join(home, ".dstack", "server"), port: findFreePort(t), extraEnv: env, cleanUpTimeout: time.Minute}
	h.writeFile(filepath.Join(h.serverDir, "config.yml"), fmt.Sprintf("projects:\n- name: main\n  backends:\n  - type: local\n    engine: %s\n", engine))
	t.Cleanup(h.cleanUp)
	return h
}

func (h *harness) writeFile(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// buildEnv returns the environment of the server and of commands.
func (h *harness) buildEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DSTACK_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	return append(append(env, "HOME="+h.home, "DSTACK_SERVER_DIR="+h.serverDir), h.extraEnv...)
}

// startServer starts the server and waits until it answers.
func (h *harness) startServer() {
	h.t.Helper()
	h.spawnServer()
	h.waitForServer()
}

func (h *harness) spawnServer() {
	h.t.Helper()
	args := h.serverArgs
	if args == nil {
		args = []string{"--port", strconv.Itoa(h.port), "--default"}
	}
	h.cmd = exec.Command(cmp.Or(h.program, dstackBinary), append([]string{"server"}, args...)...)
	h.cmd.Env = h.buildEnv()
	h.cmd.Stdout, h.cmd.Stderr = &h.log, &h.log
	// In its own process group, the server does not get the Ctrl-C of a terminal.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	h.cmd.WaitDelay = 5 * time.Second
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), h.cmd
	h.done = done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

func (h *harness) waitForServer() {
	h.t.Helper()
	h.waitUntil(20*time.Second, "the server answers", func() error {
		select {
		case <-h.done:
			h.t.Fatalf("the server ended at its start:\n%s", h.log.String())
		default:
		}
		a, err := h.getURL(h.serverURL() + "/healthcheck")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	if h.token == "" {
		h.token = h.readToken()
	}
}

// readToken reads the token from the CLI's configuration, which the first start
// writes.
func (h *harness) readToken() string {
	h.t.Helper()
	path := filepath.Join(h.home, ".dstack", "config.yml")
	var token string
	h.waitUntil(5*time.Second, "the first start writes "+path, func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, rest, found := strings.Cut(string(text), "token:")
		if !found {
			return fmt.Errorf("no token in it: %s", text)
		}
		line, _, _ := strings.Cut(rest, "\n")
		token = strings.Trim(strings.TrimSpace(line), `"'`)
		return nil
	})
	return token
}

// killServer ends the server with SIGKILL.
func (h *harness) killServer() { h.endServer(syscall.SIGKILL) }

// stopServer ends the server as Ctrl-C does.
func (h *harness) stopServer() { h.endServer(syscall.SIGINT) }

func (h *harness) endServer(sig syscall.Signal) {
	h.t.Helper()
	if h.done == nil {
		return
	}
	if err := h.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.t.Errorf("cannot signal the server: %v", err)
	}
	select {
	case <-h.done:
	case <-time.After(20 * time.Second):
		h.t.Errorf("the server did not end within 20s of signal %v:\n%s", sig, h.log.String())
		_ = h.cmd.Process.Kill()
		<-h.done
	}
	h.done = nil
}

// isRunning reports whether the server has been started and has not ended.
func (h *harness) isRunning() bool {
	if h.done == nil {
		return false
	}
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

// cleanUp stops the runs and the server, and fails the test if anything is left.
func (h *harness) cleanUp() {
	if h.done == nil && h.token != "" {
		h.spawnServer()
		h.waitForServer()
	}
	if h.isRunning() {
		for _, v := range h.listActiveRuns() {
			h.runCLI("stop", v.Name, "-y", "--abort")
		}
		h.waitUntil(h.cleanUpTimeout, "no replica runs", h.checkNothingLeft)
		h.stopServer()
	}
	if h.t.Failed() {
		h.t.Logf("the log of the server:\n%s", h.log.String())
	}
}

func (h *harness) serverURL() string { return fmt.Sprintf("http://127.0.0.1:%d", h.port) }

// waitUntil polls until check returns no error. After limit it fails the test.
func (h *harness) waitUntil(limit time.Duration, what string, check func() error) {
	h.t.Helper()
	if err := retryFor(limit, check); err != nil {
		h.t.Fatalf("not within %s: %s: %v\nthe log of the server:\n%s", limit, what, err, h.log.String())
	}
}

func retryFor(limit time.Duration, check func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// findFreePort returns a free port below the range from which the system chooses
// ports for connections, and a different one for each call.
func findFreePort(t *testing.T) int {
	t.Helper()
	portCounter.Lock()
	defer portCounter.Unlock()
	for ; portCounter.next < 32000; portCounter.next++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", portCounter.next))
		if err != nil {
			continue
		}
		_ = l.Close()
		portCounter.next++
		return portCounter.next - 1
	}
	t.Fatal("no port is free")
	return 0
}

var portCounter = struct {
	sync.Mutex
	next int
}{next: 21000 + os.Getpid()%8000}

// safeBuffer is a buffer that a process writes while the test reads.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
