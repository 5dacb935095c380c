package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/gatewaylink"
	"dstack/internal/loop"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// newLinkServer returns a server that gateway processes can join, with the gateway edge of the project main.
func newLinkServer(t testing.TB, change ...func(*Options)) (*testServer, dstack.Gateway) {
	t.Helper()
	h := newTestServer(t, append([]func(*Options){func(o *Options) {
		o.Version = "0.2.0-dev"
		o.Links = LinkOptions{StateKey: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Dial: (&dial.Dialer{}).Dial,
			DeriveKey: func(purpose string) ([]byte, error) {
				sum := sha256.Sum256([]byte(purpose))
				return sum[:], nil
			}}
	}}, change...)...)
	h.initRepo()
	return h, h.applyGateway("edge", "example.com")
}

func (h *testServer) applyGateway(name, domain string) dstack.Gateway {
	h.t.Helper()
	project, err := h.store.Project(h.t.Context(), "main")
	if err != nil {
		h.t.Fatal(err)
	}
	g, err := h.store.ApplyGateway(h.t.Context(), dstack.Gateway{Project: project.ID, Name: name, Author: "admin",
		Configuration: spec.Gateway{Name: spec.Text(name), Backend: spec.BackendExternal, Domain: spec.Text(domain)}}, now())
	if err != nil {
		h.t.Fatal(err)
	}
	h.broadcast.Notify()
	return g
}

func (h *testServer) newGatewayToken(name string, seconds int) string {
	h.t.Helper()
	var token api.GatewayToken
	h.mustCall(api.PathGatewayToken, api.CreateGatewayToken{Name: name, ExpiresSeconds: seconds}, &token)
	return token.Token
}

// joinOptions are those of a new process in a folder of its own.
func (h *testServer) joinOptions(token string) gatewaylink.JoinOptions {
	return gatewaylink.JoinOptions{Dir: h.t.TempDir(), Servers: []string{h.url}, Token: token, Name: "box", Version: "0.2.0-dev", Log: slog.New(slog.DiscardHandler)}
}

// linkRig is a process that follows a server.
type linkRig struct {
	link     *gatewaylink.Link
	identity gatewaylink.Identity
	dialer   *dial.Dialer
	dir      string
	stop     func()
	done     chan error
}

// startLink runs the link of a process that joined. The test stops it.
func startLink(t testing.TB, dir string, identity gatewaylink.Identity, podAuthorities ...string) *linkRig {
	t.Helper()
	rig := &linkRig{identity: identity, dir: dir, dialer: &dial.Dialer{}, done: make(chan error, 1)}
	var err error
	rig.link, err = gatewaylink.New(gatewaylink.Options{Dir: dir, Identity: identity, Version: "0.2.0-dev", Dialer: rig.dialer, PodAuthorities: podAuthorities,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { rig.done <- loop.Run(ctx, rig.link.Tasks()...) }()
	rig.stop = func() {
		cancel()
		<-rig.done
		if err := rig.link.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		rig.stop = func() {}
	}
	t.Cleanup(func() { rig.stop() })
	return rig
}

func (h *testServer) startProcess(podAuthorities ...string) *linkRig {
	h.t.Helper()
	o := h.joinOptions(h.newGatewayToken("edge", 0))
	identity, err := gatewaylink.Join(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	return startLink(h.t, o.Dir, identity, podAuthorities...)
}

// waitTable waits for a table that is as the test wants it.
func (r *linkRig) waitTable(t testing.TB, what string, isWanted func(route.Table) bool) route.Table {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var table route.Table
	for {
		next, err := r.link.Table(ctx, table.Version)
		if err != nil {
			t.Fatalf("%s: %v; the last table is %+v", what, err, table)
		}
		if table = next; isWanted(table) {
			return table
		}
	}
}

func routeNamed(table route.Table, name string) *route.Route {
	for i := range table.Routes {
		if table.Routes[i].Name == name {
			return &table.Routes[i]
		}
	}
	return nil
}

// makeReady makes the replica of a new run ready at an address.
func (h *testServer) makeReady(name, address string) api.Run {
	h.t.Helper()
	return h.makeReadyAt(name, dstack.Endpoint{Address: address})
}

func (h *testServer) makeReadyAt(name string, endpoint dstack.Endpoint) api.Run {
	h.t.Helper()
	run := h.submitRun(name)
	r := h.startReplica(run.ID)
	h.saveReports(r.Instance, dstack.Report{Attempt: r.Attempt, State: dstack.AttemptRunning, Ready: true, Endpoint: endpoint})
	h.stepReplica(r.ID, func(dstack.Replica) lifecycle.ReplicaStep { return lifecycle.ReplicaStep{To: dstack.ReplicaReady} })
	h.broadcast.Notify()
	return run
}

func TestGatewayProcess_FollowsItsGateway(t *testing.T) {
	h, g := newLinkServer(t)
	user := h.createUser("eve", dstack.RoleUser)
	process := h.startProcess()
	process.waitTable(t, "the first table", func(table route.Table) bool {
		return len(table.Gateways) == 1 && table.Gateways[0].ID == g.ID && table.Gateways[0].Domain == "example.com"
	})
	settings, _ := process.link.Settings()
	if settings.Domain != "example.com" || settings.Certificate != nil || len(settings.SessionKey) != 32 {
		t.Errorf("settings: %+v", settings)
	}
	run := h.submitRun("web")
	table := process.waitTable(t, "a new run", func(table route.Table) bool { return routeNamed(table, "web") != nil })
	if _, ok := table.Tokens[HashToken(h.admin)]; !ok || len(table.Tokens) != 1 {
		t.Errorf("the table has the tokens %v; that of eve opens nothing there", table.Tokens)
	}
	if _, ok := table.Tokens[HashToken(user)]; ok {
		t.Error("the table has the token of a user without access to the project")
	}
	h.mustCall(api.ProjectPrefix+"/runs/stop", api.StopRuns{RunsNames: []string{"web"}, Abort: true}, nil)
	process.waitTable(t, "the run stops", func(table route.Table) bool {
		r := routeNamed(table, "web")
		return r == nil || r.IsStopping
	})
	h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunTerminated})
	process.waitTable(t, "the run is gone", func(table route.Table) bool { return len(table.Routes) == 0 })

	answer, err := process.link.Report(t.Context(), dstack.LoadReport{})
	if err != nil {
		t.Fatal(err)
	}
	_ = answer
	found, err := h.store.Gateway(t.Context(), g.ID)
	if err != nil || len(found.Processes) != 1 || found.Processes[0].Name != "box" || found.Processes[0].Version != "0.2.0-dev" {
		t.Errorf("%+v, %v", found.Processes, err)
	}

	h.applyGateway("edge", "example.org")
	process.waitTable(t, "another domain", func(table route.Table) bool {
		return len(table.Gateways) == 1 && table.Gateways[0].Domain == "example.org"
	})
}

func TestGatewayToken_JoinsOneProcess(t *testing.T) {
	h, g := newLinkServer(t)
	token := h.newGatewayToken("edge", 0)
	first := h.joinOptions(token)
	identity, err := gatewaylink.Join(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := gatewaylink.Join(t.Context(), first) // as a unit does that keeps the token
	if err != nil || again.ID != identity.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	for _, c := range []struct {
		name    string
		options gatewaylink.JoinOptions
		kind    dstack.Kind
		part    string
	}{
		{"a token used twice", h.joinOptions(token), dstack.Unauthorized, "used already"},
		{"a token that the server does not know", h.joinOptions(api.NewJoinToken([32]byte{}).String()), dstack.Unauthorized, "does not know this token"},
		{"a cut token", h.joinOptions(token[:20]), dstack.Invalid, "not a token"},
		{"a mistyped token", h.joinOptions(flipCharacter(token)), dstack.Invalid, "damaged"},
		{"no token", h.joinOptions(""), dstack.Invalid, "has joined no gateway yet"},
		{"an old program", withVersion(h.joinOptions(h.newGatewayToken("edge", 0)), "0.0.9"), dstack.Unsupported, "one minor version apart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := gatewaylink.Join(t.Context(), c.options)
			if dstack.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.part) {
				t.Errorf("got %v (%s)", err, dstack.KindOf(err))
			}
		})
	}
	t.Run("a credential that is none, or that of another process", func(t *testing.T) {
		sum := sha256.Sum256([]byte(identity.Credential))
		for credential, status := range map[string]int{"": 400, "x": 400, strings.Repeat("a", 100_000): 400, hex.EncodeToString(sum[:]): 400} {
			join := api.JoinGateway{Token: h.newGatewayToken("edge", 0), Credential: credential, Name: "box", Version: "0.2.0-dev"}
			if got := h.callAs("", api.PathGatewayJoin, join); got.status != status {
				t.Errorf("%.10s: %d %s", credential, got.status, got.text)
			}
		}
	})
	t.Run("an expired token", func(t *testing.T) {
		late := api.NewJoinToken([32]byte{})
		if err := h.store.CreateGatewayToken(t.Context(), store.GatewayToken{Hash: late.Hash(), Gateway: g.ID, ExpiresAt: now()}, now()); err != nil {
			t.Fatal(err)
		}
		o := h.joinOptions(late.String())
		if _, err := gatewaylink.Join(t.Context(), o); dstack.KindOf(err) != dstack.Unauthorized || !strings.Contains(err.Error(), "ended at") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an unused token for which the answer was lost", func(t *testing.T) {
		o := h.joinOptions(h.newGatewayToken("edge", 0))
		one, err := gatewaylink.Join(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		parsed, _ := api.ParseJoinToken(o.Token)
		sum := sha256.Sum256([]byte(one.Credential))
		p, err := h.store.JoinGateway(t.Context(), parsed.Hash(), hex.EncodeToString(sum[:]), dstack.GatewayProcess{ID: "other"}, now())
		if err != nil || p.ID != one.ID {
			t.Errorf("got %+v, %v", p, err)
		}
	})
}

func flipCharacter(token string) string {
	at := len(token) / 2
	other := byte('A')
	if token[at] == other {
		other = 'B'
	}
	return token[:at] + string(other) + token[at+1:]
}

func withVersion(o gatewaylink.JoinOptions, version string) gatewaylink.JoinOptions {
	o.Version = version
	return o
}

// The credential of a process opens the calls of processes and nothing else, and tokens of users do not open those.
func TestGatewayProcess_AccessIsItsOwn(t *testing.T) {
	h, _ := newLinkServer(t)
	process := h.startProcess()
	process.waitTable(t, "the first table", func(route.Table) bool { return true })
	for i := range apiOperations {
		op := &apiOperations[i]
		path := strings.NewReplacer("{project_name}", "main", "{name}", "x").Replace(op.path)
		switch {
		case op.level == "none" || op.method != http.MethodPost:
		case op.level == "gateway":
			if got := h.callAs(h.admin, path, "{}"); got.status != http.StatusForbidden {
				t.Errorf("an admin may call %s: %d", path, got.status)
			}
		default:
			if got := h.callAs(process.identity.Credential, path, "{}"); got.status != http.StatusForbidden {
				t.Errorf("a gateway process may call %s: %d %s", path, got.status, got.text)
			}
		}
	}
	user := h.createUser("eve", dstack.RoleUser)
	if got := h.callAs(user, strings.Replace(api.PathGatewayToken, "{project_name}", "main", 1), api.CreateGatewayToken{Name: "edge"}); got.status != http.StatusForbidden {
		t.Errorf("a user who is no admin of the project made a token: %d", got.status)
	}
}

func TestGatewayProcess_EndsWhenItIsRemoved(t *testing.T) {
	h, g := newLinkServer(t)
	process := h.startProcess()
	h.submitRun("web")
	process.waitTable(t, "the run", func(table route.Table) bool { return len(table.Routes) == 1 })
	if err := h.store.RemoveGatewayProcess(t.Context(), g.ID, process.identity.ID); err != nil {
		t.Fatal(err)
	}
	h.broadcast.Notify()
	process.waitTable(t, "nothing to serve", func(table route.Table) bool { return len(table.Routes) == 0 && len(table.Gateways) == 0 })
	select {
	case err := <-process.done:
		process.done <- err
		if !process.link.IsRemoved() || dstack.KindOf(err) != dstack.Forbidden {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it did not end")
	}
	process.stop()
	if _, err := os.Stat(filepath.Join(process.dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its state is still there: %v", err)
	}
}

// A server that was set back to a time before the process joined does not know it. The process goes on serving.
func TestGatewayProcess_ServesOnWhenTheServerForgotIt(t *testing.T) {
	h, _ := newLinkServer(t)
	process := h.startProcess()
	h.submitRun("web")
	process.waitTable(t, "the run", func(table route.Table) bool { return len(table.Routes) == 1 })
	process.stop()
	forgotten := process.identity
	forgotten.Credential = "dgp_unknown"
	again := startLink(t, process.dir, forgotten)
	again.waitTable(t, "the run from the disk", func(table route.Table) bool { return len(table.Routes) == 1 })
	if _, err := again.link.Report(t.Context(), dstack.LoadReport{}); dstack.KindOf(err) != dstack.Unauthorized {
		t.Errorf("a report gave %v", err)
	}
	if again.link.IsRemoved() {
		t.Error("it ended")
	}
}

func TestGatewayProcess_ServesWithoutTheServer(t *testing.T) {
	h, _ := newLinkServer(t, func(o *Options) { o.Links.Offline = time.Hour })
	proxy := newCutServer(t, h)
	o := h.joinOptions(h.newGatewayToken("edge", 0))
	o.Servers = []string{proxy.URL}
	identity, err := gatewaylink.Join(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	process := startLink(t, o.Dir, identity)
	h.submitRun("web")
	process.waitTable(t, "the run", func(table route.Table) bool { return routeNamed(table, "web") != nil })
	proxy.CloseClientConnections() // the server is gone
	proxy.Close()
	process.stop()

	restarted := startLink(t, o.Dir, identity)
	table := restarted.waitTable(t, "the run after a restart", func(table route.Table) bool { return routeNamed(table, "web") != nil })
	if table.TokensEnded || len(table.Tokens) == 0 {
		t.Errorf("tokens are not accepted: %+v", table.Tokens)
	}
	restarted.stop()

	sealed, err := os.ReadFile(filepath.Join(o.Dir, "state"))
	if err != nil || strings.Contains(string(sealed), "web") || strings.Contains(string(sealed), HashToken(h.admin)) {
		t.Errorf("the state is readable, or missing: %v", err)
	}
	sealed[len(sealed)/2] ^= 1
	if err := os.WriteFile(filepath.Join(o.Dir, "state"), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := startLink(t, o.Dir, identity)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if table, err := damaged.link.Table(ctx, 0); err == nil {
		t.Errorf("a changed state is used: %+v", table)
	}
}

func TestGatewayProcess_TokensEndWithoutTheServer(t *testing.T) {
	h, _ := newLinkServer(t, func(o *Options) { o.Links.Offline = time.Second })
	proxy := newCutServer(t, h)
	o := h.joinOptions(h.newGatewayToken("edge", 0))
	o.Servers = []string{proxy.URL}
	identity, err := gatewaylink.Join(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	process := startLink(t, o.Dir, identity)
	h.submitRun("web")
	process.waitTable(t, "the run and tokens", func(table route.Table) bool { return routeNamed(table, "web") != nil && len(table.Tokens) > 0 })
	proxy.CloseClientConnections()
	proxy.Close()
	table := process.waitTable(t, "the end of tokens", func(table route.Table) bool { return table.TokensEnded })
	if len(table.Tokens) != 0 || routeNamed(table, "web") == nil {
		t.Errorf("%+v", table)
	}
}

// newCutServer returns another address of the test's server, which can be closed.
func newCutServer(t testing.TB, h *testServer) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h.server.Handler())
	t.Cleanup(s.Close)
	return s
}

// A process that reaches a replica neither directly nor over SSH reaches it through the server, and only replicas.
func TestGatewayProcess_ConnectsThroughTheServer(t *testing.T) {
	h, _ := newLinkServer(t, func(o *Options) { o.Links.Machine = "another machine" })
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	t.Cleanup(replica.Close)
	address := replica.Listener.Addr().String()
	process := h.startProcess()
	h.makeReady("web", address)
	table := process.waitTable(t, "a ready replica", func(table route.Table) bool {
		r := routeNamed(table, "web")
		return r != nil && len(r.Ready) == 1
	})
	endpoint := table.Routes[0].Ready[0].Endpoint
	if endpoint.Host == "" {
		t.Fatalf("the endpoint %+v is dialled directly", endpoint)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return process.dialer.Dial(ctx, endpoint)
	}}}
	response, err := client.Post("http://replica/", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || string(text) != "hello" {
		t.Errorf("got %q, %v", text, err)
	}
	client.CloseIdleConnections()
	endpoint.Address = h.url[len("http://"):]
	if conn, err := process.dialer.Dial(t.Context(), endpoint); err == nil {
		_ = conn.Close()
		t.Error("the server connects to what is no replica")
	}
}
