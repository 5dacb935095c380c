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
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/api"
	"dstack/internal/certificate"
	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/frontend"
	"dstack/internal/gateway"
	"dstack/internal/gatewaylink"
	"dstack/internal/loop"
	"dstack/internal/netplace"
	"dstack/internal/relay"
	"dstack/internal/sdnotify"
	"dstack/internal/server"
)

// gatewayProcess holds the components of a running `dstack gateway serve`.
type gatewayProcess struct {
	gatewayServeOptions
	handover
	log      *slog.Logger
	out      io.Writer
	errOut   io.Writer
	identity gatewaylink.Identity
	link     *gatewaylink.Link
	dialer   *dial.Dialer
	keeper   *certificate.Keeper
	front    *frontend.Frontend
	gateway  *gateway.Gateway
	metrics  net.Listener // nil: none are served
	requests inFlight
}

// gatewayDrainTimeout is how long a gateway that stops finishes its requests.
const gatewayDrainTimeout = 5 * time.Minute

// runGatewayServe serves a gateway until ctx ends.
func runGatewayServe(ctx context.Context, o gatewayServeOptions, out, errOut io.Writer) (err error) {
	p := &gatewayProcess{gatewayServeOptions: o, log: newLogger(errOut, o.logLevel, o.logFormat), out: out, errOut: errOut, dialer: &dial.Dialer{}}
	slog.SetDefault(p.log)
	p.folder, p.lockFolder, p.takesOver, p.events = o.dir, lockGatewayFolder, o.takeOver, p.log
	if err := p.claimFolder(ctx); err != nil {
		return err
	}
	defer p.releaseFolder()
	if o.metricsAddress != "" {
		if p.metrics, err = openListener(ctx, &p.sockets, "metrics", o.metricsAddress, "--metrics"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ignoreClosed(p.metrics.Close())) }()
	}
	p.identity, err = gatewaylink.Join(ctx, gatewaylink.JoinOptions{Dir: o.dir, Servers: o.servers, Token: o.token, Name: o.name,
		Address: o.address, Version: currentVersion(), Log: p.log})
	if err != nil {
		return err
	}
	p.link, err = gatewaylink.New(gatewaylink.Options{Dir: o.dir, Identity: p.identity, Version: currentVersion(), Dialer: p.dialer,
		PodAuthorities: netplace.PodAuthorities(),
		Describe:       p.describe, Log: p.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.link.Close(context.WithoutCancel(ctx))) }()
	return p.serve(ctx)
}

// lockGatewayFolder makes this process the only one that uses a folder, until the file is closed.
func lockGatewayFolder(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "gateway.lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	if err := lockFile(ctx, f); err != nil {
		_ = f.Close() // nothing was written
		return nil, &dstack.Error{Kind: dstack.Conflict, Message: "another gateway process already uses " + dir,
			Hint: "replace it with --take-over, stop it first, or choose another folder with --dir", Cause: err}
	}
	return f, nil
}

// serve follows the server and serves requests until ctx ends, and then drains.
func (p *gatewayProcess) serve(ctx context.Context) error {
	interrupted := ctx
	ctx, replaced := context.WithCancel(ctx)
	defer replaced()
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan struct{})
	stopDrain := context.AfterFunc(ctx, func() {
		defer close(done)
		defer stop()
		p.drain(context.WithoutCancel(ctx), interrupted)
	})
	tasks := append(p.link.Tasks(), loop.Task{Name: "gateway", Run: p.serveGateway})
	tasks = append(tasks, p.handoverTasks(ctx, replaced)...)
	err := loop.Run(running, tasks...)
	if !stopDrain() {
		<-done
		return nil // ctx ended
	}
	if p.link.IsRemoved() {
		return &dstack.Error{Kind: dstack.Forbidden, Message: fmt.Sprintf("this process was removed from the gateway %s, or the gateway was deleted", p.identity.Gateway),
			Hint: "join again with a new token: dstack gateway token NAME", Cause: err}
	}
	return err
}

// serveGateway serves requests once there is a state.
func (p *gatewayProcess) serveGateway(ctx context.Context) error {
	if err := p.link.WaitForState(ctx); err != nil {
		return err
	}
	if err := p.build(); err != nil {
		return err
	}
	tasks := slices.Concat(p.gateway.Tasks(), p.keeper.Tasks(), p.front.Tasks(), []loop.Task{{Name: "gateway settings", Run: p.followSettings}})
	if p.metrics != nil {
		tasks = append(tasks, loop.Task{Name: "metrics", Run: func(ctx context.Context) error {
			err := serveMetrics(ctx, p.metrics, p.gateway, p.log)
			if errors.Is(err, net.ErrClosed) { // the process drains
				<-ctx.Done()
			}
			return err
		}})
	}
	return loop.Run(ctx, tasks...)
}

// build creates the gateway, its certificates and its ports from the first state.
func (p *gatewayProcess) build() (err error) {
	settings, _ := p.link.Settings()
	p.gateway = gateway.New(gateway.Options{Control: p.link, Site: route.Site{Main: settings.Project}, SessionKey: settings.SessionKey,
		Name: p.identity.ID, Dialer: p.dialer, Log: p.log})
	p.keeper, err = certificate.New(certificate.Options{
		Storage:  p.link.Storage(),
		ACME:     parseACMESettings(settings.ACME),
		HTTPPort: p.httpPort, HTTPSPort: p.httpsPort, Wants: p.wantsCertificate, SessionKey: settings.TicketKey, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.front = frontend.New(frontend.Options{
		Handler: p, TLS: p.keeper.TLSConfig(), Find: p.findName, Covers: p.keeper.Covers, Challenges: p.keeper.ChallengeHandler,
		Host: p.host, HTTPSPort: p.httpsPort, HTTPPort: p.httpPort, ConnContext: gateway.WithConn, Listen: p.sockets.Listen, Log: p.log,
		FastPath: p.fastPath(),
	})
	return nil
}

// fastPath returns what puts the fast path in front of the http port; nil: it is off.
func (p *gatewayProcess) fastPath() func(net.Listener) (frontend.FastListener, error) {
	if !p.hasFastPath {
		return nil
	}
	options := gateway.DirectorOptions{
		Accepts: func(host string, x *relay.Exchange) bool {
			return p.findName(host) == frontend.PlainName && !isChallenge(x)
		},
		IsLast: p.isReplaced, Began: func() { p.requests.begin() }, Ended: p.requests.end,
	}
	return func(l net.Listener) (frontend.FastListener, error) { return openFastPort(l, p.gateway, options) }
}

// ServeHTTP serves a request at a name of the gateway.
func (p *gatewayProcess) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer p.requests.begin()()
	p.markLastResponse(w, r)
	p.gateway.ServeHTTP(w, r)
}

// findName says what the frontend serves at a host.
func (p *gatewayProcess) findName(host string) frontend.Name {
	g, ok := p.gateway.FindGateway(host)
	switch {
	case !ok:
		return frontend.UnknownName
	case g.IsPlain:
		return frontend.PlainName
	}
	return frontend.SecureName
}

// wantsCertificate reports whether a name has something to serve.
func (p *gatewayProcess) wantsCertificate(name string) bool { return p.gateway.Publishes(name) }

// describe sets the certificates, the problems and the ports in a report of the process.
func (p *gatewayProcess) describe(report *api.GatewayReport) {
	settings, _ := p.link.Settings()
	report.Certificates, report.Problems = p.keeper.Statuses(settings.Gateway), p.front.Problems()
	hasHTTPS, hasHTTP := p.front.IsOpen()
	if hasHTTPS && settings.Certificate != nil {
		report.HTTPSPort = p.front.HTTPSPort()
	}
	if hasHTTP {
		report.HTTPPort = p.front.HTTPPort()
	}
}

// settingsPause is how long changes of the settings are collected.
const settingsPause = 100 * time.Millisecond

// followSettings makes the certificates and the ports those that the server says.
func (p *gatewayProcess) followSettings(ctx context.Context) error {
	select {
	case <-p.gateway.Ready(): // before that, there are no names
	case <-ctx.Done():
		return ctx.Err()
	}
	for isFirst := true; ; isFirst = false {
		settings, changed := p.link.Settings()
		p.gateway.SetSessionKey(settings.SessionKey)
		p.keeper.SetSessionKey(settings.TicketKey)
		if err := p.keeper.SetACME(parseACMESettings(settings.ACME)); err != nil {
			p.log.Error("cannot use the ACME server that the settings have now; the one before stays", "err", err)
		}
		names := p.gateway.PublishedNames()
		p.keeper.SetDomains(newCertificateDomains(settings, names))
		if isFirst {
			if err := p.replaceRunning(ctx, settings, names); err != nil {
				return err
			}
		}
		p.front.SetWanted(needsTLS(settings), true)
		if isFirst {
			fmt.Fprintf(p.out, " dstack %s · gateway %s of project %s · *.%s · data in %s\n", currentVersion(), settings.Name, settings.Project, settings.Domain, p.dir)
			p.notify(sdnotify.Ready, sdnotify.Status("serving *."+settings.Domain))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := loop.Sleep(ctx, settingsPause); err != nil {
			return err
		}
	}
}

// drain ends the requests of a gateway that stops: it accepts no connections, refuses requests that wait for a replica,
// lets the others finish, and cuts the rest. A process that was replaced has more time, until interrupted ends, too.
func (p *gatewayProcess) drain(ctx, interrupted context.Context) {
	if p.front == nil { // nothing is served yet
		return
	}
	timeout := gatewayDrainTimeout
	if p.isReplaced() {
		timeout = server.DefaultTakeOverDrainTimeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p.stopAccepting()
	if p.isReplaced() {
		defer context.AfterFunc(interrupted, func() {
			_ = loop.Sleep(limited, gatewayDrainTimeout)
			cancel()
		})()
		_ = loop.Sleep(limited, idleGrace)
		p.requests.waitIdle(limited)
	} else {
		p.notify(sdnotify.Stopping, sdnotify.Status("finishing requests"))
		p.gateway.RefuseWaiting()
	}
	var group errgroup.Group
	group.Go(func() error { p.front.Drain(limited); return nil })
	if left := p.requests.waitIdle(limited); left > 0 {
		p.log.Warn("requests were cut off because the gateway stops", "requests", left, "drain_timeout", timeout)
	}
	_ = group.Wait() // it has no error
	p.front.Close()
}
