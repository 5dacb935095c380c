package listen_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/listen"
)

// oldProcess is a process that can be replaced.
type oldProcess struct {
	listen.Predecessor
	mu    sync.Mutex
	calls []string
	ended chan error
}

func (p *oldProcess) record(call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
}

func (p *oldProcess) expectCalls(t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		calls := slices.Clone(p.calls)
		p.mu.Unlock()
		if slices.Equal(calls, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the calls are %v, want %v", calls, want)
		}
	}
}

// startOldProcess starts a process with one socket, at the returned address, and a locked file.
func startOldProcess(t *testing.T, ctx context.Context, change func(*oldProcess)) (*oldProcess, string) {
	t.Helper()
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	p := &oldProcess{ended: make(chan error, 1)}
	p.Predecessor = listen.Predecessor{
		Path: filepath.Join(dir, "handover.sock"), Sockets: &listen.Set{}, Files: []listen.File{{Name: "lock", File: file}},
		Pause:  func(context.Context) error { p.record("pause"); return nil },
		Resume: func() { p.record("resume") },
		Yield:  func(context.Context, int) { p.record("yield") },
		Log:    slog.New(slog.DiscardHandler),
	}
	l, err := p.Predecessor.Sockets.Listen(t.Context(), "server", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if change != nil {
		change(p)
	}
	go func() { p.ended <- p.Run(ctx) }()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(p.Path); err == nil {
			return p, l.Addr().String()
		}
		if time.Now().After(end) {
			t.Fatal("the process does not wait for a successor")
		}
	}
}

// takeOver is listen.TakeOver, which the process may not be ready for yet.
func takeOver(t *testing.T, path string) *listen.Successor {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		s, err := listen.TakeOver(ctx, path)
		if err == nil {
			t.Cleanup(func() {
				s.Close()
				for _, socket := range s.Sockets {
					socket.Close()
				}
			})
			return s
		}
		if !errors.Is(err, listen.ErrNone) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestTakeOver_SharesSocketsAndFiles(t *testing.T) {
	p, address := startOldProcess(t, t.Context(), nil)
	s := takeOver(t, p.Path)
	if s.PID != os.Getpid() || len(s.Sockets) != 1 || s.Sockets[0].Name != "server" || len(s.Files) != 1 || s.Files[0].Name != "lock" {
		t.Fatalf("the successor got %+v", s)
	}
	if _, err := s.Files[0].WriteString("mine"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(p.Files[0].File.Name()); err != nil || string(text) != "mine" {
		t.Errorf("the file has %q %v", text, err)
	}
	client, err := net.Dial("tcp", address) // nobody accepts yet
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p.expectCalls(t, "pause")
	if err := s.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("the replaced process: %v", err)
	}
	p.expectCalls(t, "pause", "yield")
	for _, socket := range p.Predecessor.Sockets.Sockets() {
		socket.Close() // the successor's is open
	}
	conn, err := s.Sockets[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	text := make([]byte, 5)
	if _, err := io.ReadFull(client, text); err != nil || string(text) != "hello" {
		t.Errorf("the client read %q %v", text, err)
	}
	if _, err := os.Stat(p.Path); err != nil {
		t.Errorf("the replaced process removed the path, which may be the successor's: %v", err)
	}
}

func TestTakeOver_ProcessGoesOnWithoutSuccessor(t *testing.T) {
	t.Run("it gives up", func(t *testing.T) {
		p, address := startOldProcess(t, t.Context(), nil)
		takeOver(t, p.Path).Close()
		p.expectCalls(t, "pause", "resume")
		if conn, err := net.Dial("tcp", address); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		if err := takeOver(t, p.Path).Begin(t.Context()); err != nil {
			t.Errorf("the next one: %v", err)
		}
		p.expectCalls(t, "pause", "resume", "pause", "yield")
	})
	t.Run("it is not ready in time", func(t *testing.T) {
		p, _ := startOldProcess(t, t.Context(), func(p *oldProcess) { p.PrepareLimit = time.Millisecond })
		s := takeOver(t, p.Path)
		p.expectCalls(t, "pause", "resume")
		if err := s.Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "the running process goes on: the new process was not ready in time") {
			t.Errorf("it began: %v", err)
		}
	})
	t.Run("the process cannot pause", func(t *testing.T) {
		p, _ := startOldProcess(t, t.Context(), func(p *oldProcess) {
			p.Pause = func(context.Context) error { p.record("pause"); return errors.New("a pass is busy") }
		})
		_, err := listen.TakeOver(t.Context(), p.Path)
		if err == nil || !strings.Contains(err.Error(), "does not hand over: a pass is busy") {
			t.Errorf("the error is %v", err)
		}
		p.expectCalls(t, "pause", "resume")
	})
	t.Run("it says something else", func(t *testing.T) {
		p, _ := startOldProcess(t, t.Context(), nil)
		for _, text := range []string{`{"hello":99}` + "\n", "GET / HTTP/1.1\n\n", strings.Repeat("x", 1<<20), ""} {
			conn, err := net.Dial("unix", p.Path)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte(text)) // it may be closed before the end
			conn.Close()
		}
		takeOver(t, p.Path).Close()
		p.expectCalls(t, "pause", "resume") // of the last one
	})
}

func TestTakeOver_AfterTheEndOfTheProcess(t *testing.T) {
	if _, err := listen.TakeOver(t.Context(), filepath.Join(t.TempDir(), "handover.sock")); !errors.Is(err, listen.ErrNone) {
		t.Errorf("there is no process: %v", err)
	}
	ctx, kill := context.WithCancel(t.Context())
	p, _ := startOldProcess(t, ctx, nil)
	s := takeOver(t, p.Path)
	kill()
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the process ended with %v", err)
	}
	if err := s.Begin(t.Context()); err != nil {
		t.Errorf("nobody else has the sockets: %v", err)
	}
	if _, err := listen.TakeOver(t.Context(), p.Path); !errors.Is(err, listen.ErrNone) {
		t.Errorf("the process has ended: %v", err)
	}
}
