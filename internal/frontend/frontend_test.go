package frontend_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/frontend"
	"dstack/internal/loop"
)

// rig is a frontend on ports of its own, for names below example.com. Those that begin with plain have no certificate.
type rig struct {
	*frontend.Frontend
	https, http int
	covered     atomic.Bool // there is a certificate
	stop        func()
}

func newRig(t *testing.T, handler http.Handler) *rig {
	t.Helper()
	return newRigWith(t, handler, nil)
}

func newRigWith(t *testing.T, handler http.Handler, fast func(net.Listener) (frontend.FastListener, error)) *rig {
	t.Helper()
	r := &rig{https: findFreePort(t), http: findFreePort(t)}
	r.covered.Store(true)
	r.Frontend = frontend.New(frontend.Options{
		Handler: handler, FastPath: fast, TLS: newTestTLS(t, "*.example.com"), Host: "127.0.0.1", HTTPSPort: r.https, HTTPPort: r.http,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Find: func(host string) frontend.Name {
			name, _, _ := strings.Cut(strings.ToLower(strings.TrimSuffix(host, ".")), ":")
			switch {
			case !strings.HasSuffix(name, ".example.com"):
				return frontend.UnknownName
			case strings.HasPrefix(name, "plain"):
				return frontend.PlainName
			}
			return frontend.SecureName
		},
		Covers:        func(string) bool { return r.covered.Load() },
		WhatIsMissing: func(name string) string { return name + " does not point here" },
		Challenges: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/.well-known/acme-challenge/x" {
					fmt.Fprint(w, "answer")
					return
				}
				next.ServeHTTP(w, req)
			})
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx, r.Tasks()...) }()
	r.stop = func() { cancel(); <-ended }
	t.Cleanup(r.stop)
	return r
}

func (r *rig) waitOpen(t *testing.T, https, http bool) {
	t.Helper()
	waitUntil(t, fmt.Sprintf("https is %v, http is %v", https, http), func() bool {
		isHTTPS, isHTTP := r.IsOpen()
		return isHTTPS == https && isHTTP == http
	})
}

func waitUntil(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 15s: ", what)
		}
	}
}

func TestFrontend_Names(t *testing.T) {
	r := newRig(t, http.HandlerFunc(tellProtocol))
	r.SetWanted(true, true)
	r.waitOpen(t, true, true)
	secure, plain := fmt.Sprintf("https://llama.example.com:%d", r.https), fmt.Sprintf(":%d", r.http)
	tests := []struct {
		name, url, host string
		status          int
		want            string // in the body, or the Location
	}{
		{"a name over https", secure + "/", "", 200, "HTTP/2.0 true"},
		{"the same name in capitals and with a final dot", secure + "/", "LLAMA.example.com.", 200, "HTTP/2.0 true"},
		{"another name on the connection of this one", secure + "/", "other.example.com", 421, "another name"},
		{"an unknown name on it", secure + "/", "example.org", 421, "another name"},
		{"an unknown name over https", fmt.Sprintf("https://example.org:%d/", r.https), "", 404, "names no service"},
		{"http is redirected", "http://llama.example.com" + plain + "/a%2Fb?c=d", "", 307, secure + "/a%2Fb?c=d"},
		{"a path that looks like a host", "http://llama.example.com" + plain + "//evil.test/", "", 307, secure + "//evil.test/"},
		{"without a certificate it is served over http", "http://plain.example.com" + plain + "/", "", 200, "HTTP/1.1 false"},
		{"an unknown name over http", "http://example.org" + plain + "/", "", 404, "names no service"},
		{"a challenge comes before the redirect", "http://llama.example.com" + plain + "/.well-known/acme-challenge/x", "", 200, "answer"},
	}
	client := newTestClient(t, true)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequest("GET", test.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.host != "" {
				req.Host = test.host
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if got := string(body) + res.Header.Get("Location"); err != nil || res.StatusCode != test.status || !strings.Contains(got, test.want) {
				t.Errorf("%d %s (%v), want %d %s", res.StatusCode, got, err, test.status, test.want)
			}
		})
	}
	t.Run("no certificate yet", func(t *testing.T) {
		r.covered.Store(false)
		defer r.covered.Store(true)
		if got := get(t, client, "http://llama.example.com"+plain+"/"); !strings.Contains(got, "no certificate for llama.example.com yet: llama.example.com does not point here") {
			t.Error(got)
		}
	})
}

func TestFrontend_OpensAPortThatIsTakenAtFirst(t *testing.T) {
	r := newRig(t, http.HandlerFunc(tellProtocol))
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.https))
	if err != nil {
		t.Fatal(err)
	}
	r.SetWanted(true, true)
	r.waitOpen(t, false, true) // the other port does not wait
	want := fmt.Sprintf("port %d is taken by another program; stop it, or choose another port with --https-port", r.https)
	waitUntil(t, want, func() bool { return len(r.Problems()) == 1 && r.Problems()[0] == want })
	taken.Close()
	r.waitOpen(t, true, true)
	if got := r.Problems(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestFrontend_ClosesPortsThatNobodyWants(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		fmt.Fprint(w, "finished")
	}))
	r.SetWanted(false, true)
	r.waitOpen(t, false, true)
	got := make(chan string, 1)
	client, url := newTestClient(t, false), fmt.Sprintf("http://plain.example.com:%d/", r.http)
	go func() { got <- get(t, client, url) }()
	<-begun
	r.SetWanted(false, false)
	waitUntil(t, "the port is closed", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.http))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(finish)
	if body := <-got; body != "finished" {
		t.Errorf("a request in flight got %q", body)
	}
}

func TestFrontend_Drain(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		fmt.Fprint(w, "finished")
	}))
	r.SetWanted(true, true)
	r.waitOpen(t, true, true)
	got := make(chan string, 1)
	client, url := newTestClient(t, true), fmt.Sprintf("https://llama.example.com:%d/", r.https)
	go func() { got <- get(t, client, url) }()
	<-begun
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r.Drain(brief); brief.Err() == nil {
		t.Error("drained with a request in flight")
	}
	close(finish)
	r.Drain(t.Context())
	if body := <-got; body != "finished" {
		t.Errorf("%q", body)
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.https)); err == nil {
		conn.Close()
		t.Error("the port is open")
	}
}

// gate is a FastListener that serves nothing itself, and drains once it may.
type gate struct {
	net.Listener
	mayDrain chan struct{}
	drained  atomic.Bool
}

func (g *gate) Drain(ctx context.Context) {
	select {
	case <-g.mayDrain:
		g.drained.Store(true)
	case <-ctx.Done():
	}
}

// What is in front of the http port is drained before its server shuts down, and the https port has nothing in front of it.
func TestFrontend_FastPath(t *testing.T) {
	gates := make(chan *gate, 2)
	r := newRigWith(t, http.HandlerFunc(tellProtocol), func(l net.Listener) (frontend.FastListener, error) {
		g := &gate{Listener: l, mayDrain: make(chan struct{})}
		gates <- g
		return g, nil
	})
	r.SetWanted(true, true)
	r.waitOpen(t, true, true)
	g := <-gates
	if len(gates) != 0 {
		t.Error("there are two of them")
	}
	if got := get(t, newTestClient(t, false), fmt.Sprintf("http://plain.example.com:%d/", r.http)); got != "HTTP/1.1 false" {
		t.Error(got)
	}
	drained := make(chan bool)
	go func() {
		r.Drain(t.Context())
		close(drained)
	}()
	select {
	case <-drained:
		t.Error("drained before the one in front of it")
	case <-time.After(50 * time.Millisecond):
	}
	close(g.mayDrain)
	<-drained
	if !g.drained.Load() {
		t.Error("it was not drained")
	}
}
