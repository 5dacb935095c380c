package kubegateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/kubegateway"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

const ours = dstack.Installation("4f1c0d5e-0000-4000-8000-000000000001")

// rig is the gateways of a namespace, with an account that has exactly the rights of kubegateway.Rights.
type rig struct {
	*testing.T
	cluster   *kubetest.Cluster
	namespace string
	client    *kubeclient.Client
	gateways  *kubegateway.Gateways
	tokens    int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	cluster := kubetest.Need(t)
	r := &rig{T: t, cluster: cluster, namespace: cluster.NewNamespace(t)}
	cluster.MustCall(t, http.MethodPatch, "/api/v1/namespaces/"+r.namespace,
		map[string]any{"metadata": map[string]any{"labels": map[string]any{"pod-security.kubernetes.io/enforce": "restricted"}}}, nil)
	var rules []kubetest.Rule
	for _, right := range kubegateway.Rights() {
		rules = append(rules, kubetest.Rule{APIGroups: []string{right.Group}, Resources: []string{right.Resource}, Verbs: []string{right.Verb}})
	}
	var err error
	r.client, err = kubeclient.New(kubeclient.Options{KubeconfigFile: cluster.NewAccount(t, r.namespace, rules, nil), Namespace: r.namespace})
	if err != nil {
		t.Fatal(err)
	}
	r.gateways = kubegateway.New(r.client, ours, "")
	return r
}

func (r *rig) launch(id dstack.GatewayID, change ...func(*engine.ClusterGatewayLaunch)) engine.ClusterGatewayLaunch {
	launch := engine.ClusterGatewayLaunch{ID: id, Gateway: "edge", Project: "main", Domain: "example.com", Replicas: 2, Image: kubetest.Busybox,
		Env: map[string]string{"DSTACK_GATEWAY_SERVER": "https://dstack.example.com/$(HOME)"}, HasTLS: true, IsPublic: true, Digest: "one",
		Token: func(context.Context) (string, error) { r.tokens++; return fmt.Sprint("token ", r.tokens), nil }}
	for _, c := range change {
		c(&launch)
	}
	return launch
}

func (r *rig) apply(launch engine.ClusterGatewayLaunch) {
	r.Helper()
	if err := r.gateways.ApplyGateway(r.Context(), launch); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) find(id dstack.GatewayID) dstack.ClusterGateway {
	r.Helper()
	found, err := r.gateways.FindGateway(r.Context(), id)
	if err != nil {
		r.Fatal(err)
	}
	return found
}

// await waits until a gateway is as the test wants it.
func (r *rig) await(id dstack.GatewayID, what string, isSo func(dstack.ClusterGateway) bool) dstack.ClusterGateway {
	r.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		found := r.find(id)
		if isSo(found) {
			return found
		}
		if time.Now().After(end) {
			r.Fatalf("%s: %+v", what, found)
		}
	}
}

const gatewayID = dstack.GatewayID("0c8a4a1e-1111-4222-8333-444444444444")

// A gateway is applied in a namespace that admits restricted pods only, by an account with no more than the documented rights: its
// failures are told, it is changed, and with it all of it goes. Another installation's gateway in the same namespace stays.
func TestGateways(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if found := r.find(gatewayID); found.Exists {
		t.Errorf("before: %+v", found)
	}
	theirs := kubegateway.New(r.client, "other", "")
	other := r.launch("ffffffff-1111-4222-8333-444444444444", func(l *engine.ClusterGatewayLaunch) { l.Replicas = 1 })
	if err := theirs.ApplyGateway(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	r.apply(r.launch(gatewayID))
	r.apply(r.launch(gatewayID)) // repeated
	if r.tokens != 2 {
		t.Errorf("%d tokens were made for two gateways", r.tokens)
	}
	found := r.await(gatewayID, "its pods say why they do not start", func(g dstack.ClusterGateway) bool {
		return len(g.Pods) == 2 && strings.Contains(g.Pods[0].Message, `"gateway"`) && g.HTTPNodePort != 0
	})
	if found.Applied != "one" || found.Wanted != 2 || found.Ready != 0 || !found.HasBalancer || len(found.Addresses) != 0 || found.HTTPSNodePort == 0 ||
		len(found.NodeAddresses) == 0 || time.Since(found.ServiceSince) > time.Minute {
		t.Errorf("%+v", found)
	}
	pods, err := kubeclient.List(t.Context(), r.client, kubeclient.Pods, kubeclient.Selection{Labels: "dstack.ai/gateway-id=" + string(gatewayID)})
	if err != nil {
		t.Fatal(err)
	}
	if spec := pods[0].Spec; *spec.AutomountServiceAccountToken || strings.Contains(fmt.Sprint(spec.Containers[0].Env), "token 1") {
		t.Errorf("a pod has a token that it must not have: %+v", spec)
	}
	if spread := pods[0].Spec.TopologySpreadConstraints; len(spread) != 2 || spread[0].TopologyKey != "kubernetes.io/hostname" {
		t.Errorf("the scheduler is not asked for different nodes: %+v", spread) // busy nodes may get both nevertheless
	}
	r.checkChanges()
	if err := r.gateways.DeleteGateway(t.Context(), gatewayID); err != nil {
		t.Fatal(err)
	}
	r.await(gatewayID, "it is gone", func(g dstack.ClusterGateway) bool { return !g.Exists })
	if err := r.gateways.DeleteGateway(t.Context(), gatewayID); err != nil { // repeated
		t.Error(err)
	}
	if left, err := theirs.FindGateway(t.Context(), other.ID); err != nil || left.Applied != "one" {
		t.Errorf("the other installation's: %+v, %v", left, err)
	}
	secrets, err := kubeclient.List(t.Context(), r.client, kubeclient.Secrets, kubeclient.Selection{})
	if err != nil || len(secrets) != 1 {
		t.Errorf("%d secrets are left, %v", len(secrets), err)
	}
}

// checkChanges changes the way to a gateway, and its size.
func (r *rig) checkChanges() {
	r.Helper()
	if found, err := r.gateways.FindGateway(r.Context(), "another"); err != nil || found.Exists {
		r.Errorf("%+v, %v", found, err)
	}
	ports := func(l *engine.ClusterGatewayLaunch) { l.UsesNodePorts, l.Digest, l.Replicas = true, "two", 1 }
	r.apply(r.launch(gatewayID, ports))
	found := r.await(gatewayID, "it has one pod", func(g dstack.ClusterGateway) bool { return g.Wanted == 1 && g.Applied == "two" && len(g.Pods) == 1 })
	if found.HasBalancer || found.HTTPNodePort == 0 {
		r.Errorf("%+v", found)
	}
	inside := func(l *engine.ClusterGatewayLaunch) { l.IsPublic, l.HasTLS, l.Digest = false, false, "three" }
	r.apply(r.launch(gatewayID, inside))
	if found := r.find(gatewayID); found.HasBalancer || found.HTTPNodePort != 0 || found.HTTPSNodePort != 0 || found.Applied != "three" {
		r.Errorf("%+v", found)
	}
	err := r.gateways.ApplyGateway(r.Context(), r.launch(gatewayID, func(l *engine.ClusterGatewayLaunch) { l.ParentRef = "ingress/public" }))
	if err == nil || !strings.Contains(err.Error(), "the cluster has no Gateway API") {
		r.Errorf("without the Gateway API: %v", err)
	}
	err = r.gateways.ApplyGateway(r.Context(), r.launch(gatewayID, func(l *engine.ClusterGatewayLaunch) { l.ParentRef, l.Domain = "ingress/public", "" }))
	if err == nil || !strings.Contains(err.Error(), "would take every name") {
		r.Errorf("without a domain: %v", err)
	}
	name := r.serviceName()
	if err := kubeclient.Delete(r.Context(), r.client, kubeclient.Secrets, name, kubeclient.DeleteOptions{}); err != nil {
		r.Fatal(err)
	}
	if found := r.find(gatewayID); found.Applied != "" {
		r.Errorf("its token was deleted, and it counts as applied: %+v", found)
	}
	r.apply(r.launch(gatewayID, inside))
	r.cluster.MustCall(r, http.MethodPost, "/api/v1/namespaces/"+r.namespace+"/resourcequotas",
		map[string]any{"metadata": map[string]any{"name": "q"}, "spec": map[string]any{"hard": map[string]any{"pods": "4"}}}, nil)
	r.apply(r.launch(gatewayID, func(l *engine.ClusterGatewayLaunch) { l.Replicas, l.Digest = 9, "four" }))
	r.await(gatewayID, "the quota is told", func(g dstack.ClusterGateway) bool { return strings.Contains(g.Problem, "exceeded quota: q") })
}

func (r *rig) serviceName() string {
	r.Helper()
	services, err := kubeclient.List(r.Context(), r.client, kubeclient.Services, kubeclient.Selection{Labels: "dstack.ai/gateway-id=" + string(gatewayID)})
	if err != nil || len(services) != 1 {
		r.Fatalf("%v, %v", services, err)
	}
	return services[0].Name
}
