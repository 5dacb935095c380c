package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/api"
	"dstack/internal/server/wire"
)

// pipeListener is a listener for connections in memory, so that tests can use a
// fake clock.
type pipeListener struct {
	conns chan net.Conn
	ended chan struct{}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}
func (p *pipeListener) Close() error   { close(p.ended); return nil }
func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// withPipeServer runs a test with a fake clock and a server without a store.
// dial connects to the server.
func withPipeServer(t *testing.T, test func(t *testing.T, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipeListener{conns: make(chan net.Conn), ended: make(chan struct{})}
		web := &http.Server{Handler: New(Options{}).Handler()}
		done := make(chan error, 1)
		go func() { done <- web.Serve(p) }()
		test(t, func() net.Conn {
			client, server := net.Pipe()
			p.conns <- server
			return client
		})
		_ = web.Close()
		<-done
	})
}

// readUntilClosed reads until the server closes the connection, and fails if
// that takes longer than limit. It returns what it has read.
func readUntilClosed(t *testing.T, c net.Conn, limit time.Duration) string {
	t.Helper()
	var got bytes.Buffer
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(&got, c); err != nil {
		t.Errorf("the connection is still open after %s: %v", limit, err)
	}
	return got.String()
}

func TestServeAPI_ClosesConnectionsThatSendNoBody(t *testing.T) {
	for _, path := range []string{"/api/runs/list", "/api/project/main/logs/follow", "/api/project/main/repos/upload_code", "/api/backends/list_types", "/nothing", "/healthcheck"} {
		t.Run(path, func(t *testing.T) {
			withPipeServer(t, func(t *testing.T, dial func() net.Conn) {
				c := dial()
				_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{", path)
				if err != nil {
					t.Fatal(err)
				}
				if said := readUntilClosed(t, c, 3*maxBodyTime); !strings.HasPrefix(said, "HTTP/1.1 4") {
					t.Errorf("got %q", said)
				}
			})
		})
	}
}

func TestServeAPI_ClosesConnectionsThatReadNoResponse(t *testing.T) {
	withPipeServer(t, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		if _, err := fmt.Fprint(c, "GET "+openapiPath+" HTTP/1.1\r\nHost: here\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * maxChunkTime)
		if said := readUntilClosed(t, c, maxChunkTime); said != "" {
			t.Errorf("%d bytes were buffered for a client that does not read", len(said))
		}
	})
}

func TestServeAPI_DeadlinesDoNotAffectLaterCallsOnAConnection(t *testing.T) {
	withPipeServer(t, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		answers := bufio.NewReader(c)
		for range 3 {
			if _, err := fmt.Fprint(c, "GET /healthcheck HTTP/1.1\r\nHost: here\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Fatalf("%d %s %v", answer.StatusCode, text, err)
			}
			time.Sleep(2 * (maxBodyTime + maxChunkTime))
		}
		_ = c.Close()
	})
}

func TestDecodeBody_LimitsTheNumberOfErrors(t *testing.T) {
	h := newTestServer(t)
	var body strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&body, `,"%x":1`, i)
	}
	a := h.callAs("", "/api/backends/list_types", "{"+body.String()[1:]+"}")
	if a.status != http.StatusUnprocessableEntity || len(a.text) > 100<<10 || !strings.Contains(a.text, "there are more errors") {
		t.Errorf("%d, %d bytes: %.200s", a.status, len(a.text), a.text)
	}
}

func TestServeAPI_PanicGives500OrAbortsAPartialResponse(t *testing.T) {
	s := New(Options{})
	s.muxes[wire.Dialect018].HandleFunc("GET /early", func(http.ResponseWriter, *http.Request) { panic("boom") })
	s.muxes[wire.Dialect018].HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
		_ = newLineWriter(w).writeAndFlush(api.LogEntry{Message: []byte("one")})
		panic("boom")
	})
	web := httptest.NewServer(s.Handler())
	defer web.Close()
	for path, whole := range map[string]bool{"/early": true, "/late": false} {
		answer, err := http.Get(web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if (err == nil) != whole || strings.Contains(string(text), "Internal Server Error") != whole {
			t.Errorf("%s: %v, %s", path, err, text)
		}
	}
}
