// Package hubtest is a small model hub, served on the loopback for a test. It
// answers as Hugging Face's does: statuses, X-Error-Code, redirects.
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

// Options is how a hub is served.
type Options struct {
	Prefix string // of all its paths, such as /hf; empty: none
	TLS    bool
}

// Repo is a model's repository. Its one branch is main.
type Repo struct {
	Name    string   // org/model, or model alone
	Was     []string // names that redirect to it
	Commit  string   // of main; empty: Commit(1)
	Files   map[string]string
	Gated   bool     // anybody lists it, only Readers read its files
	Private bool     // only Readers know of it
	Readers []string // tokens
	Stored  []string // files that are elsewhere: a redirect to the storage, another host
	Bare    bool     // its listing names neither files nor id
}

// Request is one that came.
type Request struct {
	Host   string
	Method string
	Path   string // with the prefix, and the query if there is one
	Header http.Header
	Store  bool // it came to the storage, not to the hub
}

// Hub is a model hub. Its methods may be called at any time by anybody.
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

// New serves an empty hub until the test ends.
func New(t testing.TB, opts Options) *Hub {
	t.Helper()
	h := &Hub{opts: opts, closing: make(chan struct{}), repos: map[string]Repo{}, accounts: map[string]bool{}}
	h.server, h.storage = h.startServer(false), h.startServer(true)
	t.Cleanup(h.Close)
	return h
}

func (h *Hub) startServer(storage bool) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serveRequest(w, r, storage) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are often meant to
	if h.opts.TLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	return s
}

// Close ends the hub before its test does: nothing listens any more.
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

// URL is what HF_ENDPOINT would be.
func (h *Hub) URL() string { return h.server.URL + h.opts.Prefix }

// Host is the host of URL, with its port.
func (h *Hub) Host() string { return h.server.Listener.Addr().String() }

// StorageHost is the other host, which has what is Stored.
func (h *Hub) StorageHost() string { return h.storage.Listener.Addr().String() }

// Trust is a client's TLS that trusts the hub and its storage.
func (h *Hub) Trust() *tls.Config {
	roots := x509.NewCertPool()
	for _, s := range []*httptest.Server{h.server, h.storage} {
		if cert := s.Certificate(); cert != nil {
			roots.AddCert(cert)
		}
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// Commit is the nth commit's name.
func Commit(n int) string { return strings.Repeat(string("0123456789abcdef"[n%16]), 40) }

// Put adds a repository, or replaces the one of its name.
func (h *Hub) Put(r Repo) {
	if r.Commit == "" {
		r.Commit = Commit(1)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[r.Name] = r
}

// Remove takes a repository away.
func (h *Hub) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.repos, name)
}

// Account makes a token one that the hub knows, without any rights. Readers
// are known anyway.
func (h *Hub) Account(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accounts[token] = true
}

// Requests are those that came, in their order.
func (h *Hub) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Forget empties the list of requests.
func (h *Hub) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = nil
}

// findRepo finds a repository by its name or a former one.
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

// isKnownToken tells whether a token is anybody's.
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
