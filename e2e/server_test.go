package e2e

import (
	"bytes"
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

// house is one server with a home of its own, and the user who lives in it.
type house struct {
	t      *testing.T
	engine string
	home   string
	dir    string // of the server
	port   int
	token  string
	extra  []string // environment
	limit  time.Duration

	installation string // what the server's database calls itself, once known

	cmd  *exec.Cmd
	done chan struct{} // the server has ended
	log  safeBuffer
}

// newHouse starts a server whose only backend is local with this engine. At
// the end of the test it stops every run, stops the server, and looks for
// anything that is left.
func newHouse(t *testing.T, engine string, env ...string) *house {
	t.Helper()
	h := unbuiltHouse(t, engine, env...)
	h.start()
	return h
}

// unbuiltHouse is a house whose server does not run yet.
func unbuiltHouse(t *testing.T, engine string, env ...string) *house {
	t.Helper()
	home := t.TempDir()
	h := &house{t: t, engine: engine, home: home, dir: filepath.Join(home, ".dstack", "server"), port: freePort(t), extra: env, limit: time.Minute}
	h.write(filepath.Join(h.dir, "config.yml"), fmt.Sprintf("projects:\n- name: main\n  backends:\n  - type: local\n    engine: %s\n", engine))
	t.Cleanup(h.leave)
	return h
}

func (h *house) write(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// env is the environment of everything in this house.
func (h *house) env() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DSTACK_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	return append(append(env, "HOME="+h.home, "DSTACK_SERVER_DIR="+h.dir), h.extra...)
}

// start starts the server and waits until it answers.
func (h *house) start() {
	h.t.Helper()
	h.spawn()
	h.await()
}

func (h *house) spawn() {
	h.t.Helper()
	h.cmd = exec.Command(dstackBinary, "server", "--port", strconv.Itoa(h.port), "--default")
	h.cmd.Env = h.env()
	h.cmd.Stdout, h.cmd.Stderr = &h.log, &h.log
	// A group of its own: a kill of the tests by Ctrl-C comes to it in order.
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

func (h *house) await() {
	h.t.Helper()
	h.eventually(20*time.Second, "the server answers", func() error {
		select {
		case <-h.done:
			h.t.Fatalf("the server ended by itself:\n%s", h.log.String())
		default:
		}
		a, err := h.get(h.url() + "/healthcheck")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
	if h.token == "" {
		h.token = h.readToken()
	}
}

// readToken takes the token from where the first start put it for the CLI.
func (h *house) readToken() string {
	h.t.Helper()
	path := filepath.Join(h.home, ".dstack", "config.yml")
	var token string
	h.eventually(5*time.Second, "the first start writes "+path, func() error {
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

// kill ends the server as a power cut of only itself would.
func (h *house) kill() { h.end(syscall.SIGKILL) }

// stop ends the server as Ctrl-C does.
func (h *house) stop() { h.end(syscall.SIGINT) }

func (h *house) end(sig syscall.Signal) {
	h.t.Helper()
	if h.done == nil {
		return
	}
	if err := h.cmd.Process.Signal(sig); err != nil && err != os.ErrProcessDone {
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

// running says whether the server has not ended.
func (h *house) running() bool {
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

// leave tidies up, and fails the test when the server leaves anything behind.
func (h *house) leave() {
	if h.done == nil && h.token != "" {
		h.spawn()
		h.await()
	}
	if h.running() {
		for _, v := range h.ps() {
			h.cli("stop", v.Name, "-y", "--abort")
		}
		h.eventually(h.limit, "nothing runs any more", h.nothingLeft)
		h.stop()
	}
	if h.t.Failed() {
		h.t.Logf("the server said:\n%s", h.log.String())
	}
}

func (h *house) url() string { return fmt.Sprintf("http://127.0.0.1:%d", h.port) }

// eventually asks until there is no error.
func (h *house) eventually(limit time.Duration, what string, check func() error) {
	h.t.Helper()
	if err := within(limit, check); err != nil {
		h.t.Fatalf("within %s not: %s: %v\nthe server said:\n%s", limit, what, err, h.log.String())
	}
}

func within(limit time.Duration, check func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// freePort finds a port below those that the system gives to clients, so that
// no connection of another test takes it meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for ; ports.next < 32000; ports.next++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports.next))
		if err != nil {
			continue
		}
		_ = l.Close()
		ports.next++
		return ports.next - 1
	}
	t.Fatal("no port is free")
	return 0
}

var ports = struct {
	sync.Mutex
	next int
}{next: 21000 + os.Getpid()%8000}

// safeBuffer is written by a process and read by the test meanwhile.
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
