package kubernetes_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend/kubernetes"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/spec"
)

// rulesFor returns the rules of a role, or of a cluster role, with some rights.
func rulesFor(rights []kubeclient.Right, isClusterWide bool) (rules []kubetest.Rule) {
	for _, r := range rights {
		if r.IsClusterWide != isClusterWide {
			continue
		}
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		rules = append(rules, kubetest.Rule{APIGroups: []string{r.Group}, Resources: []string{resource}, Verbs: []string{r.Verb}})
	}
	return rules
}

func without(rights []kubeclient.Right, left func(r kubeclient.Right) bool) (kept []kubeclient.Right) {
	for _, r := range rights {
		if !left(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// waitFor asks again and again until a check passes.
func waitFor(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// An account with exactly the documented rights can use nodes; with those of the namespace only, the scheduler chooses;
// and one that lacks a necessary right is told each by name.
func TestBackend_Rights(t *testing.T) {
	cluster := kubetest.Need(t)
	t.Parallel()
	namespace := cluster.NewNamespace(t)
	all := kubernetes.Rights()
	isOptional := func(r kubeclient.Right) bool { return r.IsOptional }

	exact := cluster.NewAccount(t, namespace, rulesFor(all, false), rulesFor(all, true))
	b := open(t, kubernetes.Settings{KubeconfigFile: exact})
	offers, err := b.Offers(t.Context(), dstack.Requirements{})
	if err != nil || len(offers) < 2 || offers[0].AnyNode {
		t.Errorf("with all rights: %+v, %v", offers, err)
	}
	if notice := b.Notice(); strings.Contains(notice, "may not") {
		t.Errorf("with all rights: %s", notice)
	}

	least := cluster.NewAccount(t, namespace, rulesFor(without(all, isOptional), false), nil)
	b = open(t, kubernetes.Settings{KubeconfigFile: least})
	offers, err = b.Offers(t.Context(), dstack.Requirements{})
	if err != nil || len(offers) != 1 || !offers[0].AnyNode {
		t.Errorf("with the rights of the namespace: %+v, %v", offers, err)
	}
	if eng, err := b.Engine(t.Context(), offers[0].OwnedInstance); err != nil {
		t.Error(err)
	} else if _, err := eng.ListReports(t.Context()); err != nil {
		t.Error(err)
	}
	if notice := b.Notice(); !strings.Contains(notice, "cannot choose nodes and say why one does not suit: its account may not list nodes, watch nodes") {
		t.Errorf("with the rights of the namespace: %s", notice)
	}

	noExec := without(all, func(r kubeclient.Right) bool {
		return r.Subresource == "exec" || r.Resource == "secrets" && r.Verb == "create"
	})
	b = open(t, kubernetes.Settings{KubeconfigFile: cluster.NewAccount(t, namespace, rulesFor(noExec, false), nil)})
	_, err = b.Offers(t.Context(), dstack.Requirements{})
	if dstack.KindOf(err) != dstack.Forbidden {
		t.Fatalf("without some rights: %v", err)
	}
	for _, want := range []string{"create secrets", "get pods/exec", "create pods/exec"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the missing right %s is not named: %v", want, err)
		}
	}
}

// A kubeconfig that is missing, and then another one, are read without a restart.
func TestBackend_KubeconfigChanges(t *testing.T) {
	cluster := kubetest.Need(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config")
	b := open(t, kubernetes.Settings{KubeconfigFile: file, Namespace: "no-such-namespace"})
	_, err := b.Offers(t.Context(), dstack.Requirements{})
	if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "there is no kubeconfig "+file) {
		t.Errorf("without a file: %v", err)
	}
	if text := b.Describe(); !strings.Contains(text, "kubernetes: cannot be used: there is no kubeconfig") || strings.Contains(text, "\n") {
		t.Errorf("without a file: %s", text)
	}
	text, err := os.ReadFile(cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 15*time.Second, func() error {
		if _, err = b.Offers(t.Context(), dstack.Requirements{}); err == nil || !strings.Contains(err.Error(), "no-such-namespace") {
			return fmt.Errorf("in a namespace that does not exist: %w", err)
		}
		return nil
	})
	if hint := err.(*dstack.Error).Hint; !strings.Contains(hint, "kubectl create namespace no-such-namespace") {
		t.Errorf("hint %q", hint)
	}
}

// A cluster that does not answer is an error that says so, and not an empty list: replicas would be placed again.
func TestBackend_Unreachable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config")
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n" +
		"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, kubernetes.Settings{KubeconfigFile: file})
	if _, err := b.Machines(t.Context()); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("machines: %v", err)
	}
	if _, err := b.Offers(t.Context(), dstack.Requirements{}); dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("offers: %v", err)
	}
	if _, err := b.Engine(t.Context(), "node-1"); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("engine: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	b.Check(ctx)
	if text := b.Describe(); !strings.Contains(text, "cannot be used") {
		t.Error(text)
	}
}

// A node with GPUs, labels and a taint, as a provider would set it up. Its kubelet is missing, and the API server is told that it is ready.
func TestBackend_Nodes(t *testing.T) {
	cluster := kubetest.Need(t)
	t.Parallel()
	namespace := cluster.NewNamespace(t)
	b := open(t, kubernetes.Settings{KubeconfigFile: cluster.Kubeconfig, Namespace: namespace, Name: "west"})
	name := namespace + "-gpu"
	cluster.MustCall(t, http.MethodPost, "/api/v1/nodes", map[string]any{
		"metadata": map[string]any{"name": name, "labels": map[string]string{
			"topology.kubernetes.io/region": "eu-west-1", "topology.kubernetes.io/zone": "eu-west-1b", "node.kubernetes.io/instance-type": "p4d.24xlarge",
			"karpenter.sh/capacity-type": "spot", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/gpu.memory": "40960",
		}},
		"spec": map[string]any{"taints": []any{map[string]string{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}}},
	}, nil)
	t.Cleanup(func() { _, _, _ = cluster.Call(context.Background(), http.MethodDelete, "/api/v1/nodes/"+name, nil) })
	find := func(need dstack.Requirements) (found dstack.Offer, err error) {
		offers, err := b.Offers(t.Context(), need)
		for _, o := range offers {
			if o.Type == name {
				return o, nil
			}
		}
		return found, fmt.Errorf("there is no offer of %s: %w", name, err)
	}
	waitFor(t, 5*time.Second, func() error { // until it is ready, it is named as unusable
		unusable, err := b.ListUnusable(t.Context(), "")
		for _, r := range unusable {
			if r.Offer.Type == name && r.Reason != "" {
				return nil
			}
		}
		return fmt.Errorf("%+v, %w", unusable, err)
	})
	cluster.MustCall(t, http.MethodPatch, "/api/v1/nodes/"+name+"/status", map[string]any{"status": map[string]any{
		"allocatable": map[string]string{"cpu": "96", "memory": "1152Gi", "ephemeral-storage": "100Gi", "pods": "110", "nvidia.com/gpu": "8"},
		"capacity":    map[string]string{"cpu": "96", "memory": "1152Gi", "ephemeral-storage": "100Gi", "pods": "110", "nvidia.com/gpu": "8"},
		"conditions":  []any{map[string]string{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": time.Now().UTC().Format(time.RFC3339)}},
		"nodeInfo":    map[string]string{"architecture": "amd64"},
	}}, nil)
	one := 1
	withGPU := dstack.Requirements{Resources: spec.Resources{GPU: &spec.GPU{Count: spec.Range[int]{Min: &one}}}}
	var o dstack.Offer
	waitFor(t, 5*time.Second, func() (err error) {
		if o, err = find(withGPU); err == nil && o.Unusable != "" { // the cluster still removes its own taint
			err = fmt.Errorf("unusable: %s", o.Unusable)
		}
		return err
	})
	if o.Region != "eu-west-1" || o.Zone != "eu-west-1b" || o.InstanceType != "p4d.24xlarge" || !o.Spot || o.Key != "kubernetes-west" {
		t.Errorf("offer %+v", o)
	}
	if g := o.Hardware.GPUs; len(g) != 8 || g[0].Name != "A100" || g[0].MemoryMiB != 40960 || o.Taken.GPUs != 0 {
		t.Errorf("GPUs %+v", g)
	}
	if plain, err := find(dstack.Requirements{}); err != nil || !strings.Contains(plain.Unusable, "for services with `gpu`") {
		t.Errorf("without gpu: %+v, %v", plain, err)
	}
	machines, err := b.Machines(t.Context())
	if m := machines[o.OwnedInstance]; err != nil || m.Ref != name || !m.IsAlive() || len(m.Hardware.GPUs) != 8 {
		t.Errorf("machine %+v, %v", m, err)
	}
}

// GPUs that no device plugin counts, but a driver publishes. The driver is missing: the test publishes its devices, and allocates one.
func TestBackend_Devices(t *testing.T) {
	cluster := kubetest.Need(t)
	t.Parallel()
	namespace := cluster.NewNamespace(t)
	name := namespace + "-dra"
	const api = "/apis/resource.k8s.io/v1"
	remove := func(path string) {
		t.Cleanup(func() { _, _, _ = cluster.Call(context.Background(), http.MethodDelete, path, nil) })
	}
	cluster.MustCall(t, http.MethodPost, "/api/v1/nodes", map[string]any{
		"metadata": map[string]any{"name": name},
		"spec":     map[string]any{"taints": []any{map[string]string{"key": "dstack.test/dra", "effect": "NoSchedule"}}},
	}, nil)
	remove("/api/v1/nodes/" + name)
	cluster.MustCall(t, http.MethodPost, api+"/deviceclasses", `{"metadata": {"name": "gpu.nvidia.com"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]}}`, nil)
	remove(api + "/deviceclasses/gpu.nvidia.com")
	device := func(device, kind string) map[string]any {
		return map[string]any{"name": device, "attributes": map[string]any{
			"type": map[string]string{"string": kind}, "productName": map[string]string{"string": "NVIDIA A100-SXM4-40GB"},
			"cudaComputeCapability": map[string]string{"version": "8.0.0"}}, "capacity": map[string]any{"memory": map[string]string{"value": "40Gi"}}}
	}
	cluster.MustCall(t, http.MethodPost, api+"/resourceslices", map[string]any{
		"metadata": map[string]any{"name": name},
		"spec": map[string]any{"driver": "gpu.nvidia.com", "nodeName": name, "pool": map[string]any{"name": name, "generation": 1, "resourceSliceCount": 1},
			"devices": []any{device("gpu-0", "gpu"), device("gpu-1", "gpu"), device("gpu-0-mig-1", "mig")}},
	}, nil)
	remove(api + "/resourceslices/" + name)
	b := open(t, kubernetes.Settings{KubeconfigFile: cluster.Kubeconfig, Namespace: namespace})
	expect := func(taken int) {
		t.Helper()
		waitFor(t, 10*time.Second, func() error {
			unusable, err := b.ListUnusable(t.Context(), "")
			for _, r := range unusable {
				g := r.Offer.Hardware.GPUs
				if r.Offer.Type == name && len(g) == 2 && g[0].Name == "A100" && g[0].MemoryMiB == 40<<10 && g[0].Capability == [2]int{8, 0} && r.Offer.Taken.GPUs == taken {
					return nil
				}
			}
			return fmt.Errorf("%+v, %w", unusable, err)
		})
	}
	expect(0)
	claims := api + "/namespaces/" + namespace + "/resourceclaims"
	cluster.MustCall(t, http.MethodPost, claims, `{"metadata": {"name": "theirs"}, "spec": {"devices": {"requests": [{"name": "g", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]}}}`, nil)
	cluster.MustCall(t, http.MethodPatch, claims+"/theirs/status", map[string]any{"status": map[string]any{"allocation": map[string]any{"devices": map[string]any{
		"results": []any{map[string]string{"request": "g", "driver": "gpu.nvidia.com", "pool": name, "device": "gpu-1"}}}}}}, nil)
	expect(1)
}

// What a pod of somebody else requests is not offered, and what it requested is, once it is gone.
func TestBackend_Taken(t *testing.T) {
	cluster := kubetest.Need(t)
	t.Parallel()
	namespace := cluster.NewNamespace(t)
	b := open(t, kubernetes.Settings{KubeconfigFile: cluster.Kubeconfig, Namespace: namespace})
	before := map[string]dstack.Taken{}
	waitFor(t, 5*time.Second, func() error {
		offers, err := b.Offers(t.Context(), dstack.Requirements{})
		for _, o := range offers {
			before[o.Type] = o.Taken
		}
		return err
	})
	pods := "/api/v1/namespaces/" + namespace + "/pods"
	cluster.MustCall(t, http.MethodPost, pods, map[string]any{
		"metadata": map[string]any{"name": "other"},
		"spec": map[string]any{
			"nodeSelector": map[string]string{"kubernetes.io/hostname": "k1"}, "terminationGracePeriodSeconds": 1,
			"containers": []any{map[string]any{"name": "c", "image": kubetest.Busybox, "command": []string{"sleep", "1000"}, "imagePullPolicy": "IfNotPresent",
				"resources": map[string]any{"requests": map[string]string{"memory": "3Gi"}}}},
		},
	}, nil)
	const want = 3 << 10
	expect := func(least, most int64) {
		t.Helper()
		waitFor(t, 20*time.Second, func() error {
			offers, err := b.Offers(t.Context(), dstack.Requirements{})
			for _, o := range offers {
				if more := o.Taken.MemoryMiB - before["k1"].MemoryMiB; o.Type == "k1" && (more < least || more > most) {
					return fmt.Errorf("%d MiB more are taken", more)
				}
			}
			return err
		})
	}
	expect(want-1<<10, want+3<<10) // other tests start and end pods there, too
	cluster.MustCall(t, http.MethodDelete, pods+"/other", nil, nil)
	expect(-3<<10, want-1<<10)
}
