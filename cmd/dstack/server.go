package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/backend"
	"dstack/internal/backend/ssh"
	"dstack/internal/catalogue"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/gitrepo"
	"dstack/internal/hub"
	"dstack/internal/installationca"
	"dstack/internal/loop"
	"dstack/internal/sdnotify"
	"dstack/internal/server"
	"dstack/internal/server/logs"
	"dstack/internal/server/peers"
	"dstack/internal/server/reconcile"
	"dstack/internal/server/store"
)

const (
	maxLogBytesPerRun   = 64 << 20
	metricsTimeout      = 5 * time.Second
	placeTimeout        = time.Minute
	defaultStartTimeout = 30 * time.Minute
)

func serverCommand() *cobra.Command {
	var o serverOptions
	c := &cobra.Command{
		Use:   "server",
		Short: "Start the server and the gateway on this machine.",
		Example: "dstack server\n" +
			"dstack server --host 0.0.0.0 --port 3000   # reachable from elsewhere; put TLS in front\n" +
			"dstack server --take-over                  # replace the running server without an interruption",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.readEnvironment(); err != nil {
				return err
			}
			return runServer(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.addFlags(c)
	c.AddCommand(tokenCommand(), keyCommand(), backupCommand(), restoreCommand())
	return c
}

// daemon holds the components of the running server.
type daemon struct {
	serverOptions
	log             *slog.Logger
	listener        net.Listener
	metricsListener net.Listener // nil: no metrics are served
	sshListener     net.Listener // nil: clients cannot attach to runs
	errOut          io.Writer
	drainTimeout    time.Duration
	longDrain       time.Duration  // drainTimeout of a replaced process
	proxies         []netip.Prefix // trusted
	publicHost      string         // of DSTACK_SERVER_URL; empty: not set
	proxyWarning    sync.Once
	hasWarned       atomic.Bool // proxyWarning was given
	requests        inFlight
	stopping        context.Context // ends when the server begins to stop
	commandsEnd     context.Context // ends then, too, unless another process replaces this one
	interrupted     context.Context // ends when the process is told to stop
	drained         context.Context // ends when no request is in flight any more
	uncut           context.Context // of all requests: its end ends them
	cutRequests     context.CancelFunc

	handover
	gatewayName string // in load reports

	sealer      *store.Sealer
	store       *store.Store
	backends    *backend.Set
	catalogue   *catalogue.Catalogue
	accounts    map[string]account // of clouds, by the keys of their backends
	opened      []openedBackend    // those in backends, in the order of config.yml
	retired     []openedBackend    // engines that run what they have, and get nothing new
	hosts       *ssh.Backend       // the hosts of fleets; it is one of backends
	forwards    *ssh.Forwards      // ports on hosts at which gateways reach this server
	dialer      *dial.Dialer       // shared by the probes, the engines and the gateway
	hub         *hub.Client
	repos       *gitrepo.Cache
	reconciler  *reconcile.Reconciler
	server      *server.Server
	api         http.Handler
	membership  *peers.Membership // nil: the server is alone
	peers       *peers.Directory  // nil: the server is alone
	peerHandler *peers.Handler    // nil: the server is alone
	changes     *loop.Broadcast   // notified on every change
	gateway     *gateway.Gateway
	authority   *installationca.Authority // of the installation
	published   *published                // the gateways of projects that this process serves
}

// runServer runs the server until ctx ends. Replicas keep running after that.
func runServer(ctx context.Context, o serverOptions, out, errOut io.Writer) (err error) {
	d := &daemon{
		serverOptions: o, log: newLogger(errOut, o.logLevel, o.logFormat),
		backends: backend.NewSet(), dialer: &dial.Dialer{}, changes: &loop.Broadcast{}, errOut: errOut,
		gatewayName: o.hostID, interrupted: ctx,
	}
	d.folder, d.lockFolder, d.takesOver, d.claimEarlier, d.events = o.dir, lockFolder, o.takeOver, d.claimFromEarlierVersion, d.log
	slog.SetDefault(d.log)
	d.uncut, d.cutRequests = context.WithCancel(context.WithoutCancel(ctx))
	defer d.cutRequests()
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.claimFolder(ctx); err != nil {
		return err
	}
	if err := d.openListeners(ctx); err != nil {
		return err
	}
	booted, err := d.buildComponents(ctx)
	if err != nil {
		return err
	}
	attachTasks, err := d.sshTasks()
	if err != nil {
		return err
	}
	d.recordURL()
	if err := d.printStartMessage(ctx, out, errOut, booted); err != nil {
		return err
	}
	if err := d.begin(ctx); err != nil {
		return err
	}
	var endDrain context.CancelFunc
	d.drained, endDrain = context.WithCancel(context.WithoutCancel(ctx))
	defer endDrain()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// What only one process of a folder may do. It pauses while another process takes over.
	passes := loop.NewPausable(slices.Concat(d.reconciler.Tasks(), d.hosts.Tasks(), []loop.Task{d.server.HostTask()}, d.hostPortTasks(), d.backendPasses(),
		d.catalogue.Tasks())...)
	tasks := slices.Concat([]loop.Task{d.untilYielded(passes.Task("passes"))}, d.handoverTasks(passes, stop), attachTasks, d.shareTasks())
	for _, task := range slices.Concat(d.gateway.Tasks(), d.published.tasks(), d.backendTasks()) { // other servers need its load reports while it has requests
		tasks = append(tasks, d.untilDrained(task))
	}
	tasks = append(tasks, loop.Task{Name: "listener", Run: func(ctx context.Context) error {
		defer endDrain()
		return d.serveRequests(ctx)
	}})
	if d.metricsListener != nil {
		tasks = append(tasks, loop.Task{Name: "metrics", Run: d.listenForMetrics})
	}
	d.notify(sdnotify.Ready, sdnotify.Status("serving at "+d.serverURL()))
	err = loop.Run(ctx, tasks...)
	d.forgetDrained(ctx)
	if err == nil && !d.isReplaced() { // ctx ended
		d.printStopMessage(ctx, out)
	}
	return err
}

// openListeners opens the listeners of the server, or uses those of the server that it replaces.
func (d *daemon) openListeners(ctx context.Context) (err error) {
	if d.listener, err = openListener(ctx, &d.sockets, "server", d.listenAddress(), "--port"); err != nil {
		return err
	}
	if d.metricsAddress != "" {
		if d.metricsListener, err = openListener(ctx, &d.sockets, "metrics", d.metricsAddress, "--metrics"); err != nil {
			return err
		}
	}
	return d.openSSHListener(ctx)
}

// buildComponents opens the store and the backends, and creates the other components. It starts none of them.
func (d *daemon) buildComponents(ctx context.Context) (server.BootResult, error) {
	var none server.BootResult
	var err error
	undoKey, err := d.openSealer(ctx)
	if err != nil {
		return none, err
	}
	if d.store, err = store.Open(ctx, d.database, d.sealer); err != nil {
		undoKey()
		return none, err
	}
	if err := d.openAuthority(ctx); err != nil {
		return none, err
	}
	format := newConfigFormat(backendTypes)
	config, _, err := server.ReadConfig(d.dir, server.DefaultProject, format)
	if err != nil {
		return none, err
	}
	d.store.SetBudgets(config.Budgets())
	if d.repos, err = gitrepo.New(gitrepo.Options{Dir: d.filePath("repos"), Log: d.log}); err != nil {
		return none, err
	}
	d.drainTimeout = server.DefaultDrainTimeout
	if config.DrainTimeout != nil {
		d.drainTimeout = *config.DrainTimeout
	}
	d.longDrain = server.DefaultTakeOverDrainTimeout
	if config.TakeOverDrainTimeout != nil {
		d.longDrain = *config.TakeOverDrainTimeout
	}
	d.proxies = d.trustedProxies(config)
	if d.publicURL != "" {
		d.publicHost = d.site().Server.Host
	}
	d.catalogue, d.accounts = catalogue.New(catalogue.Settings{Folder: d.dir, URL: config.CatalogURL, Log: d.log}), map[string]account{}
	if err := d.openBackends(ctx, config, backendTypes); err != nil {
		return none, err
	}
	d.openRetiredEngines(ctx)
	if err := d.openHosts(ctx); err != nil {
		return none, err
	}
	output := logs.New(d.filePath("projects"), maxLogBytesPerRun)
	allOutput, err := d.openPeers(ctx, output)
	if err != nil {
		return none, err
	}
	d.reconciler = reconcile.New(reconcile.Options{
		Store: d.store, Backends: d.backends, Logs: output, Dialer: d.dialer, Broadcast: d.changes, Log: d.log,
		Owner: d.leaseOwner(), Host: d.hostID, Permit: d.permit, IsShared: d.store.IsShared, WhyNoRent: d.whyNoRent,
		Limits: lifecycle.Limits{StartTimeout: d.startTimeout, PlaceTimeout: placeTimeout}, Gateways: d.gatewayOptions(),
	})
	if d.hub, err = hub.New(hub.Options{
		Base: os.Getenv("HF_ENDPOINT"), Dir: d.filePath("hub"), Proxy: http.ProxyFromEnvironment, Log: d.log,
	}); err != nil {
		return none, err
	}
	userKeys, err := d.sealer.DeriveKey("ssh keys of users")
	if err != nil {
		return none, err
	}
	links, err := d.linkOptions()
	if err != nil {
		return none, err
	}
	if err := d.addCertificateLinks(&links); err != nil {
		return none, err
	}
	d.server = server.New(server.Options{
		Links: links,
		Store: d.store, Logs: output, Output: allOutput, Peers: d.peers, Backends: d.backends, Wake: d.reconciler.Wake, WakeHosts: d.hosts.Wake, Broadcast: d.changes,
		Dir: d.dir, Site: d.site(), Proxies: d.proxies, SSH: d.describeSSHListener(), Version: currentVersion(), Log: d.log,
		Hub: d.hub, Repos: d.repos, BackendTypes: format.Backends, UserKeys: userKeys, LimitOffers: d.reconciler.LimitOffers,
	})
	d.api = d.server.Handler()
	sessionKey, err := d.sealer.DeriveKey("gateway sessions")
	if err != nil {
		return none, err
	}
	d.gateway = gateway.New(gateway.Options{
		Control: d.server, Site: d.site(), Proxies: d.proxies, GatewayProxies: config.TrustedProxies, SessionKey: sessionKey, Name: d.gatewayName, Dialer: d.dialer,
		Limits: d.limits, Log: d.log,
	})
	if d.published, err = d.newPublished(); err != nil {
		return none, err
	}
	// This is the last step because it may generate the admin's token, which is shown only once, right after it.
	return server.Boot(ctx, server.BootOptions{Store: d.store, Dir: d.dir, Config: config, Token: d.token})
}

// openCode opens the code of an attempt. It is the engine.CodeOpener of all engines.
func (d *daemon) openCode(ctx context.Context, spec dstack.AttemptSpec) (io.ReadCloser, error) {
	if spec.Checkout == nil {
		return d.store.Code(ctx, spec.CodeProject, spec.CodeRepo, spec.CodeHash)
	}
	access, err := d.store.RepoAccess(ctx, spec.CodeProject, spec.CodeRepo, spec.Checkout.User)
	if dstack.KindOf(err) == dstack.NotFound { // the user was deleted, and the commit that they had fetched is enough
		access, err = dstack.RepoAccess{Project: spec.CodeProject, Repo: spec.CodeRepo, User: spec.Checkout.User}, nil
	}
	if err != nil {
		return nil, err
	}
	source, checkout := server.NewGitCheckout(access, *spec.Checkout)
	if spec.CodeHash != "" {
		diff, err := d.store.Code(ctx, spec.CodeProject, spec.CodeRepo, spec.CodeHash)
		if err != nil {
			return nil, err
		}
		defer diff.Close()
		checkout.Diff = diff
	}
	return d.repos.OpenFolder(ctx, source, checkout)
}

// openFile opens an uploaded file of an attempt. It is the engine.FileOpener of all engines.
func (d *daemon) openFile(ctx context.Context, file dstack.FileArchive) (io.ReadCloser, error) {
	return d.store.OpenArchive(ctx, file.ID)
}

// ServeHTTP passes a request to the gateway or to the API, depending on its host and path.
func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer d.requests.begin()()
	d.warnOfUntrustedProxy(r)
	d.markLastResponse(w, r)
	if d.gateway.Serves(r) {
		d.gateway.ServeHTTP(w, r)
		return
	}
	if d.peerHandler.Serves(r) {
		d.peerHandler.ServeHTTP(w, r.WithContext(peers.WithStopping(r.Context(), d.stopping)))
		return
	}
	d.serveAPI(w, r)
}

// serveAPI answers a request to the API.
func (d *daemon) serveAPI(w http.ResponseWriter, r *http.Request) {
	d.api.ServeHTTP(w, r.WithContext(server.WithStopping(r.Context(), server.Stopping{Waits: d.stopping, Commands: d.commandsEnd})))
}

// serveRequests serves the listener until ctx ends, and then drains; see drain.
func (d *daemon) serveRequests(ctx context.Context) error {
	defer d.cutRequests()
	d.stopping = ctx
	commands, endCommands := context.WithCancel(d.uncut)
	defer endCommands()
	d.commandsEnd = commands
	defer context.AfterFunc(ctx, func() {
		if !d.isReplaced() {
			endCommands()
		}
	})()
	port, err := d.newMainPort()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		d.drain(context.WithoutCancel(ctx), port, d.cutRequests)
	})
	err = port.serve()
	if stop() {
		return err
	}
	<-done
	return ctx.Err()
}

// close closes what is open, in any state of buildComponents.
func (d *daemon) close() error {
	var errs []error
	if d.running != nil {
		d.running.Close() // without Begin, it goes on
	}
	if d.hub != nil {
		d.hub.Close()
	}
	for _, l := range []net.Listener{d.listener, d.metricsListener, d.sshListener} {
		if l != nil {
			errs = append(errs, ignoreClosed(l.Close()))
		}
	}
	for _, b := range append(d.opened, d.retired...) {
		errs = append(errs, b.close())
	}
	if d.hosts != nil {
		errs = append(errs, d.hosts.Close())
	}
	if d.store != nil {
		d.leaveServers()
		errs = append(errs, d.store.Close())
	}
	if d.lock != nil {
		errs = append(errs, ignoreClosed(d.lock.Close()))
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
