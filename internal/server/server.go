// Package server is the control plane's face: the API in the wire form of
// the reference, and the route table that a gateway in the same process
// follows. routes.go is the table of everything that can be called.
package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"

	"dstack/internal/backend"
	"dstack/internal/dstack"
	"dstack/internal/hub"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// Options is what a Server works with. Wake, Bell, Log and the names may be
// left out; the rest may not.
type Options struct {
	Store       *store.Store
	Logs        *logs.Store
	Backends    *backend.Set
	Dir         string          // the server's folder; uploads are spooled below it
	Wake        func()          // called when there is work for the passes
	Bell        *loop.Broadcast // rings when something changed; who waits looks again
	Domain      string          // services are published as <run>.<domain>
	MainProject string          // its services need no project in their name
	PublicURL   string          // where clients reach this server
	Log         *slog.Logger    // problems of ours
	UploadLimit int64           // bytes of one upload of code

	// BackendTypes are the types of backend that config.yml may name.
	BackendTypes map[string]BackendType

	// Hub is where chat templates are found; nil: nowhere.
	Hub *hub.Client
}

// defaultUploadLimit is how large a folder may be.
const defaultUploadLimit = 64 << 20

// Server answers the API.
type Server struct {
	store     *store.Store
	logs      *logs.Store
	backends  *backend.Set
	dir       string
	wake      func()
	broadcast *loop.Broadcast
	hub       *hub.Client
	urls      publicURLs
	log       *slog.Logger
	upload    int64

	naming sync.Mutex // held while a run's name is made up
	table  tableCache
	mux    *http.ServeMux

	backendTypes map[string]BackendType
}

// New returns a Server. Nothing runs until it is asked.
func New(o Options) *Server {
	s := &Server{store: o.Store, logs: o.Logs, backends: o.Backends, dir: o.Dir, wake: o.Wake, broadcast: o.Bell, hub: o.Hub,
		log: o.Log, upload: o.UploadLimit, urls: newPublicURLs(o)}
	if s.wake == nil {
		s.wake = func() {}
	}
	if s.broadcast == nil {
		s.broadcast = &loop.Broadcast{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.upload == 0 {
		s.upload = defaultUploadLimit
	}
	if s.backends == nil {
		s.backends = backend.NewSet()
	}
	s.backendTypes = o.BackendTypes
	s.table = newTableCache()
	s.mux = s.newMux()
	return s
}

// Handler answers the API and the health check, and nothing of the gateway.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveAPI) }

// notifyChange tells the passes and everybody who waits that there is news.
func (s *Server) notifyChange() {
	s.wake()
	s.broadcast.Notify()
}

// publicURLs makes the addresses under which services are published.
type publicURLs struct {
	base   url.URL // of this server
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

// runURLs returns where a run is published, in the form of the reference.
func (a publicURLs) runURLs(run dstack.Run) wire.RunURLs {
	return wire.RunURLs{Service: a.serviceURL(run.Project, run.Name), Models: a.modelsURL(run.Project)}
}

// hostURL is the URL of a name below the domain, without a slash at its end.
func (a publicURLs) hostURL(name string) string {
	at := url.URL{Scheme: a.base.Scheme, Host: name + "." + a.domain}
	if port := a.base.Port(); port != "" {
		at.Host += ":" + port
	}
	return at.String()
}

func (a publicURLs) nameURL(project, name string) string {
	if equalFold(project, a.main) {
		return a.hostURL(name)
	}
	return a.hostURL(name + "." + lowerTime(project))
}

func (a publicURLs) serviceURL(project, run string) string { return a.nameURL(project, run) }
func (a publicURLs) modelsURL(project string) string       { return a.nameURL(project, "gateway") }

func (a publicURLs) servicePathURL(project, run string) string {
	return fmt.Sprintf("%s/proxy/services/%s/%s/", a.base.String(), lowerTime(project), run)
}

func (a publicURLs) modelsPathURL(project string) string {
	return fmt.Sprintf("%s/proxy/models/%s", a.base.String(), lowerTime(project))
}
