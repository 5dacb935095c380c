package reconcile_test

import (
	"context"
	"encoding/json"
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

// gatewayCluster is a cluster that runs gateways, in memory.
type gatewayCluster struct {
	backend.Backend

	mu       sync.Mutex
	found    map[dstack.GatewayID]dstack.ClusterGateway
	launches []engine.ClusterGatewayLaunch
	tokens   []string
	failure  error // of every call
}

var _ engine.ClusterGateways = (*gatewayCluster)(nil)

func (c *gatewayCluster) ApplyGateway(ctx context.Context, launch engine.ClusterGatewayLaunch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return c.failure
	}
	if len(c.tokens) == 0 {
		token, err := launch.Token(ctx)
		if err != nil {
			return err
		}
		c.tokens = append(c.tokens, token)
	}
	c.launches = append(c.launches, launch)
	c.found[launch.ID] = dstack.ClusterGateway{Exists: true, Applied: launch.Digest, Wanted: launch.Replicas, Updated: launch.Replicas, Ready: launch.Replicas,
		Addresses: []string{"192.0.2.9"}, HasBalancer: true, ServiceSince: time.Now(), Pods: []dstack.ClusterGatewayPod{{Name: "pod-1", IsReady: true}}}
	return nil
}

func (c *gatewayCluster) FindGateway(_ context.Context, id dstack.GatewayID) (dstack.ClusterGateway, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found[id], c.failure
}

func (c *gatewayCluster) DeleteGateway(_ context.Context, id dstack.GatewayID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.found, id)
	return c.failure
}

func (c *gatewayCluster) GatewayImage() string { return "" }

func (c *gatewayCluster) set(failure error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = failure
}

// images returns the images of all launches.
func (c *gatewayCluster) images() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var images []string
	for _, l := range c.launches {
		images = append(images, l.Image)
	}
	return strings.Join(images, " ")
}

// TestGatewayPass_Cluster: the pods of a gateway are launched in a cluster with what they need to join, the failures of the cluster
// are told, another image replaces them without a second token, processes of pods that are gone go, and the gateway goes with them.
func TestGatewayPass_Cluster(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cluster := &gatewayCluster{Backend: backendtest.NewFake(backendtest.FakeOptions{}), found: map[dstack.GatewayID]dstack.ClusterGateway{}}
	r.set = backend.NewSet()
	r.set.Share("kubernetes", cluster)
	setImage := func(image string, servers ...string) {
		r.setProgram("one")
		r.gateways.Cluster = reconcile.ClusterGatewayOptions{Image: image, Servers: servers,
			Token: func(_ context.Context, g dstack.Gateway, host dstack.InstanceID) (string, error) {
				return "token of " + g.Name + " in " + dstack.ClusterOf(host), nil
			}}
	}
	setImage("")
	g := dstack.Gateway{Project: r.project.ID, Name: "main", Author: "admin"}
	if err := json.Unmarshal([]byte(`{"type": "gateway", "name": "main", "backend": "kubernetes", "domain": "example.com", "certificate": null}`), &g.Configuration); err != nil {
		t.Fatal(err)
	}
	g, err := r.store.ApplyGateway(t.Context(), g, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	hasProblem := func(text string) func() bool {
		return func() bool {
			now, err := r.store.Gateway(t.Context(), g.ID)
			return err == nil && strings.Contains(string(now.Problem), text) && (text != "" || now.Problem == "")
		}
	}
	begin := func() { r.begin(lifecycle.Limits{}) }
	begin()
	r.waitFor("it has no image", hasProblem("on kubernetes: no image of dstack is known"))
	r.kill()
	setImage("dstack:1")
	begin()
	r.waitFor("it has no URL", hasProblem("no URL is known at which pods reach this server"))
	r.kill()
	setImage("dstack:1", "https://dstack.example.com")
	cluster.set(&dstack.Error{Kind: dstack.Forbidden, Message: "may not create deployments.apps", Hint: "grant it"})
	begin()
	r.waitFor("the cluster refuses", hasProblem("may not create deployments.apps"))
	cluster.set(nil)
	r.waitFor("it is launched", func() bool { return cluster.images() == "dstack:1" })
	if l := cluster.launches[0]; l.Replicas != 2 || l.Env["DSTACK_GATEWAY_SERVER"] != "https://dstack.example.com" || l.HasTLS || !l.IsPublic || l.Domain != "example.com" {
		t.Errorf("%+v", l)
	}
	if cluster.tokens[0] != "token of main in kubernetes" {
		t.Errorf("tokens %q", cluster.tokens)
	}
	host := dstack.NewClusterHost("kubernetes", g.ID)
	for _, name := range []string{"pod-1", "pod-of-yesterday"} {
		seen := map[string]time.Time{"pod-1": time.Now(), "pod-of-yesterday": time.Now().Add(-time.Minute)}[name]
		p := dstack.GatewayProcess{ID: "process-" + name, Gateway: g.ID, Host: host, Name: name, Version: "1.0.0", JoinedAt: time.Now().Add(-time.Hour)}
		if err := r.store.SaveGatewayProcess(t.Context(), p, seen); err != nil {
			t.Fatal(err)
		}
	}
	r.waitFor("the process of a pod that is gone goes", func() bool {
		now, err := r.store.Gateway(t.Context(), g.ID)
		return err == nil && len(now.Processes) == 1 && now.Processes[0].Name == "pod-1" && now.Problem == ""
	})
	r.kill()
	setImage("dstack:2", "https://dstack.example.com")
	if _, err := r.store.ApplyGateway(t.Context(), g, time.Now()); err != nil { // it is looked at at once
		t.Fatal(err)
	}
	begin()
	r.waitFor("another image replaces it", func() bool { return cluster.images() == "dstack:1 dstack:2" })
	if len(cluster.tokens) != 1 {
		t.Errorf("tokens %q", cluster.tokens)
	}
	if err := r.store.DeleteGateways(t.Context(), r.project.ID, []string{"main"}); err != nil {
		t.Fatal(err)
	}
	r.waitFor("it is deleted", func() bool {
		_, err := r.store.Gateway(t.Context(), g.ID)
		return dstack.KindOf(err) == dstack.NotFound
	})
	if len(cluster.found) != 0 {
		t.Errorf("left: %+v", cluster.found)
	}
}
