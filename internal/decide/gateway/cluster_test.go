package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var clusterNow = time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)

// clusterWorld is a gateway in the cluster kubernetes that serves with two pods, until a case changes it.
type clusterWorld struct {
	facts     gateway.ClusterFacts
	placement dstack.GatewayPlacement
	found     dstack.ClusterGateway
}

func newClusterWorld() *clusterWorld {
	own := dstack.GatewayProgram{Digest: "own", Owner: "me", OwnerSeenAt: clusterNow.Add(-time.Minute)}
	host := dstack.NewClusterHost("kubernetes", "g1")
	w := &clusterWorld{
		placement: dstack.GatewayPlacement{ID: "p1", Gateway: "g1", Host: host, HostName: "kubernetes", Program: own, Phase: dstack.GatewayServing, Since: clusterNow.Add(-time.Hour)},
		found: dstack.ClusterGateway{Exists: true, Applied: "own", Wanted: 2, Updated: 2, Ready: 2, HasBalancer: true, Addresses: []string{"192.0.2.1"},
			ServiceSince: clusterNow.Add(-time.Hour), Pods: []dstack.ClusterGatewayPod{{Name: "pod-1", IsReady: true}, {Name: "pod-2", IsReady: true}}},
	}
	w.facts = gateway.ClusterFacts{Cluster: "kubernetes", Program: dstack.GatewayProgram{Digest: "own", Owner: "me"},
		NodePortProgram: dstack.GatewayProgram{Digest: "ports", Owner: "me"}}
	w.facts.Gateway = dstack.Gateway{ID: "g1", Name: "edge", Configuration: spec.Gateway{Backend: spec.BackendKubernetes, PublicIP: true}}
	for _, name := range []string{"pod-1", "pod-2"} {
		w.facts.Gateway.Processes = append(w.facts.Gateway.Processes,
			dstack.GatewayProcess{ID: "of-" + name, Host: host, Name: name, JoinedAt: clusterNow.Add(-time.Hour), SeenAt: clusterNow.Add(-time.Second)})
	}
	return w
}

// decide returns the decision as text: phase, action, problem or progress, address, processes that are gone, new placements.
func (w *clusterWorld) decide() string {
	if w.placement.ID != "" {
		w.facts.Placements = append(w.facts.Placements, w.placement)
	}
	if w.facts.Clusters == nil {
		w.facts.Clusters = map[string]gateway.ClusterSight{"kubernetes": {Found: w.found}}
	}
	plan := gateway.DecideCluster(w.facts, clusterNow)
	var parts []string
	for _, s := range plan.Steps {
		text := string(s.Phase)
		if s.Action != gateway.NoPlacementAction {
			text += " " + string(s.Action)
		}
		if s.UsesNodePorts {
			text += " ports"
		}
		if s.IsGone {
			text += " gone"
		}
		if s.Program.Digest != w.placement.Program.Digest {
			text += " program=" + s.Program.Digest
		}
		if s.Reason != "" {
			text += map[bool]string{true: " PROBLEM ", false: " ("}[s.IsProblem] + string(s.Reason)
		}
		if s.Address != "" {
			text += " @" + s.Address
		}
		parts = append(parts, text)
	}
	for _, n := range plan.New {
		parts = append(parts, fmt.Sprintf("new on %s", n.Host))
	}
	if len(plan.Gone) > 0 {
		parts = append(parts, "processes gone: "+strings.Join(plan.Gone, " "))
	}
	return strings.Join(parts, "; ")
}

func TestDecideCluster(t *testing.T) {
	away := errors.New("no answer")
	noProcesses := func(w *clusterWorld) { w.facts.Gateway.Processes = nil }
	for name, c := range map[string]struct {
		change func(w *clusterWorld)
		want   string
	}{
		"it serves": {func(*clusterWorld) {}, "serving @192.0.2.1"},
		"it is new": {func(w *clusterWorld) { w.placement = dstack.GatewayPlacement{} }, "new on cluster/kubernetes/g1"},
		"the intent comes first": {func(w *clusterWorld) {
			w.placement.Program, w.found = dstack.GatewayProgram{}, dstack.ClusterGateway{}
			w.placement.Phase, w.facts.Gateway.Processes = dstack.GatewayStarting, nil
		}, "starting program=own (its pods are being made"},
		"then it is applied": {func(w *clusterWorld) {
			w.found, w.placement.Phase, w.facts.Gateway.Processes = dstack.ClusterGateway{}, dstack.GatewayStarting, nil
		}, "starting apply (its pods are being made"},
		"an object was deleted by somebody": {func(w *clusterWorld) { w.found.Applied = "" }, "serving apply @192.0.2.1"},
		"another configuration or image":    {func(w *clusterWorld) { w.placement.Program.Digest, w.found.Applied = "old", "old" }, "serving program=own @192.0.2.1"},
		"another server chose the image a moment ago": {func(w *clusterWorld) {
			w.placement.Program, w.found.Applied = dstack.GatewayProgram{Digest: "theirs", Owner: "other", OwnerSeenAt: clusterNow.Add(-time.Minute)}, "theirs"
		}, "serving @192.0.2.1"},
		"another server chose the image, and is gone": {func(w *clusterWorld) {
			w.placement.Program, w.found.Applied = dstack.GatewayProgram{Digest: "theirs", Owner: "other", OwnerSeenAt: clusterNow.Add(-10 * time.Minute)}, "theirs"
		}, "serving program=own @192.0.2.1"},
		"a failure is repeated after a pause": {func(w *clusterWorld) {
			w.found.Applied, w.placement.Failures, w.placement.NextAt, w.placement.Reason = "", 2, clusterNow.Add(time.Second), "over quota"
		}, "serving PROBLEM over quota"},
		"this server cannot launch it": {func(w *clusterWorld) { w.facts.Unable = "no image" }, "serving PROBLEM no image @192.0.2.1"},

		"pods are being replaced": {func(w *clusterWorld) { w.found.Updated = 1 }, "serving (1 of 2 pods are replaced @192.0.2.1"},
		"a pod is away": {func(w *clusterWorld) {
			w.found.Ready, w.found.Pods[1] = 1, dstack.ClusterGatewayPod{Name: "pod-2", Message: "ErrImagePull: not found"}
		}, "serving PROBLEM 1 of 2 pods serve: pod-2: ErrImagePull: not found @192.0.2.1"},
		"pods cannot be made": {func(w *clusterWorld) { w.found.Ready, w.found.Problem = 1, "exceeded quota: q" },
			"serving PROBLEM 1 of 2 pods serve: exceeded quota: q @192.0.2.1"},
		"pods are joining": {func(w *clusterWorld) {
			noProcesses(w)
			w.placement.Phase = dstack.GatewayStarting
			w.placement.Since = clusterNow
		}, "starting (its pods are joining @192.0.2.1"},
		"pods never joined": {func(w *clusterWorld) { noProcesses(w); w.placement.Phase = dstack.GatewayStarting }, "starting PROBLEM its pods have not reached a server for 60m: see `kubectl logs` of a pod @192.0.2.1"},
		"a pod is gone": {func(w *clusterWorld) {
			w.found.Pods = w.found.Pods[:1]
			w.facts.Gateway.Processes[1].SeenAt = clusterNow.Add(-5 * time.Second)
		}, "serving @192.0.2.1; processes gone: of-pod-2"},
		"a pod still counts": {func(w *clusterWorld) { w.found.Pods = w.found.Pods[:1] }, "serving @192.0.2.1"},

		"the cluster is away, the pods serve": {func(w *clusterWorld) {
			w.facts.Clusters = map[string]gateway.ClusterSight{"kubernetes": {Silence: away}}
		}, "serving"},
		"the cluster is away for long": {func(w *clusterWorld) {
			w.facts.Clusters = map[string]gateway.ClusterSight{"kubernetes": {Silence: away}}
			w.placement.SilentSince = clusterNow.Add(-time.Minute)
		}, "serving PROBLEM the cluster does not answer: no answer"},

		"the load balancer is being made": {func(w *clusterWorld) { w.found.Addresses, w.found.ServiceSince = nil, clusterNow }, "serving"},
		"the load balancer takes long":    {func(w *clusterWorld) { w.found.Addresses, w.found.ServiceSince = nil, clusterNow.Add(-time.Minute) }, "serving PROBLEM waits for the address of its load balancer"},
		"there is no load balancer: the intent": {func(w *clusterWorld) { w.found.Addresses, w.found.ServiceSince = nil, clusterNow.Add(-2*time.Minute) },
			"serving program=ports PROBLEM waits for the address of its load balancer"},
		"there is no load balancer: the action": {func(w *clusterWorld) {
			w.found.Addresses, w.placement.Program.Digest = nil, "ports"
		}, "serving apply ports PROBLEM waits for the address of its load balancer"},
		"there is no load balancer": {func(w *clusterWorld) {
			w.placement.Program.Digest, w.found.Applied, w.found.HasBalancer, w.found.Addresses = "ports", "ports", false, nil
			w.found.HTTPNodePort, w.found.HTTPSNodePort, w.found.NodeAddresses = 30080, 30443, []string{"10.0.0.1", "10.0.0.2"}
		}, "serving PROBLEM the cluster has no load balancers: lead ports 80 and 443 of one of yours to the nodes (10.0.0.1, 10.0.0.2), port 30080 for http and 30443 for https @10.0.0.1:30080"},
		"it is not to be public": {func(w *clusterWorld) {
			w.facts.Gateway.Configuration.PublicIP, w.found.HasBalancer, w.found.Addresses = false, false, nil
		}, "serving"},
		"a Gateway leads to it": {func(w *clusterWorld) {
			w.facts.Gateway.Configuration.ParentRef, w.found.HasBalancer, w.found.Addresses = "a/b", false, nil
		}, "serving"},
		"a Gateway does not lead to it": {func(w *clusterWorld) {
			w.facts.Gateway.Configuration.ParentRef, w.found.RouteProblem = "a/b", "not accepted"
		}, "serving PROBLEM not accepted @192.0.2.1"},

		"it is deleted: the intent": {func(w *clusterWorld) { w.facts.Gateway.IsDeleting = true }, "leaving (is not needed any more"},
		"it is deleted": {func(w *clusterWorld) { w.facts.Gateway.IsDeleting, w.placement.Phase = true, dstack.GatewayLeaving },
			"leaving delete (its pods finish their requests"},
		"it is gone": {func(w *clusterWorld) {
			w.facts.Gateway.IsDeleting, w.placement.Phase, w.found = true, dstack.GatewayLeaving, dstack.ClusterGateway{}
		}, "leaving gone"},
		"it cannot be deleted": {func(w *clusterWorld) {
			w.facts.Gateway.IsDeleting, w.placement.Phase = true, dstack.GatewayLeaving
			w.facts.Clusters = map[string]gateway.ClusterSight{"kubernetes": {Silence: away}}
		}, "leaving PROBLEM it cannot be removed from the cluster: no answer"},
		"another backend": {func(w *clusterWorld) { w.facts.Cluster = "" }, "leaving (is not needed any more"},
		"another cluster": {func(w *clusterWorld) { w.facts.Cluster = "kubernetes-b" }, "serving (it goes on until the other cluster serves; new on cluster/kubernetes-b/g1"},
		"another cluster serves": {func(w *clusterWorld) {
			w.facts.Cluster = "kubernetes-b"
			other := dstack.NewClusterHost("kubernetes-b", "g1")
			w.facts.Gateway.Processes = append(w.facts.Gateway.Processes, dstack.GatewayProcess{ID: "b", Host: other, SeenAt: clusterNow})
		}, "leaving (is not needed any more; new on cluster/kubernetes-b/g1"},
	} {
		w := newClusterWorld()
		c.change(w)
		if got := w.decide(); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestClusterOf(t *testing.T) {
	for region, want := range map[string]string{"": "kubernetes", "kubernetes": "kubernetes", "b": "kubernetes-b"} {
		if got := gateway.ClusterOf(spec.Gateway{Backend: spec.BackendKubernetes, Region: region}); got != want {
			t.Errorf("region %q: %s", region, got)
		}
	}
	if got := gateway.ClusterOf(spec.Gateway{Backend: spec.BackendSSH}); got != "" {
		t.Error(got)
	}
	if got := dstack.ClusterOf(dstack.NewClusterHost("kubernetes-b", "g1")); got != "kubernetes-b" {
		t.Error(got)
	}
	if got := dstack.ClusterOf("4f1c"); got != "" {
		t.Error(got)
	}
}

func TestPlacementStep_AfterFailure(t *testing.T) {
	step := gateway.PlacementStep{GatewayPlacement: dstack.GatewayPlacement{Failures: 1}, IsGone: true}
	got := step.AfterFailure("over quota", clusterNow)
	if got.IsGone || !got.IsProblem || got.Reason != "over quota" || got.Failures != 2 || got.NextAt.Sub(clusterNow) != 10*time.Second {
		t.Errorf("%+v", got)
	}
}
