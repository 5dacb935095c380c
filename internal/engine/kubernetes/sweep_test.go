package kubernetes_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

// A server that is killed leaves secrets without pods, of which the next server knows nothing else.
func sweepsLeftovers(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 600")
	label := kubeclient.LabelValue(string(spec.Attempt))
	c.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/secrets", map[string]any{"metadata": map[string]any{
		"name":        "left-over-" + label[:8],
		"labels":      map[string]string{kubernetes.LabelInstallation: kubernetes.InstallationLabel(r.options.Installation), kubernetes.LabelAttempt: label},
		"annotations": map[string]string{kubernetes.AnnotationAttempt: string(spec.Attempt)},
	}}, nil)
	due, err := r.cluster.SweepOnce(t.Context(), 0)
	if err != nil || due > 4*time.Minute {
		t.Errorf("a secret that may be of a pod to come is looked at again in %s, %v", due, err)
	}
	if left := listObjects(t, c, namespace, spec.Attempt); len(left) != 1 {
		t.Errorf("it is deleted too early: %v", left)
	}
	if due, err = r.cluster.SweepOnce(t.Context(), 5*time.Minute); err != nil || due <= 5*time.Minute {
		t.Errorf("without leftovers, the next sweep is due in %s, %v", due, err)
	}
	if left := listObjects(t, c, namespace, spec.Attempt); len(left) > 0 {
		t.Errorf("the sweep leaves %v", left)
	}
}

// A pod of another server may be missing in a copy that is late. It would go with its secret.
func sweepsNothingOfUnseenPods(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 600")
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	late := kubernetes.New(r.options) // its tasks do not run: it sees no pod
	for _, after := range []time.Duration{0, time.Hour} {
		if _, err := late.SweepOnce(t.Context(), after); err != nil {
			t.Fatal(err)
		}
	}
	left := listObjects(t, c, namespace, spec.Attempt)
	if slices.Sort(left); len(left) != 2 || left[1][:7] != "secret " {
		t.Errorf("the attempt has %v", left)
	}
}

// An operator who deletes all disruption budgets, to get on with a drain, does not leave later drains without them.
func restoresBudget(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	path := "/apis/policy/v1/namespaces/" + namespace + "/poddisruptionbudgets?labelSelector=" +
		kubernetes.LabelInstallation + "=" + kubernetes.InstallationLabel(r.options.Installation)
	for _, method := range []string{"", http.MethodDelete} {
		if method != "" {
			c.MustCall(t, method, path, nil, nil)
			r.cluster.ForgetBudget()
		}
		spec := newSpec("sleep 600")
		r.start(spec)
		r.waitFor(spec, "running", isRunning)
		var found struct{ Items []any }
		if c.MustCall(t, http.MethodGet, path, nil, &found); len(found.Items) != 1 {
			t.Errorf("there are %d budgets", len(found.Items))
		}
	}
}

// A process that ends with code 0 when it is told to makes the kubelet forget that it evicted the pod.
func explainsEvictionOfObedient(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 3; exit 0")
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	pod := r.onlyPod()
	c.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/events", map[string]any{
		"metadata": map[string]any{"name": pod.Name + ".evicted"}, "type": "Warning", "reason": "Evicted",
		"message":        "Pod ephemeral local storage usage exceeds the total limit of containers 50Mi. ",
		"involvedObject": map[string]any{"kind": "Pod", "namespace": namespace, "name": pod.Name, "uid": pod.UID},
	}, nil)
	rep := r.waitFor(spec, "exited", func(rep dstack.Report) bool { return rep.State == dstack.AttemptExited })
	if !strings.Contains(rep.Error, "evicted: Pod ephemeral local storage usage exceeds") || rep.Disrupted {
		t.Errorf("%+v", rep)
	}
}
