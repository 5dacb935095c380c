package server

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// LinkOptions configure what gateway processes on other machines get.
type LinkOptions struct {
	// StateKey signs their states. Zero: no process can join.
	StateKey ed25519.PrivateKey
	// DeriveKey returns a secret for one purpose, the same for all servers of the installation.
	DeriveKey   func(purpose string) ([]byte, error)
	Fingerprint string        // of the installation authority; empty: there is none
	ACME        api.ACME      // for certificates
	Offline     time.Duration // for how long they accept tokens without word from a server; 0: a day
	Machine     string        // of this server; see gatewaylink.MachineID
	// Dial connects to a replica, for processes that cannot reach it.
	Dial func(ctx context.Context, e dstack.Endpoint) (net.Conn, error)
	// Clusters returns the fingerprints of the authorities of each cluster, by the host of its endpoints; nil: there is no cluster. See
	// netplace.FingerprintAuthorities.
	Clusters func() map[string][]string
	// Certificates is the storage for certificates, which the processes of a gateway share; nil: there is none.
	Certificates CertificateStorage
	// PrepareAuthority makes the internal authority ready to issue certificates below a domain; nil: it cannot.
	PrepareAuthority func(ctx context.Context, domain string) error
	// Authority returns the root of the internal authority in PEM; nil: there is none.
	Authority func(ctx context.Context) ([]byte, error)
}

// defaultOffline is the default of LinkOptions.Offline.
const defaultOffline = 24 * time.Hour

// newProcessOperation returns an operation that gateway processes call. Its body may have fields that this version
// does not know, because a process may be newer than the server.
func newProcessOperation[In, Out any](path string, handle func(*Server, *apiCall, In) (Out, error), summary string) apiOperation {
	return apiOperation{method: http.MethodPost, path: path, level: access.LevelGatewayProcess, maxBody: maxRunBodyBytes, summary: summary,
		requestType: reflect.TypeFor[In](), responseType: reflect.TypeFor[Out](),
		handle: func(s *Server, c *apiCall) error {
			var in In
			text, err := io.ReadAll(c.r.Body)
			if err != nil {
				return toBodyError(err, c.operation.maxBody)
			}
			c.setReadDeadline(0)
			if err := json.Unmarshal(text, &in); err != nil {
				return &dstack.Error{Kind: dstack.Invalid, Message: "the request of the gateway process is malformed", Cause: err}
			}
			out, err := handle(s, c, in)
			if err != nil {
				return err
			}
			s.respondJSON(c.w, http.StatusOK, out)
			return nil
		}}
}

// authorizeProcess finds the gateway process whose credential a request has. A credential that never existed is
// Unauthorized; that of a process that was removed is Forbidden, and the process ends.
func (s *Server) authorizeProcess(c *apiCall) error {
	scheme, credential, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	credential = strings.TrimSpace(credential)
	if !strings.EqualFold(scheme, "Bearer") || credential == "" {
		return newProcessError(dstack.Unauthorized, "the request has no credential of a gateway process", "")
	}
	p, err := s.store.FindGatewayProcess(c.ctx, HashToken(credential))
	switch {
	case dstack.KindOf(err) == dstack.NotFound:
		return newProcessError(dstack.Unauthorized, "the server does not know this gateway process",
			"join again: dstack gateway token NAME; or check that the server has its own database")
	case err != nil:
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err, Message: "the server cannot check the credential", Hint: "try again in a moment"}
	case p.IsRemoved:
		return newProcessError(dstack.Forbidden, "this process was removed from its gateway, or the gateway was deleted",
			"join another one: dstack gateway token NAME")
	}
	c.process = p
	return nil
}

func newProcessError(kind dstack.Kind, message, hint string) error {
	return wire.StatusError{Status: http.StatusForbidden, Detail: wire.Message{Msg: "Access denied"},
		Err: &dstack.Error{Kind: kind, Message: message, Hint: hint}}
}

// getGatewayState answers with the state of a process' gateway once it is another one than the process has.
func (s *Server) getGatewayState(c *apiCall, in api.GatewayStateRequest) (api.GatewayState, error) {
	var none api.GatewayState
	if err := gateway.CheckVersions(in.Version, s.version); err != nil {
		return none, err
	}
	if len(s.links.StateKey) == 0 {
		return none, &dstack.Error{Kind: dstack.Unsupported, Message: "this server has no gateways on other machines"}
	}
	deadline := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
	defer deadline.Stop()
	defer c.endWhenStopping()()
	published := s.published.of(c.process.Gateway)
	for {
		changed := s.broadcast.Changed()
		if err := s.updatePublished(c.ctx, published, changed); err != nil {
			return none, err
		}
		if answer, isNew := published.answer(s.links, c.process, in.Cursor); isNew {
			return answer, nil
		}
		again := time.NewTimer(maxTableAge)
		select {
		case <-changed:
			again.Stop()
			continue
		case <-again.C:
			if err := s.authorizeProcess(c); err != nil { // it may have been removed meanwhile
				return none, err
			}
			continue
		case <-deadline.C:
		case <-c.ctx.Done():
			again.Stop()
			return none, c.ctx.Err()
		}
		again.Stop()
		return published.unchanged(s.links, c.process), nil
	}
}

// reportGatewayProcess saves what a process counts and how it is.
func (s *Server) reportGatewayProcess(c *apiCall, in api.GatewayReport) (api.GatewayReported, error) {
	p := c.process
	if in.Apart != 0 {
		return api.GatewayReported{}, s.reportApart(c, in)
	}
	if in.Leaving {
		err := s.store.MarkGatewayProcessGone(c.ctx, p, now())
		s.notifyChange()
		return api.GatewayReported{}, err
	}
	in.Load.Gateway = p.ID
	table, err := s.readRoutes(c.ctx, s.broadcast.Changed())
	if err != nil {
		return api.GatewayReported{}, err
	}
	load, err := s.Report(c.ctx, table.FilterReport(p.Gateway, ownCounters(p, in.Load)))
	if err != nil {
		return api.GatewayReported{}, err
	}
	p.Version, p.TableVersion, p.Certificates, p.Problems = in.Version, in.TableVersion, in.Certificates, in.Problems
	p.HTTPSPort, p.HTTPPort = in.HTTPSPort, in.HTTPPort
	if isNews, mustNotify := s.processReports.note(p, now()); isNews {
		if err := s.store.SaveGatewayProcess(c.ctx, p, now()); err != nil {
			return api.GatewayReported{}, err
		}
		if mustNotify {
			s.notifyChange()
		}
	}
	return api.GatewayReported{Load: load}, nil
}

// reportApart saves what a replaced process of a gateway finishes, under a name of its own: the process that has replaced it
// reports under that of the process.
func (s *Server) reportApart(c *apiCall, in api.GatewayReport) error {
	name := c.process.ID + "/" + strconv.Itoa(in.Apart)
	if in.Leaving {
		return s.store.ForgetGateway(c.ctx, name)
	}
	table, err := s.readRoutes(c.ctx, s.broadcast.Changed())
	if err != nil {
		return err
	}
	in.Load.Gateway = name
	_, err = s.Report(c.ctx, table.FilterReport(c.process.Gateway, ownCounters(c.process, in.Load)))
	return err
}

// ownCounters returns a report whose counters have names that no other process can give to its own.
func ownCounters(p dstack.GatewayProcess, load dstack.LoadReport) dstack.LoadReport {
	if load.Counter != "" {
		load.Counter = p.ID + "/" + load.Counter
	}
	earlier := load.EarlierKeys
	load.EarlierKeys = make(map[string]map[dstack.CallerKeyID]dstack.KeyCounts, len(earlier))
	for counter, counts := range earlier {
		load.EarlierKeys[p.ID+"/"+counter] = counts
	}
	return load
}

// saveProcessEvery is how often the report of a process is saved that says nothing new.
const saveProcessEvery = 3 * time.Second

// processReports remembers what was saved of processes. It is safe for concurrent use.
type processReports struct {
	mu   sync.Mutex
	last map[string]savedReport // by process
}

type savedReport struct {
	process dstack.GatewayProcess
	at      time.Time
}

// note reports whether to save a report, and whether others wait for what is new in it.
func (r *processReports) note(p dstack.GatewayProcess, now time.Time) (isNews, mustNotify bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, isKnown := r.last[p.ID]
	mustNotify = !isKnown || last.process.Version != p.Version || last.process.HTTPSPort != p.HTTPSPort || last.process.HTTPPort != p.HTTPPort ||
		!slices.Equal(last.process.Problems, p.Problems) ||
		!reflect.DeepEqual(last.process.Certificates, p.Certificates)
	if isNews = mustNotify || now.Sub(last.at).Abs() >= saveProcessEvery; !isNews {
		return false, false
	}
	if r.last == nil || len(r.last) >= maxProcessReports {
		r.last = map[string]savedReport{}
	}
	r.last[p.ID] = savedReport{p, now}
	return true, mustNotify
}

const maxProcessReports = 10_000

// connectGatewayProcess connects a process with a replica of its gateway that it cannot reach.
func (s *Server) connectGatewayProcess(c *apiCall) error {
	endpoint := dstack.Endpoint{Host: c.r.URL.Query().Get("host"), Address: c.r.URL.Query().Get("address")}
	if !strings.EqualFold(c.r.Header.Get("Upgrade"), api.UpgradeConnect) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "this call needs the header Upgrade: " + api.UpgradeConnect}
	}
	table, err := s.readRoutes(c.ctx, s.broadcast.Changed())
	if err != nil {
		return err
	}
	isTarget := false
	for _, r := range table.FilterFor(c.process.Gateway).Routes {
		for _, t := range r.Ready {
			isTarget = isTarget || t.Endpoint == endpoint
		}
	}
	if !isTarget || s.links.Dial == nil {
		return &dstack.Error{Kind: dstack.NotFound, Message: "this is no replica of the gateway"}
	}
	ctx, cancel := context.WithTimeout(c.ctx, connectTimeout)
	defer cancel()
	replica, err := s.links.Dial(ctx, endpoint)
	if err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the replica cannot be reached: " + err.Error(), Cause: err}
	}
	defer replica.Close()
	conn, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(c.ctx, func() { _ = conn.Close(); _ = replica.Close() })()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil
	}
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.UpgradeConnect + "\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		return nil
	}
	pipeConnections(conn, io.MultiReader(io.LimitReader(buffered, int64(buffered.Reader.Buffered())), conn), replica)
	return nil
}

const connectTimeout = 5 * time.Second

// pipeConnections copies between a client, whose first bytes were read already, and a replica until both directions
// have ended.
func pipeConnections(client net.Conn, fromClient io.Reader, replica net.Conn) {
	var copies sync.WaitGroup
	copies.Go(func() { _, _ = io.Copy(replica, fromClient); closeWrite(replica) })
	_, _ = io.Copy(client, replica)
	closeWrite(client)
	copies.Wait()
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return
	}
	_ = conn.Close()
}
