package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestServerFinishesRequests ends the server during a slow answer, a stream, a
// WebSocket and a wait for a replica. The answer and the stream are completed, the
// WebSocket lives as long as its client wants, the waiting request gets 503, and
// new connections are refused at once.
func TestServerFinishesRequests(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(h.workloadConfig("answers")))
	h.submitConfig(h.newFolder(""), fmt.Sprintf("type: service\nname: never\nport: %d\ncommands:\n- sleep 1000\n", findFreePort(t)))

	slow := make(chan string, 1)
	go func() {
		res, err := h.sendRequest("GET", h.serviceURL("answers", "/slow?ms=6000"), h.token, "")
		slow <- fmt.Sprint(res.status, err)
	}()
	waits := make(chan string, 1)
	go func() {
		res, err := h.sendRequest("GET", h.serviceURL("never", "/"), h.token, "")
		waits <- fmt.Sprint(res.status, err)
	}()
	stream := h.openStream(t.Context(), "answers", 40, 100)
	options := &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Authorization": {"Bearer " + h.token}}}
	socket, _, err := websocket.Dial(t.Context(), h.serviceURL("answers", "/socket"), options)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	time.Sleep(time.Second)

	began := time.Now()
	h.signalServer(syscall.SIGTERM)
	h.waitUntil(5*time.Second, "new connections are refused", func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
		if err == nil {
			conn.Close()
			return fmt.Errorf("a new connection is accepted %s after SIGTERM", time.Since(began))
		}
		return nil
	})
	if got := <-waits; !strings.HasPrefix(got, "503") {
		t.Errorf("the waiting request got %s", got)
	}
	if got := <-slow; got != "200<nil>" && got != "200 <nil>" {
		t.Errorf("the slow request got %s", got)
	}
	expectCompleteStreams(h, "streams while the server stops", []*eventStream{stream})
	if err := socket.Write(t.Context(), websocket.MessageText, []byte("still there")); err != nil {
		t.Error(err)
	}
	if _, back, err := socket.Read(t.Context()); err != nil || string(back) != "still there" {
		t.Errorf("the WebSocket got %q %v", back, err)
	}
	socket.Close(websocket.StatusNormalClosure, "")
	h.waitForEnd(10 * time.Second)
	if log := h.log.String(); !strings.Contains(log, " finishing 3 requests, at most 30s; press Ctrl-C again to end at once") {
		t.Errorf("the server printed\n%s", log)
	}
}

// TestServerCutsRequests ends the server during endless streams: it waits for
// drain_timeout, and not at all after a second signal.
func TestServerCutsRequests(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.stopServer()
	h.writeFile(filepath.Join(h.serverDir, "config.yml"),
		"projects:\n- name: main\n  backends:\n  - type: local\n    engine: process\ndrain_timeout: 3s\n")
	h.startServer()
	h.applyAndWait(h.newFolder(h.workloadConfig("answers")))
	for _, again := range []bool{false, true} {
		stream := h.openStream(t.Context(), "answers", 1000, 100)
		began := time.Now()
		h.signalServer(syscall.SIGTERM)
		if again {
			h.waitUntil(5*time.Second, "the server says what it does", func() error {
				if !strings.Contains(h.log.String(), "finishing 1 request, at most 3s;") {
					return fmt.Errorf("it says\n%s", h.log.String())
				}
				return nil
			})
			time.Sleep(200 * time.Millisecond) // longer than signals count as one
			h.signalServer(syscall.SIGTERM)
		}
		h.waitForEnd(10 * time.Second)
		took := time.Since(began)
		<-stream.done
		if !again && took < 3*time.Second || again && took > 2500*time.Millisecond {
			t.Errorf("second signal: %v; the server ended after %s", again, took)
		}
		h.startServer()
	}
}

// signalServer sends a signal to the server, and does not wait for its end.
func (h *harness) signalServer(sig syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.t.Fatal(err)
	}
}

// waitForEnd waits until a server that was signaled has ended.
func (h *harness) waitForEnd(limit time.Duration) {
	h.t.Helper()
	select {
	case <-h.done:
		h.done = nil
	case <-time.After(limit):
		h.t.Fatalf("the server did not end within %s:\n%s", limit, h.log.String())
	}
}
