package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dstack/internal/certificate"
	decide "dstack/internal/decide/gateway"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/frontend"
	"dstack/internal/gateway"
	"dstack/internal/loop"
	"dstack/internal/relay"
	"dstack/internal/spec"
)

// published serves the gateways with `backend: local` in the server's process: it opens the published ports while a
// gateway needs them, keeps the certificates, and reports both to the store.
type published struct {
	daemon   *daemon
	site     route.Site
	keeper   *certificate.Keeper
	frontend *frontend.Frontend
	changes  *loop.Broadcast

	served   atomic.Pointer[servedGateways]
	mu       sync.Mutex
	reported map[dstack.GatewayID]time.Time // when its report was saved last
}

// servedGateways are the gateways that this process serves.
type servedGateways struct {
	ids map[dstack.GatewayID]bool
	// server is the gateway at whose domain, or below it, the server itself is; empty: none.
	server        dstack.GatewayID
	serverIsPlain bool
}

func (d *daemon) newPublished() (*published, error) {
	p := &published{daemon: d, site: d.site(), changes: d.changes, reported: map[dstack.GatewayID]time.Time{}}
	p.served.Store(&servedGateways{})
	sessions, err := d.sealer.DeriveKey("tls sessions of gateways")
	if err != nil {
		return nil, err
	}
	acme, err := readACME()
	if err != nil {
		return nil, err
	}
	p.keeper, err = certificate.New(certificate.Options{
		Storage: d.store.Certificates(), ACME: acme, HTTPPort: d.ports.http, HTTPSPort: d.ports.https, Wants: p.wantsCertificate, SessionKey: sessions, Log: d.log,
	})
	if err != nil {
		return nil, err
	}
	p.frontend = frontend.New(frontend.Options{
		Handler: http.HandlerFunc(d.servePublished), TLS: p.keeper.TLSConfig(), Challenges: p.keeper.ChallengeHandler,
		Find: p.findName, Covers: p.keeper.Covers, WhatIsMissing: p.explainMissing,
		Host: d.ports.host, HTTPSPort: d.ports.https, HTTPPort: d.ports.http, Listen: d.sockets.Listen, ConnContext: gateway.WithConn, Log: d.log,
		BaseContext: func(net.Listener) context.Context { return d.uncut }, FastPath: p.fastPath(),
	})
	return p, nil
}

// fastPath returns what puts the fast path in front of the http port; nil: it is off. Names of the server itself and challenges
// are not for it.
func (p *published) fastPath() func(net.Listener) (frontend.FastListener, error) {
	if !p.daemon.hasFastPath {
		return nil
	}
	accepts := func(host string, x *relay.Exchange) bool {
		return !p.site.IsServer(host) && p.findName(host) == frontend.PlainName && !isChallenge(x)
	}
	return func(l net.Listener) (frontend.FastListener, error) {
		return openFastPort(l, p.daemon.gateway, p.daemon.directorOptions(accepts))
	}
}

// tasks are to run until the server is drained.
func (p *published) tasks() []loop.Task {
	return slices.Concat([]loop.Task{{Name: "local gateways", Run: p.followStore}}, p.frontend.Tasks(), p.keeper.Tasks())
}

// Intervals of the pass over the local gateways.
const (
	minPublishedInterval = 100 * time.Millisecond
	maxPublishedInterval = time.Second
	// publishedReportInterval is how often a report is saved that did not change. It is less than dstack.GatewaySilence.
	publishedReportInterval = 4 * time.Second
)

// followStore keeps what this process serves as the store has it. While the store does not answer, everything stays.
func (p *published) followStore(ctx context.Context) error {
	select {
	case <-p.daemon.gateway.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	var failures loop.RepeatFilter
	for {
		changed := p.changes.Changed()
		if err := p.updateGateways(ctx); err == nil {
			failures.Forget("")
		} else if skipped, ok := failures.Admit("", err.Error(), time.Now()); ok && ctx.Err() == nil {
			p.daemon.log.Warn("cannot update the local gateways; they are served as before", "err", err, "not_logged", skipped)
		}
		if err := loop.Sleep(ctx, minPublishedInterval); err != nil {
			return err
		}
		if err := loop.SleepUntil(ctx, maxPublishedInterval, changed); err != nil {
			return err
		}
	}
}

// updateGateways is one pass: it serves the local gateways as the store has them, and reports how.
func (p *published) updateGateways(ctx context.Context) error {
	if p.daemon.isReplaced() { // the process that replaced this one serves them
		return nil
	}
	began := time.Now() // what this pass reports is at least as new
	all, err := p.daemon.store.ListGateways(ctx)
	if err != nil {
		return err
	}
	table, err := p.daemon.server.Table(ctx, 0)
	if err != nil {
		return err
	}
	local, going := chooseLocal(all)
	if slices.ContainsFunc(all, func(g dstack.Gateway) bool { return decide.HasEnded(g, began) }) {
		if err := p.daemon.store.EndEarlierDomains(ctx, began); err != nil {
			return err
		}
		p.changes.Notify()
	}
	var domains []certificate.Domain
	served := &servedGateways{ids: map[dstack.GatewayID]bool{}}
	needsTLS, needsHTTP := false, false
	for _, g := range local {
		own, err := p.domainsOf(ctx, g, table)
		if err != nil {
			return err
		}
		for i, d := range own {
			if server, ok := serverBelow(p.site, d.Name); ok {
				own[i].Names = append(own[i].Names, server)
				if served.server == "" || !d.IsEarlier {
					served.server, served.serverIsPlain = g.ID, d.Certificate == nil
				}
			}
		}
		domains = append(domains, own...)
		served.ids[g.ID] = true
		needsTLS = needsTLS || hasTLS(g)
		needsHTTP = true // for redirects, challenges, and gateways without a certificate
	}
	p.served.Store(served)
	p.keeper.SetDomains(domains)
	p.frontend.SetWanted(needsTLS, needsHTTP)
	if err := p.frontend.WaitForPorts(ctx); err != nil {
		return err
	}
	return p.saveReports(ctx, local, going, table.Version, began)
}

// chooseLocal returns the gateways that this process serves, and those that it is to forget.
func chooseLocal(all []dstack.Gateway) (local, going []dstack.Gateway) {
	for _, g := range all {
		switch {
		case g.Configuration.Backend != spec.BackendLocal || g.Domain == "":
		case g.IsDeleting:
			going = append(going, g)
		default:
			local = append(local, g)
		}
	}
	return local, going
}

// serverBelow returns the name of the server itself if it is a domain or below it.
func serverBelow(site route.Site, domain string) (string, bool) {
	name := strings.ToLower(hostOf(site.Server.Host))
	return name, site.Server.Scheme == "https" && (name == domain || strings.HasSuffix(name, "."+domain))
}

// domainsOf returns the domain of a gateway, and those that it had and goes on serving for a while.
func (p *published) domainsOf(ctx context.Context, g dstack.Gateway, table route.Table) ([]certificate.Domain, error) {
	present, err := p.domainOf(ctx, g, table)
	domains := []certificate.Domain{present}
	for _, e := range g.Earlier {
		domains = append(domains, certificate.Domain{Gateway: g.ID, Name: e.Domain, Certificate: e.Certificate, IsEarlier: true,
			Names: table.PublishedNames(route.Gateway{ID: g.ID, Project: g.ProjectName, Domain: e.Domain})})
	}
	return domains, err
}

// domainOf returns for which names a gateway needs certificates, and their source.
func (p *published) domainOf(ctx context.Context, g dstack.Gateway, table route.Table) (certificate.Domain, error) {
	d := certificate.Domain{Gateway: g.ID, Name: g.Domain, Certificate: g.Configuration.Certificate}
	if d.Certificate == nil {
		return d, nil
	}
	if names := g.Configuration.SecretNames(); len(names) > 0 {
		values, err := p.daemon.store.CurrentSecretValues(ctx, g.Project, names)
		if err != nil {
			return d, err
		}
		// A secret that does not exist is empty: obtaining the certificate then fails, and says so.
		d.Certificate, _ = d.Certificate.ResolveSecrets(func(name string) (string, bool) { return values[name], true })
	}
	d.Names = table.PublishedNames(route.Gateway{ID: g.ID, Project: g.ProjectName, Domain: g.Domain})
	return d, nil
}

// saveReports saves how this process serves each gateway, as of a time before the gateways were read: a later change of theirs is
// not in the report.
func (p *published) saveReports(ctx context.Context, local, going []dstack.Gateway, version uint64, now time.Time) error {
	https, http := p.frontend.IsOpen()
	for _, g := range local {
		process := dstack.GatewayProcess{ID: p.daemon.gatewayName, Gateway: g.ID, Name: machineName(), Version: currentVersion(), TableVersion: version,
			Certificates: p.keeper.Statuses(g.ID), Problems: p.frontend.Problems()}
		if https && g.Configuration.Certificate != nil {
			process.HTTPSPort = p.frontend.HTTPSPort()
		}
		if http {
			process.HTTPPort = p.frontend.HTTPPort()
		}
		if !p.needsReport(g, process, now) {
			continue
		}
		if err := p.daemon.store.SaveGatewayProcess(ctx, process, now); err != nil {
			return err
		}
		p.setReported(g.ID, now)
	}
	for _, g := range going {
		if slices.ContainsFunc(g.Processes, func(known dstack.GatewayProcess) bool { return known.ID == p.daemon.gatewayName }) {
			if err := p.daemon.store.RemoveGatewayProcess(ctx, g.ID, p.daemon.gatewayName); err != nil {
				return err
			}
		}
	}
	return nil
}

// needsReport reports whether the store knows something else, or nothing since a while or since the gateway changed.
func (p *published) needsReport(g dstack.Gateway, process dstack.GatewayProcess, now time.Time) bool {
	at := slices.IndexFunc(g.Processes, func(known dstack.GatewayProcess) bool { return known.ID == process.ID })
	if at < 0 {
		return true
	}
	known := g.Processes[at]
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.reported[g.ID]) >= publishedReportInterval || !p.reported[g.ID].After(g.AppliedAt) || known.HTTPSPort != process.HTTPSPort || known.HTTPPort != process.HTTPPort ||
		!slices.Equal(known.Problems, process.Problems) ||
		!slices.EqualFunc(known.Certificates, process.Certificates, func(a, b dstack.CertificateStatus) bool {
			return a.Name == b.Name && a.State == b.State && a.Reason == b.Reason && a.Queue == b.Queue && a.IsEarlier == b.IsEarlier && a.NotAfter.Equal(b.NotAfter)
		})
}

func (p *published) setReported(id dstack.GatewayID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reported[id] = now
}

// findName says what this process serves at a host of the published ports.
func (p *published) findName(host string) frontend.Name {
	if !route.IsValidHost(host) {
		return frontend.UnknownName
	}
	served := p.served.Load()
	if p.site.IsServer(host) {
		switch {
		case served.server == "":
			return frontend.UnknownName
		case served.serverIsPlain:
			return frontend.PlainName
		}
		return frontend.SecureName
	}
	g, ok := p.daemon.gateway.FindGateway(host)
	switch {
	case !ok || !served.ids[g.ID]:
		return frontend.UnknownName
	case g.IsPlain:
		return frontend.PlainName
	}
	return frontend.SecureName
}

// wantsCertificate reports whether a name may get a certificate although no run has it yet: only a run's name may, which the table has.
func (p *published) wantsCertificate(name string) bool {
	return p.daemon.gateway.Publishes(name) && p.findName(name) == frontend.SecureName
}

// explainMissing says why there is no certificate for a name.
func (p *published) explainMissing(name string) string {
	id := p.served.Load().server
	if g, ok := p.daemon.gateway.FindGateway(name); ok {
		id = g.ID
	}
	_, parent, _ := strings.Cut(name, ".")
	for _, c := range p.keeper.Statuses(id) {
		if c.Name == name || c.Name == "*."+parent {
			return c.Reason
		}
	}
	return ""
}

// servePublished serves a request at one of the names that findName knows.
func (d *daemon) servePublished(w http.ResponseWriter, r *http.Request) {
	if d.published.site.IsServer(r.Host) {
		d.ServeHTTP(w, r)
		return
	}
	defer d.requests.begin()()
	d.markLastResponse(w, r)
	d.gateway.ServeHTTP(w, r) // never the API, even if the gateway is gone meanwhile
}
