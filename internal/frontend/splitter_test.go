package frontend_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/frontend"
)

// sharedPort is a server whose port serves plain HTTP and TLS.
type sharedPort struct {
	address string
	split   *frontend.Splitter
	server  *http.Server
	done    chan error
}

func startSharedPort(t *testing.T, handler http.Handler) *sharedPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &sharedPort{address: l.Addr().String(), split: frontend.NewSplitter(l, slog.New(slog.DiscardHandler)),
		server: frontend.NewServer(handler, frontend.ServerOptions{Log: slog.New(slog.DiscardHandler)}), done: make(chan error, 1)}
	p.server.TLSConfig = newTestTLS(t, "*.example.com", "localhost")
	var group errgroup.Group
	group.Go(func() error { return p.server.Serve(p.split.Plain()) })
	group.Go(func() error { return p.server.Serve(tls.NewListener(p.split.TLS(), p.server.TLSConfig)) })
	group.Go(func() error { return p.split.Run(context.Background()) })
	go func() { p.done <- group.Wait() }()
	t.Cleanup(func() {
		p.split.Drain(context.Background())
		_ = p.server.Close()
		<-p.done
	})
	return p
}

// tellProtocol answers with what the server knows of a request.
func tellProtocol(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %v", r.Proto, r.TLS != nil)
}

func TestSplitter_TellsTLSFromHTTP(t *testing.T) {
	p := startSharedPort(t, http.HandlerFunc(tellProtocol))
	for _, test := range []struct {
		url    string
		client *http.Client
		want   string
	}{
		{"http://" + p.address, newTestClient(t, false), "HTTP/1.1 false"},
		{"https://" + p.address, newTestClient(t, false), "HTTP/1.1 true"},
		{"https://" + p.address, newTestClient(t, true), "HTTP/2.0 true"},
	} {
		if got := get(t, test.client, test.url); got != test.want {
			t.Errorf("%s: %s, want %s", test.url, got, test.want)
		}
	}
	// A client that says nothing holds up no other, and one that says little at first loses nothing.
	silent, slow := dialTest(t, p.address), dialTest(t, p.address)
	defer silent.Close()
	fmt.Fprint(slow, "G")
	if got := get(t, newTestClient(t, false), "http://"+p.address); got != "HTTP/1.1 false" {
		t.Error(got)
	}
	fmt.Fprint(slow, "ET / HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("a request in two pieces: %v, %v", res, err)
	}
}

// A connection that was accepted before the port is drained is served, also if its request comes a moment later.
func TestSplitter_DrainsWhatItAccepted(t *testing.T) {
	p := startSharedPort(t, http.HandlerFunc(tellProtocol))
	late, silent := dialTest(t, p.address), dialTest(t, p.address)
	if got := get(t, newTestClient(t, false), "http://"+p.address); got == "" { // both are accepted now
		t.Error(got)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		p.split.Drain(context.Background())
		_ = p.server.Shutdown(context.Background())
	}()
	for { // until the port is closed
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			break
		}
		conn.Close()
	}
	fmt.Fprint(late, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(late), nil)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
	select {
	case <-drained:
	case <-time.After(10 * time.Second):
		t.Fatal("a silent connection keeps the port from draining")
	}
	_ = silent.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the silent connection: %d, %v", n, err)
	}
}

func TestSplitter_EndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	split := frontend.NewSplitter(l, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- split.Run(ctx) }()
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("%v", err)
	}
}
