// Package server implements the control plane's HTTP API in the wire format of
// dstack 0.18.10, with additions for our own command line, and the route table
// that a gateway in the same process follows. The operations of the API are in
// routes.go, their handlers in files named by their subject.
package server

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/route"
	"dstack/internal/gitrepo"
	"dstack/internal/hub"
	"dstack/internal/loop"
	"dstack/internal/server/logs"
	"dstack/internal/server/peers"
	"dstack/internal/server/store"
	"dstack/internal/server/wire"
)

// Options configures a Server. Store, Logs and Dir are required.
type Options struct {
	Store       *store.Store
	Logs        *logs.Store
	Peers       *peers.Directory // the other servers that share the database; nil: this one is alone
	Output      OutputReader     // the output of attempts on all servers; default: Logs
	Backends    *backend.Set
	Dir         string          // the server's folder; uploads are spooled to its subfolder tmp
	Wake        func()          // called when there is work for the passes
	WakeHosts   func()          // called when hosts of fleets should be checked; default: nothing
	Broadcast   *loop.Broadcast // notified on every change; waiting calls then read the store again
	Site        route.Site      // where the server and its services are published; default http://127.0.0.1:3000, project main
	Proxies     []netip.Prefix  // the trusted proxies in front of the server
	SSH         SSHListener     // of the SSH server that has the SSHJobs of this server
	Version     string          // of this program, for the page at /
	Log         *slog.Logger
	UploadLimit int64 // bytes of one upload of code; default 64 MiB

	// UserKeys is the secret from which the SSH keys of users are derived, which later clients get from the server; nil:
	// the server has none.
	UserKeys []byte

	// BackendTypes are the types of backend that config.yml may name.
	BackendTypes map[string]BackendType

	// Repos reads git repositories; nil: code comes from folders only.
	Repos *gitrepo.Cache

	// Links is what gateway processes on other machines get; zero: none can join.
	Links LinkOptions

	// LimitOffers leaves out what replicas would not get now; nil: nothing.
	LimitOffers OfferLimiter

	// Hub finds chat templates; nil: only the configuration has them.
	Hub *hub.Client
}

const defaultUploadLimit = 64 << 20

// Server implements the API. It is safe for concurrent use.
type Server struct {
	store       *store.Store
	logs        *logs.Store
	output      OutputReader
	peers       *peers.Directory
	backends    *backend.Set
	dir         string
	wake        func()
	wakeHosts   func()
	broadcast   *loop.Broadcast
	hub         *hub.Client
	repos       *gitrepo.Cache
	site        route.Site
	proxies     route.Proxies
	ssh         SSHListener
	version     string
	log         *slog.Logger
	unanswered  loop.RepeatFilter // of backends, for the log
	uploadLimit int64
	userKeys    []byte
	limitOffers OfferLimiter

	namingMu sync.Mutex // held while a run name is generated
	table    tableCache
	muxes    map[wire.Dialect]*http.ServeMux
	commands execSlots // running commands of runs/exec

	links          LinkOptions
	published      publishedStates
	processReports processReports

	accessInterval time.Duration // between two checks of the access of a command's caller

	backendTypes map[string]BackendType
}

// New returns a server. It starts no goroutines.
func New(o Options) *Server {
	s := &Server{store: o.Store, logs: o.Logs, output: o.Output, peers: o.Peers, backends: o.Backends, dir: o.Dir, wake: o.Wake, broadcast: o.Broadcast,
		hub: o.Hub, repos: o.Repos, log: o.Log, uploadLimit: o.UploadLimit, site: o.Site, ssh: o.SSH, version: o.Version,
		accessInterval: execAccessInterval, userKeys: o.UserKeys}
	s.site.Main = cmp.Or(s.site.Main, DefaultProject)
	if s.site.Server.IsZero() {
		s.site.Server = route.Origin{Scheme: "http", Host: "127.0.0.1:3000"}
	}
	s.proxies = route.Proxies{Trusted: o.Proxies, Site: s.site}
	if s.wake == nil {
		s.wake = func() {}
	}
	if s.wakeHosts = o.WakeHosts; s.wakeHosts == nil {
		s.wakeHosts = func() {}
	}
	if s.output == nil {
		s.output = o.Logs
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
	if s.limitOffers = o.LimitOffers; s.limitOffers == nil {
		s.limitOffers = allowOffers
	}
	s.table = newTableCache()
	s.links = o.Links
	s.links.Offline = cmp.Or(s.links.Offline, defaultOffline)
	if s.links.DeriveKey == nil {
		s.links.DeriveKey = func(string) ([]byte, error) { return nil, nil }
	}
	s.muxes = s.newMuxes()
	return s
}

// Handler returns the handler of the API and the health check.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveAPI) }

// notifyChange wakes the passes and all waiting calls.
func (s *Server) notifyChange() {
	s.wake()
	s.broadcast.Notify()
}
