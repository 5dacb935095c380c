package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/reconcile"
)

// gatewayHost is the engine of a host that runs gateways, in memory. Each process reports once it runs.
type gatewayHost struct {
	*fakeEngine
	id dstack.InstanceID

	gatewayMu  sync.Mutex
	containers []dstack.GatewayContainer
	launches   []engine.GatewayLaunch
	tokens     []string
	failsWith  string // starts fail, for this reason
	deleted    int
}

var _ engine.Gateways = (*gatewayHost)(nil)

func (h *gatewayHost) find(id dstack.GatewayPlacementID, program string) int {
	return slices.IndexFunc(h.containers, func(c dstack.GatewayContainer) bool { return c.Placement == id && c.Program == program })
}

func (h *gatewayHost) StartGateway(ctx context.Context, launch engine.GatewayLaunch) error {
	h.gatewayMu.Lock()
	defer h.gatewayMu.Unlock()
	if h.failsWith != "" {
		return &dstack.Error{Kind: dstack.Unsupported, Message: h.failsWith}
	}
	if i := h.find(launch.Placement, launch.Program.Digest); i >= 0 {
		return nil
	}
	token, err := launch.Token(ctx)
	if err != nil {
		return err
	}
	h.launches, h.tokens = append(h.launches, launch), append(h.tokens, token)
	for i := range h.containers { // the new process takes over
		h.containers[i].State = dstack.GatewayContainerEnded
	}
	h.containers = append(h.containers, dstack.GatewayContainer{Placement: launch.Placement, Program: launch.Program.Digest,
		State: dstack.GatewayContainerRunning, StartedAt: time.Now()})
	return nil
}

func (h *gatewayHost) ListGateways(context.Context) ([]dstack.GatewayContainer, error) {
	h.gatewayMu.Lock()
	defer h.gatewayMu.Unlock()
	return slices.Clone(h.containers), nil
}

func (h *gatewayHost) RemoveGateway(_ context.Context, id dstack.GatewayPlacementID, program string) error {
	h.gatewayMu.Lock()
	defer h.gatewayMu.Unlock()
	if i := h.find(id, program); i >= 0 {
		h.containers = slices.Delete(h.containers, i, i+1)
	}
	return nil
}

func (h *gatewayHost) DeleteGatewayState(context.Context, dstack.GatewayPlacementID) error {
	h.gatewayMu.Lock()
	defer h.gatewayMu.Unlock()
	h.deleted++
	return nil
}

// programs returns the programs of the host's containers.
func (h *gatewayHost) programs() string {
	h.gatewayMu.Lock()
	defer h.gatewayMu.Unlock()
	var programs []string
	for _, c := range h.containers {
		programs = append(programs, c.Program)
	}
	return strings.Join(programs, " ")
}

// addGatewayHosts replaces the machine of the rig with hosts of a fleet.
func (r *rig) addGatewayHosts(names ...string) map[string]*gatewayHost {
	r.t.Helper()
	f := dstack.Fleet{Project: r.project.ID, Name: "edge", Author: "admin"}
	if err := json.Unmarshal([]byte(`{"type": "fleet", "name": "edge", "ssh_config": {"user": "root", "ssh_key": {"private": "key"}, "hosts": ["192.0.2.1"]}}`),
		&f.Configuration); err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		f.Hosts = append(f.Hosts, dstack.Host{Name: name, Login: dstack.SSHLogin{Address: name + ":22", User: "root", PrivateKey: "key"}})
	}
	applied, err := r.store.ApplyFleet(r.t.Context(), f, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	hosts, byID := map[string]*gatewayHost{}, map[dstack.InstanceID]engine.Engine{}
	var offers []dstack.Offer
	for _, h := range applied.Hosts {
		host := &gatewayHost{fakeEngine: newFakeEngine(), id: h.ID}
		hosts[h.Name], byID[h.ID] = host, host
		offers = append(offers, dstack.Offer{Backend: "ssh", Type: h.Name, OwnedInstance: h.ID, Key: "ssh", IsRemote: true, Engine: containers})
		check := dstack.HostCheck{Status: dstack.HostReady, CheckedAt: time.Now(), AppliedAt: h.AppliedAt}
		if err := r.store.SaveHostCheck(r.t.Context(), h.ID, check); err != nil {
			r.t.Fatal(err)
		}
	}
	r.set = backend.NewSet()
	r.set.Share("ssh", backendtest.NewFake(backendtest.FakeOptions{Offers: offers, NewEngine: func(id dstack.InstanceID) engine.Engine { return byID[id] }}))
	return hosts
}

// setProgram sets the program of the server. It applies from the next begin on.
func (r *rig) setProgram(digest string) {
	r.gateways = reconcile.GatewayOptions{
		Program: func() (engine.Program, string, error) { return engine.Program{Digest: digest}, "1.0.0", nil },
		Token: func(_ context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error) {
			return fmt.Sprintf("token of %s on %s", g.Name, host), nil
		},
		Servers: []string{"https://dstack.example.com"},
	}
}

// reportGateways reports for every process that runs.
func (r *rig) reportGateways(hosts map[string]*gatewayHost, g dstack.GatewayID) {
	for name, h := range hosts {
		h.gatewayMu.Lock()
		isRunning := slices.ContainsFunc(h.containers, func(c dstack.GatewayContainer) bool { return c.State == dstack.GatewayContainerRunning })
		h.gatewayMu.Unlock()
		if isRunning {
			p := dstack.GatewayProcess{ID: "process-" + name, Gateway: g, Host: h.id, Name: name, Version: "1.0.0"}
			if err := r.store.SaveGatewayProcess(r.t.Context(), p, time.Now()); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// TestGatewayPass: the process of a gateway is started on a host, gets what it needs to join, is replaced by the program of the
// next server without a second token, and is removed with the gateway. The failure of a host is told.
func TestGatewayPass(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hosts := r.addGatewayHosts("edge-1", "edge-2")
	r.setProgram("one")
	g := dstack.Gateway{Project: r.project.ID, Name: "main", Author: "admin"}
	text := `{"type": "gateway", "name": "main", "backend": "ssh", "hosts": ["edge-2"], "domain": "example.com", "certificate": null}`
	if err := json.Unmarshal([]byte(text), &g.Configuration); err != nil {
		t.Fatal(err)
	}
	g, err := r.store.ApplyGateway(t.Context(), g, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	gateway := func() dstack.Gateway {
		r.reportGateways(hosts, g.ID)
		now, err := r.store.Gateway(t.Context(), g.ID)
		if err != nil && dstack.KindOf(err) != dstack.NotFound {
			t.Fatal(err)
		}
		return now
	}
	edge := hosts["edge-2"]
	edge.gatewayMu.Lock()
	edge.failsWith = "the host is s390x"
	edge.gatewayMu.Unlock()
	r.begin(lifecycle.Limits{})
	r.waitFor("the failure is told", func() bool { return strings.Contains(string(gateway().Problem), "on edge-2: the host is s390x") })
	edge.gatewayMu.Lock()
	edge.failsWith = ""
	edge.gatewayMu.Unlock()
	r.waitFor("it serves", func() bool { return edge.programs() == "one" && gateway().Problem == "" })
	launch := edge.launches[0]
	if servers := strings.Split(launch.Env["DSTACK_GATEWAY_SERVER"], ","); len(servers) != 2 || servers[0] != "https://dstack.example.com" ||
		!strings.HasPrefix(servers[1], "https://127.0.0.1:2") {
		t.Errorf("it reaches the servers %v", servers)
	}
	if want := fmt.Sprintf("token of main on %s", edge.id); edge.tokens[0] != want || strings.Contains(fmt.Sprint(launch.Env), want) {
		t.Errorf("tokens %v, environment %v", edge.tokens, launch.Env)
	}

	r.kill()
	r.setProgram("two")
	r.begin(lifecycle.Limits{})
	r.waitFor("the new program replaces it", func() bool { return gateway().Problem == "" && edge.programs() == "two" })
	if edge.tokens[1] != "" {
		t.Errorf("a process that has joined gets another token: %v", edge.tokens)
	}
	if hosts["edge-1"].programs() != "" {
		t.Error("a host that `hosts` does not name serves, too")
	}

	if err := r.store.DeleteGateways(t.Context(), r.project.ID, []string{"main"}); err != nil {
		t.Fatal(err)
	}
	r.waitFor("it is gone", func() bool { return gateway().ID == "" })
	if edge.programs() != "" || edge.deleted != 1 {
		t.Errorf("the host has %q, and its data was deleted %d times", edge.programs(), edge.deleted)
	}
}
