package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/backend"
	"dstack/internal/backend/local"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/hub"
	"dstack/internal/loop"
	"dstack/internal/server"
	"dstack/internal/server/logs"
	"dstack/internal/server/reconcile"
	"dstack/internal/server/store"
)

const (
	logsPerRun   = 64 << 20 // bytes kept of one run's output
	headerWait   = 10 * time.Second
	idleWait     = 2 * time.Minute
	headerBytes  = 64 << 10
	shutdownWait = 5 * time.Second // for answers under way; streams are cut
	placeWait    = time.Minute
	startWait    = 30 * time.Minute
)

func serverCommand() *cobra.Command {
	var o serverOptions
	c := &cobra.Command{
		Use:   "server",
		Short: "Start the server and the gateway on this machine.",
		Example: "dstack server\n" +
			"dstack server --host 0.0.0.0 --port 3000   # reachable from elsewhere; put TLS in front",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return serve(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.flags(c)
	return c
}

// house is everything that lives while the server does.
type house struct {
	serverOptions
	log      *slog.Logger
	store    *store.Store
	backends *backend.Set
	locals   []*local.Local
	listener net.Listener
	meters   net.Listener // of /metrics; nil: nobody asked for it
	server   *server.Server
	api      http.Handler
	closing  context.Context // ends when the server is told to
	gateway  *gateway.Gateway
	hub      *hub.Client
	passes   *reconcile.Reconciler
}

// serve runs the server until ctx ends. Replicas go on without it.
func serve(ctx context.Context, o serverOptions, out, errOut io.Writer) (err error) {
	h := &house{serverOptions: o, log: newLogger(errOut, o.logLevel, o.logFormat), backends: backend.NewSet()}
	slog.SetDefault(h.log)
	unlock, err := lockFolder(ctx, o.dir)
	if err != nil {
		return err
	}
	defer unlock()
	if h.listener, err = listen(ctx, o.address()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if o.metrics != "" {
		if h.meters, err = listen(ctx, o.metrics); err != nil {
			return err
		}
	}
	booted, err := h.build(ctx)
	if err != nil {
		return err
	}
	if err := h.greet(out, errOut, booted); err != nil {
		return err
	}
	tasks := append(h.passes.Tasks(), h.gateway.Tasks()...)
	tasks = append(tasks, loop.Task{Name: "listener", Run: h.listen})
	if h.meters != nil {
		tasks = append(tasks, loop.Task{Name: "metrics", Run: h.listenForMetrics})
	}
	return loop.Run(ctx, tasks...)
}

// build opens the store and makes the parts; nothing runs yet.
func (h *house) build(ctx context.Context) (server.Booted, error) {
	var none server.Booted
	sealer, err := store.NewSealer(h.path("encryption.key"))
	if err != nil {
		return none, err
	}
	if h.store, err = store.Open(ctx, h.database, sealer); err != nil {
		return none, err
	}
	config, _, err := server.ReadConfig(h.dir, server.DefaultProject)
	if err != nil {
		return none, err
	}
	if err := h.openBackends(ctx, config); err != nil {
		return none, err
	}
	// The folder's lock says that no other server of this host lives: what one
	// that was killed held is free at once.
	if err := h.store.FreeLeases(ctx, h.hostID); err != nil {
		return none, err
	}
	bell := &loop.Broadcast{}
	output := logs.New(h.path("projects"), logsPerRun)
	h.passes = reconcile.New(reconcile.Options{
		Store: h.store, Backends: h.backends, Logs: output, Broadcast: bell, Log: h.log,
		Owner: h.owner(), Host: h.hostID,
		Limits: lifecycle.Limits{StartTimeout: h.startTimeout, PlaceTimeout: placeWait},
	})
	if h.hub, err = hub.New(hub.Options{Base: os.Getenv("HF_ENDPOINT"), Dir: h.path("hub"), Log: h.log}); err != nil {
		return none, err
	}
	h.server = server.New(server.Options{
		Store: h.store, Logs: output, Backends: h.backends, Wake: h.passes.Wake, Broadcast: bell,
		Dir: h.dir, Domain: h.domain, MainProject: server.DefaultProject, PublicURL: h.url(), Log: h.log,
		Hub: h.hub,
	})
	h.api = h.server.Handler()
	h.gateway = gateway.New(gateway.Options{Control: h.server, Domain: h.domain, Main: server.DefaultProject, Name: h.hostID, Limits: h.limits, Log: h.log})
	// Last, since it may make a token, which is shown right afterwards or never.
	return server.Boot(ctx, server.BootOptions{Store: h.store, Dir: h.dir, Token: h.token})
}

// openBackends makes each configured backend once, however many projects use
// it: this machine has one set of GPUs.
func (h *house) openBackends(ctx context.Context, config server.Config) error {
	installation, err := h.store.Installation(ctx)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find the dstack binary itself: %w", err)
	}
	opened := map[string]*local.Local{}
	for _, project := range config.Projects {
		for _, b := range project.Backends {
			one, err := local.New(ctx, local.Options{
				Engine: b.Engine, Dir: h.path("process"), Installation: installation, HostID: h.hostID,
				Self: self, Code: h.code, Log: h.log,
			})
			if err != nil {
				return err
			}
			if same := opened[one.Key()]; same != nil {
				if err := one.Close(); err != nil {
					return err
				}
				one = same
			} else {
				opened[one.Key()] = one
				h.locals = append(h.locals, one)
			}
			h.backends.Add(project.Name, one.Key(), one)
		}
	}
	return nil
}

// code opens an order's upload for an engine.
func (h *house) code(ctx context.Context, o dstack.AttemptSpec) (io.ReadCloser, error) {
	return h.store.Code(ctx, o.CodeProject, o.CodeRepo, o.CodeHash)
}

// ServeHTTP gives a request to the gateway or to the API, by its host and path.
func (h *house) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.gateway.Serves(r) {
		h.gateway.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.closing, cancel)() // long polls need not be waited for
	h.api.ServeHTTP(w, r.WithContext(ctx))
}

// listen answers requests until ctx ends. Short answers under way are
// finished; streams are cut after shutdownWait.
func (h *house) listen(ctx context.Context) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	h.closing = ctx
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerWait, IdleTimeout: idleWait, MaxHeaderBytes: headerBytes,
		BaseContext: func(net.Listener) context.Context { return requests },
		ConnContext: gateway.WithConn,
		ErrorLog:    slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
		defer cancel()
		if srv.Shutdown(wait) != nil {
			cut()
			_ = srv.Close() // what is left is streams whose end nobody can wait for
		}
	})
	err := srv.Serve(h.listener)
	if stop() {
		return err
	}
	<-done
	return ctx.Err()
}

// close ends what build began, in reverse.
func (h *house) close() error {
	errs := []error{ignoreClosed(h.listener.Close())}
	if h.hub != nil {
		h.hub.Close()
	}
	if h.meters != nil {
		errs = append(errs, ignoreClosed(h.meters.Close()))
	}
	for _, l := range h.locals {
		errs = append(errs, l.Close())
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// listen takes the address, with words for the two ways in which that fails.
func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	return nil, &dstack.Error{
		Kind: dstack.Conflict, Message: fmt.Sprintf("cannot listen on %s: %v", address, errors.Unwrap(errors.Unwrap(err))),
		Hint: "another server may be running there; choose another port with --port", Cause: err,
	}
}
