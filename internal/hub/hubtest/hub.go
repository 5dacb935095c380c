// Package hubtest serves a small model hub on the loopback interface for
// tests. Its statuses, error codes and redirects are those of the Hugging Face
// Hub.
package hubtest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Options configure a Hub.
type Options struct {
	Prefix string // prefix of all paths, such as /hf
	TLS    bool
}

// Repo is a model's repository with the single branch main.
type Repo struct {
	Name    string   // org/model or model
	Was     []string // former names, which redirect
	Commit  string   // commit of main; default Commit(1)
	Files   map[string]string
	Gated   bool     // all callers may list it, only Readers may read its files
	Private bool     // only Readers may list it
	Readers []string // tokens with access
	Stored  []string // files that redirect to the storage host
	Bare    bool     // its listing has neither files nor id
}

// Request is a request that the hub has received.
type Request struct {
	Host   string
	Method string
	Path   string // with the prefix and the query
	Header http.Header
	Store  bool // received by the storage host
}

// Hub is a model hub. It is safe for concurrent use.
type Hub struct {
	opts    Options
	server  *httptest.Server
	storage *httptest.Server
	closing chan struct{}

	mu       sync.Mutex
	repos    map[string]Repo
	accounts map[string]bool
	faults   []*Fault
	requests []Request
}

// New starts an empty hub that serves until the test ends.
func New(t testing.TB, opts Options) *Hub {
	t.Helper()
	h := &Hub{opts: opts, closing: make(chan struct{}), repos: map[string]Repo{}, accounts: map[string]bool{}}
	h.server, h.storage = h.startServer(false), h.startServer(true)
	t.Cleanup(h.Close)
	return h
}

func (h *Hub) startServer(storage bool) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serveRequest(w, r, storage) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // tests disconnect on purpose
	if h.opts.TLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	return s
}

// Close stops the hub before the test ends.
func (h *Hub) Close() {
	h.mu.Lock()
	select {
	case <-h.closing:
	default:
		close(h.closing)
	}
	h.mu.Unlock()
	h.server.Close()
	h.storage.Close()
}

// URL returns the value for HF_ENDPOINT.
func (h *Hub) URL() string { return h.server.URL + h.opts.Prefix }

// Host returns the host and port of URL.
func (h *Hub) Host() string { return h.server.Listener.Addr().String() }

// StorageHost returns the host and port of the storage, which serves the
// Stored files.
func (h *Hub) StorageHost() string { return h.storage.Listener.Addr().String() }

// Trust returns a TLS configuration that trusts the hub and its storage.
func (h *Hub) Trust() *tls.Config {
	roots := x509.NewCertPool()
	for _, s := range []*httptest.Server{h.server, h.storage} {
		if cert := s.Certificate(); cert != nil {
			roots.AddCert(cert)
		}
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// Commit returns the name of the nth commit.
func Commit(n int) string { return strings.Repeat(string("0123456789abcdef"[n%16]), 40) }

// Put adds or replaces a repository.
func (h *Hub) Put(r Repo) {
	if r.Commit == "" {
		r.Commit = Commit(1)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[r.Name] = r
}

// Remove removes a repository.
func (h *Hub) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.repos, name)
}

// Account registers a token without access to any repository. Tokens of
// Readers are registered already.
func (h *Hub) Account(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accounts[token] = true
}

// Requests returns the received requests in order.
func (h *Hub) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Forget clears the list of requests.
func (h *Hub) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = nil
}

// findRepo returns the repository of a current or former name.
func (h *Hub) findRepo(name string) (r Repo, renamed, found bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, found = h.repos[name]; found {
		return r, false, true
	}
	for _, r := range h.repos {
		if slices.Contains(r.Was, name) {
			return r, true, true
		}
	}
	return Repo{}, false, false
}

// isKnownToken reports whether a token is registered.
func (h *Hub) isKnownToken(token string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.accounts[token] {
		return true
	}
	for _, r := range h.repos {
		if slices.Contains(r.Readers, token) {
			return true
		}
	}
	return false
}
