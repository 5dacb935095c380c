package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// publishedStates has the state of each gateway that processes on other machines follow. It is safe for concurrent use.
type publishedStates struct {
	mu  sync.Mutex
	all map[dstack.GatewayID]*publishedState
}

func (p *publishedStates) of(gateway dstack.GatewayID) *publishedState {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[dstack.GatewayID]*publishedState{}
	}
	state := p.all[gateway]
	if state == nil {
		state = &publishedState{gateway: gateway, epoch: uuid.NewString(), parts: map[string]publishedPart{}, removed: map[string]uint64{}}
		p.all[gateway] = state
	}
	return state
}

// publishedState is the state of one gateway, in parts, and when each of them changed.
type publishedState struct {
	gateway dstack.GatewayID
	epoch   string // of the versions: of this server, since its start

	mu           sync.Mutex
	version      uint64 // 0: nothing is published yet
	oldest       uint64 // the oldest version since which all changes are known
	parts        map[string]publishedPart
	removed      map[string]uint64 // version by name
	digest       string
	tableVersion uint64 // of the whole table
	drains       int64
	readAt       time.Time // when what is not in the table was read
}

type publishedPart struct {
	text      json.RawMessage
	digest    [sha256.Size]byte
	changedAt uint64       // version
	route     *route.Route // of which text is the JSON
}

// updatePublished reads the table, and what else belongs to the state, if it may have changed.
func (s *Server) updatePublished(ctx context.Context, p *publishedState, changed <-chan struct{}) error {
	table, err := s.readRoutes(ctx, changed)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.version > 0 && p.tableVersion == table.Version && time.Since(p.readAt) < maxTableAge {
		return nil
	}
	part := table.FilterFor(p.gateway)
	for i := range part.Gateways {
		if part.Gateways[i].TrustedProxies == nil {
			part.Gateways[i].TrustedProxies = s.proxies.Trusted
		}
	}
	settings, err := s.readGatewaySettings(ctx, p.gateway)
	if err != nil {
		return err
	}
	hosts, err := s.readTargetHosts(ctx, part)
	if err != nil {
		return err
	}
	update := stateUpdate{state: p, version: p.version + 1, kept: make(map[string]bool, len(p.parts))}
	for i := range part.Routes {
		update.putRoute(&part.Routes[i])
	}
	part.Routes, part.Tokens = part.Routes[:0:0], nilIfEmpty(part.Tokens)
	update.put(api.PartSettings, settings)
	update.put(api.PartTokens, part.Tokens)
	update.put(api.PartKeys, part.Keys)
	update.put(api.PartGateways, part.Gateways)
	update.put(api.PartProjects, part.Projects)
	for _, h := range hosts {
		update.put(api.PartHostPrefix+h.ID, h)
	}
	if update.err != nil {
		return update.err
	}
	update.finish()
	p.tableVersion, p.drains, p.readAt = table.Version, table.DrainSequence, time.Now()
	return nil
}

func nilIfEmpty(tokens map[string][]string) map[string][]string {
	if len(tokens) == 0 {
		return nil
	}
	return tokens
}

// stateUpdate compares the parts of a published state with new ones.
type stateUpdate struct {
	state     *publishedState
	version   uint64
	kept      map[string]bool
	isChanged bool
	err       error
}

// putRoute is put for a route. Routes that did not change are not encoded again.
func (u *stateUpdate) putRoute(r *route.Route) {
	name := api.PartRoutePrefix + string(r.Run)
	if last, ok := u.state.parts[name]; ok && last.route.IsSame(r) {
		u.kept[name] = true
		return
	}
	text, err := json.Marshal(r)
	if err != nil {
		u.err = fmt.Errorf("encode the route of run %s: %w", r.Run, err)
		return
	}
	copied := *r
	u.putText(name, text, &copied)
}

// put sets a part.
func (u *stateUpdate) put(name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		u.err = fmt.Errorf("encode the part %s of a state: %w", name, err)
		return
	}
	u.putText(name, text, nil)
}

func (u *stateUpdate) putText(name string, text json.RawMessage, r *route.Route) {
	u.kept[name] = true
	digest := api.DigestPart(text)
	if last, ok := u.state.parts[name]; ok && last.digest == digest {
		return
	}
	u.state.parts[name] = publishedPart{text: text, digest: digest, changedAt: u.version, route: r}
	delete(u.state.removed, name)
	u.isChanged = true
}

// maxRemovedParts bounds what is remembered of parts that are gone. A process that missed more gets everything.
const maxRemovedParts = 10_000

// finish removes the parts that were not put, and makes the changes visible.
func (u *stateUpdate) finish() {
	p := u.state
	for name := range p.parts {
		if !u.kept[name] {
			delete(p.parts, name)
			p.removed[name] = u.version
			u.isChanged = true
		}
	}
	if !u.isChanged {
		return
	}
	p.version = u.version
	if p.oldest == 0 || len(p.removed) > maxRemovedParts {
		p.oldest, p.removed = p.version, map[string]uint64{}
	}
	digests := make(map[string][sha256.Size]byte, len(p.parts))
	for name, part := range p.parts {
		digests[name] = part.digest
	}
	p.digest = api.DigestParts(digests)
}

func (p *publishedState) cursor() string { return p.epoch + ":" + strconv.FormatUint(p.version, 10) }

// answer returns what a process lacks that has the state of a cursor; isNew is false if it lacks nothing.
func (p *publishedState) answer(o LinkOptions, process dstack.GatewayProcess, cursor string) (answer api.GatewayState, isNew bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cursor == p.cursor() {
		return answer, false
	}
	since, isKnown := p.parseCursor(cursor)
	answer = api.GatewayState{Cursor: p.cursor(), Complete: !isKnown}
	for name, part := range p.parts {
		if !isKnown || part.changedAt > since {
			answer.Parts = append(answer.Parts, api.StatePart{Name: name, Text: part.text})
		}
	}
	for name, at := range p.removed {
		if isKnown && at > since {
			answer.Removed = append(answer.Removed, name)
		}
	}
	p.sign(o, process, &answer)
	return answer, true
}

// unchanged returns the answer for a process that waited and lacks nothing.
func (p *publishedState) unchanged(o LinkOptions, process dstack.GatewayProcess) api.GatewayState {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := api.GatewayState{Cursor: p.cursor()}
	p.sign(o, process, &answer)
	return answer
}

// parseCursor returns the version of a cursor if all changes since are known.
func (p *publishedState) parseCursor(cursor string) (since uint64, isKnown bool) {
	epoch, text, _ := strings.Cut(cursor, ":")
	since, err := strconv.ParseUint(text, 10, 64)
	return since, err == nil && epoch == p.epoch && since >= p.oldest && since <= p.version
}

func (p *publishedState) sign(o LinkOptions, process dstack.GatewayProcess, answer *api.GatewayState) {
	header, err := json.Marshal(api.StateHeader{Process: process.ID, Host: string(process.Host), ServerMachine: o.Machine,
		TableVersion: p.tableVersion, DrainSequence: p.drains, At: now(), Digest: p.digest})
	if err != nil { // it consists of texts, numbers and a time
		panic(err)
	}
	answer.Header = string(header)
	answer.Signature = ed25519.Sign(o.StateKey, []byte(api.StateContext+answer.Header))
	answer.Key = o.StateKey.Public().(ed25519.PublicKey)
}

// readGatewaySettings returns how processes serve a gateway.
func (s *Server) readGatewaySettings(ctx context.Context, id dstack.GatewayID) (api.GatewaySettings, error) {
	g, err := s.store.Gateway(ctx, id)
	if err != nil {
		return api.GatewaySettings{}, err
	}
	settings := api.GatewaySettings{Gateway: g.ID, Project: g.ProjectName, Name: g.Name, Domain: g.Domain, ACME: s.links.ACME,
		ServerURL: s.site.Server.String(), TrustedProxies: g.Configuration.TrustedProxies, OfflineSeconds: int(s.links.Offline / time.Second)}
	if settings.TrustedProxies == nil {
		for _, prefix := range s.proxies.Trusted {
			settings.TrustedProxies = append(settings.TrustedProxies, prefix.String())
		}
	}
	if settings.SessionKey, err = s.links.DeriveKey("gateway sessions " + string(id)); err != nil {
		return api.GatewaySettings{}, err
	}
	if settings.TicketKey, err = s.links.DeriveKey("gateway tls sessions " + string(id)); err != nil {
		return api.GatewaySettings{}, err
	}
	if settings.Certificate, err = s.resolveCertificate(ctx, g); err != nil {
		return api.GatewaySettings{}, err
	}
	for _, e := range g.Earlier {
		settings.Earlier = append(settings.Earlier, api.EarlierDomain{Domain: e.Domain, Certificate: newGatewayCertificate(e.Certificate)})
	}
	if c := settings.Certificate; c != nil && c.Type == spec.CertificateInternal && g.Domain != "" && s.links.PrepareAuthority != nil {
		err = s.links.PrepareAuthority(ctx, g.Domain)
	}
	return settings, err
}

// resolveCertificate returns the source of a gateway's certificates with the values of its secrets. A secret that does
// not exist is empty: obtaining the certificate then fails, and says so.
func (s *Server) resolveCertificate(ctx context.Context, g dstack.Gateway) (*api.GatewayCertificate, error) {
	source := g.Configuration.Certificate
	if source == nil {
		return nil, nil
	}
	if names := g.Configuration.SecretNames(); len(names) > 0 {
		values, err := s.store.CurrentSecretValues(ctx, g.Project, names)
		if err != nil {
			return nil, err
		}
		source, _ = source.ResolveSecrets(func(name string) (string, bool) { return values[name], true })
	}
	return newGatewayCertificate(source), nil
}

func newGatewayCertificate(source *spec.Certificate) *api.GatewayCertificate {
	if source == nil {
		return nil
	}
	c := &api.GatewayCertificate{Type: source.Type, Email: string(source.Email), Cert: source.Cert, Key: source.Key}
	if source.DNS != nil {
		c.DNS = &api.GatewayDNS{Provider: source.DNS.Provider, Settings: source.DNS.Settings}
	}
	return c
}

// readTargetHosts returns the hosts of fleets that the targets of a table are on, with their logins, and the clusters.
func (s *Server) readTargetHosts(ctx context.Context, table route.Table) ([]api.GatewayHost, error) {
	needed := map[string]bool{}
	for _, r := range table.Routes {
		for _, t := range r.Ready {
			if t.Host != "" {
				needed[t.Host] = true
			}
		}
	}
	if len(needed) == 0 {
		return nil, nil
	}
	all, err := s.store.ListHosts(ctx)
	if err != nil {
		return nil, err
	}
	var hosts []api.GatewayHost
	if s.links.Clusters != nil {
		for key, authorities := range s.links.Clusters() {
			if needed[key] && len(authorities) > 0 {
				hosts = append(hosts, api.GatewayHost{ID: key, Authorities: authorities})
			}
		}
	}
	for _, h := range all {
		if needed[string(h.ID)] && h.Login.PrivateKey != "" {
			hosts = append(hosts, api.GatewayHost{ID: string(h.ID), Login: h.Login, Jump: h.Jump})
		}
	}
	slices.SortFunc(hosts, func(a, b api.GatewayHost) int { return strings.Compare(a.ID, b.ID) })
	return hosts, nil
}
