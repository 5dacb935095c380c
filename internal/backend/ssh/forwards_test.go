package ssh

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"dstack/internal/loop"
)

// freePort returns a port of this machine where nothing listens.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// ask connects to a port of this machine and returns what it is told.
func ask(port int) string {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	text, _ := io.ReadAll(conn)
	return string(text)
}

// TestForwards: programs of two hosts reach the server at the ports that are listed, also after their SSH connections were
// lost, and not any more once a port is not listed.
func TestForwards(t *testing.T) {
	h1, login1 := newFakeHost(t)
	_, login2 := newFakeHost(t)
	hosts := &memoryHosts{}
	hosts.add("a", login1)
	hosts.add("b", login2)
	b := open(t, hosts)
	var mu sync.Mutex
	wanted := []Forward{{"a", freePort(t)}, {"b", freePort(t)}, {"gone", freePort(t)}}
	f := b.NewForwards(func(context.Context) ([]Forward, error) {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(wanted), nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	l := f.Listener(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = loop.Run(ctx, f.Task()) })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	})
	defer running.Wait()
	defer cancel()
	a, second := wanted[0].Port, wanted[1].Port
	eventually(t, "both hosts reach the server", func() bool { return ask(a) == "hello" && ask(second) == "hello" })
	h1.stop()
	eventually(t, "the lost host does not", func() bool { return ask(a) == "" })
	if ask(second) != "hello" {
		t.Error("the other host does not reach the server any more")
	}
	h1.start()
	eventually(t, "it does again", func() bool { return ask(a) == "hello" })
	mu.Lock()
	wanted = wanted[1:]
	mu.Unlock()
	eventually(t, "a port that is not listed is closed", func() bool { return ask(a) == "" && ask(second) == "hello" })
}
