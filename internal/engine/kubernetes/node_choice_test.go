package kubernetes_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient/kubetest"
)

func leavesFullNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("true", func(s *dstack.AttemptSpec) { s.Claim.CPUs = 1000 }), false, true, "its node does not take the pod", "Insufficient cpu")
}

// namesSchedulerError asks for a device whose class reads an attribute that a device of some driver lacks: rule 25. The scheduler fails then
// on every pod that asks for the class, and the attempt is refused in its words.
func namesSchedulerError(t *testing.T, c *kubetest.Cluster, namespace string) {
	const api = "/apis/resource.k8s.io/v1"
	driver := namespace + ".example.test"
	c.MustCall(t, http.MethodPost, api+"/deviceclasses", map[string]any{"metadata": map[string]any{"name": driver}, "spec": map[string]any{
		"selectors": []any{map[string]any{"cel": map[string]string{
			"expression": fmt.Sprintf("device.driver == %q && device.attributes[%[1]q].nosuch == 'x'", driver)}}}}}, nil)
	c.MustCall(t, http.MethodPost, api+"/resourceslices", map[string]any{"metadata": map[string]any{"name": namespace}, "spec": map[string]any{
		"driver": driver, "nodeName": "k1", "pool": map[string]any{"name": namespace, "generation": 1, "resourceSliceCount": 1},
		"devices": []any{map[string]any{"name": "gpu-0", "attributes": map[string]any{"kind": map[string]string{"string": "gpu"}}}}}}, nil)
	t.Cleanup(func() {
		for _, path := range []string{"/deviceclasses/" + driver, "/resourceslices/" + namespace} {
			_, _, _ = c.Call(context.Background(), http.MethodDelete, api+path, nil)
		}
	})
	r := newRig(t, c, namespace, "", func(o *kubernetes.Options) { o.NodeWait = 2 * time.Second })
	r.expectRefusal(newSpec("true", func(s *dstack.AttemptSpec) { s.GPUs = []dstack.GPU{{ID: "class:" + driver + "#0"}} }), false, true,
		"the cluster had no node for the pod within 2s", "no such key: nosuch")
}

func waitsForAnyNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "", func(o *kubernetes.Options) { o.NodeWait = 6 * time.Second })
	spec := newSpec("true", func(s *dstack.AttemptSpec) { s.GPUs = []dstack.GPU{{ID: "nvidia.com/gpu#0"}} })
	r.start(spec)
	rep := r.waitFor(spec, "waiting", func(rep dstack.Report) bool { return strings.HasPrefix(rep.Progress, "waits for a node: ") })
	if !strings.Contains(rep.Progress, "Insufficient nvidia.com/gpu") || strings.Contains(rep.Progress, "preemption") {
		t.Errorf("%q", rep.Progress)
	}
	rep = r.waitFor(spec, "over", isOver)
	if !rep.OtherMachine || !strings.Contains(rep.Error, "within 6s") {
		t.Errorf("%+v", rep)
	}
}

// keepsTogether starts pods with a claim that one node mounts at a time where the scheduler chooses: it spreads pods otherwise.
func keepsTogether(t *testing.T, c *kubetest.Cluster, namespace string) {
	for _, object := range []struct{ path, text string }{
		{"/api/v1/persistentvolumes", `{"metadata": {"name": %[1]q}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": %[1]q,
			"hostPath": {"path": "/var/tmp/%[1]s", "type": "DirectoryOrCreate"}}}`},
		{"/api/v1/namespaces/" + namespace + "/persistentvolumeclaims", `{"metadata": {"name": "together"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": %[1]q,
			"resources": {"requests": {"storage": "1Gi"}}}}`},
	} {
		c.MustCall(t, http.MethodPost, object.path, fmt.Sprintf(object.text, namespace), nil)
	}
	t.Cleanup(func() {
		_, _, _ = c.Call(context.Background(), http.MethodDelete, "/api/v1/persistentvolumes/"+namespace, nil)
	})
	r := newRig(t, c, namespace, "")
	var specs []dstack.AttemptSpec
	for range 4 {
		specs = append(specs, newSpec("sleep 600", func(s *dstack.AttemptSpec) {
			s.Mounts = []dstack.Mount{{Kind: dstack.MountClaim, Source: "together", Target: "/data", OneNode: true}}
		}))
		r.start(specs[len(specs)-1])
	}
	for _, spec := range specs {
		r.waitFor(spec, "running", isRunning)
	}
	first := r.cluster.Pods().List()[0].Spec.NodeName
	for _, p := range r.cluster.Pods().List() {
		if p.Spec.NodeName != first {
			t.Errorf("pods are on %s and %s", first, p.Spec.NodeName)
		}
	}
}

func choosesNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "")
	spec := newSpec("hostname; sleep 600", func(s *dstack.AttemptSpec) {
		s.Nodes = dstack.NodeSelector{{{Label: "kubernetes.io/hostname", Operator: dstack.NodeIn, Values: []string{"k2"}}}}
	})
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	if got := r.onlyPod().Spec.NodeName; got != "k2" {
		t.Errorf("it runs on %s", got)
	}
}
