// Package server implements the control plane's HTTP API in the wire format of
// dstack 0.18.10, with additions for our own command line, and the route table
// that a gateway in the same process follows. The operations of the API are in
// routes.go, their handlers in files named by their subject.
package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"dstack/internal/backend"
	"dstack/internal/dstack"
	"dstack/internal/hub"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// Options configures a Server. Store, Logs and Dir are required.
type Options struct {
	Store       *store.Store
	Logs        *logs.Store
	Backends    *backend.Set
	Dir         string          // the server's folder; uploads are spooled to its subfolder tmp
	Wake        func()          // called when there is work for the passes
	Broadcast   *loop.Broadcast // notified on every change; waiting calls then read the store again
	Domain      string          // services are published as <run>.<domain>; default localhost
	MainProject string          // services of this project are published without the project's name; default main
	PublicURL   string          // base URL of this server for clients; default http://127.0.0.1:3000
	Log         *slog.Logger
	UploadLimit int64 // bytes of one upload of code; default 64 MiB

	// BackendTypes are the types of backend that config.yml may name.
	BackendTypes map[string]BackendType

	// Hub finds chat templates; nil: only the configuration has them.
	Hub *hub.Client
}

const defaultUploadLimit = 64 << 20

// Server implements the API. It is safe for concurrent use.
type Server struct {
	store       *store.Store
	logs        *logs.Store
	backends    *backend.Set
	dir         string
	wake        func()
	broadcast   *loop.Broadcast
	hub         *hub.Client
	urls        publicURLs
	log         *slog.Logger
	uploadLimit int64

	namingMu sync.Mutex // held while a run name is generated
	table    tableCache
	mux      *http.ServeMux
	commands atomic.Int64 // running commands of runs/exec

	backendTypes map[string]BackendType
}

// New returns a server. It starts no goroutines.
func New(o Options) *Server {
	s := &Server{store: o.Store, logs: o.Logs, backends: o.Backends, dir: o.Dir, wake: o.Wake, broadcast: o.Broadcast,
		hub: o.Hub, log: o.Log, uploadLimit: o.UploadLimit, urls: newPublicURLs(o)}
	if s.wake == nil {
		s.wake = func() {}
	}
	if s.broadcast == nil {
		s.broadcast = &loop.Broadcast{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.uploadLimit == 0 {
		s.uploadLimit = defaultUploadLimit
	}
	if s.backends == nil {
		s.backends = backend.NewSet()
	}
	s.backendTypes = o.BackendTypes
	s.table = newTableCache()
	s.mux = s.newMux()
	return s
}

// Handler returns the handler of the API and the health check.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveAPI) }

// notifyChange wakes the passes and all waiting calls.
func (s *Server) notifyChange() {
	s.wake()
	s.broadcast.Notify()
}

// publicURLs builds the URLs at which services and models are published.
type publicURLs struct {
	base   url.URL // of this server, without a path
	domain string
	main   string
}

func newPublicURLs(o Options) publicURLs {
	a := publicURLs{domain: o.Domain, main: o.MainProject}
	if a.domain == "" {
		a.domain = "localhost"
	}
	if a.main == "" {
		a.main = "main"
	}
	base, err := url.Parse(o.PublicURL)
	if err != nil || base.Host == "" {
		base = &url.URL{Scheme: "http", Host: "127.0.0.1:3000"}
	}
	a.base = url.URL{Scheme: base.Scheme, Host: base.Host}
	return a
}

// runURLs returns the URLs of a run in the wire format.
func (a publicURLs) runURLs(run dstack.Run) wire.RunURLs {
	return wire.RunURLs{Service: a.serviceURL(run.Project, run.Name), Models: a.modelsURL(run.Project)}
}

// hostURL returns the URL of a host in the domain, without a trailing slash.
func (a publicURLs) hostURL(name string) string {
	at := url.URL{Scheme: a.base.Scheme, Host: name + "." + a.domain}
	if port := a.base.Port(); port != "" {
		at.Host += ":" + port
	}
	return at.String()
}

// nameURL returns the URL of a name in a project: <name>.<domain> in the main
// project, otherwise <name>.<project>.<domain>.
func (a publicURLs) nameURL(project, name string) string {
	if strings.EqualFold(project, a.main) {
		return a.hostURL(name)
	}
	return a.hostURL(name + "." + strings.ToLower(project))
}

func (a publicURLs) serviceURL(project, run string) string { return a.nameURL(project, run) }
func (a publicURLs) modelsURL(project string) string       { return a.nameURL(project, "gateway") }

func (a publicURLs) servicePathURL(project, run string) string {
	return fmt.Sprintf("%s/proxy/services/%s/%s/", a.base.String(), strings.ToLower(project), run)
}

func (a publicURLs) modelsPathURL(project string) string {
	return fmt.Sprintf("%s/proxy/models/%s", a.base.String(), strings.ToLower(project))
}
