package kubernetes_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
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

func separatesInstallations(t *testing.T, c *kubetest.Cluster, namespace string) {
	one, two := newRig(t, c, namespace, "k1"), newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 600")
	one.start(spec)
	one.waitFor(spec, "running", isRunning)
	if err := two.Remove(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	if err := two.cluster.DeleteLeftovers(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if all, err := two.ListReports(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if other := one.cluster.Engine("another-instance", "k2"); other != nil {
		if all, err := other.ListReports(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("another instance reports %+v, %v", all, err)
		}
	}
	one.waitFor(spec, "running", isRunning)
}

// A secret that somebody else has made is neither used nor deleted, also where it has the name of an attempt's.
func leavesForeignSecret(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 600")
	name := kubernetes.PodName(r.options, spec)
	secrets := "/api/v1/namespaces/" + namespace + "/secrets"
	c.MustCall(t, http.MethodPost, secrets, map[string]any{"metadata": map[string]any{"name": name}}, nil)
	r.expectRefusal(spec, true, false, "this server did not create it")
	if err := r.Remove(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	c.MustCall(t, http.MethodGet, secrets+"/"+name, nil, nil)
}

// A busy cluster ends a pod just within the limit of Remove, and answers slowly after that.
func removesSlowly(t *testing.T, c *kubetest.Cluster, namespace string) {
	busy := c.Delay(t, namespace, func(r *http.Request) {
		switch {
		case r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/pods/"):
			time.Sleep(6 * time.Second)
		case r.Method == http.MethodDelete:
			time.Sleep(2500 * time.Millisecond)
		}
	})
	client, err := kubeclient.New(kubeclient.Options{KubeconfigFile: busy, Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) { o.Client = client })
	spec := newSpec("exit 0")
	r.start(spec)
	r.waitFor(spec, "exited", func(rep dstack.Report) bool { return rep.State == dstack.AttemptExited })
	if err := r.Engine.Remove(t.Context(), spec.Attempt); err != nil {
		t.Error(err)
	}
}

func asksBeforeStart(t *testing.T, c *kubetest.Cluster, namespace string) {
	var asked atomic.Int32
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) {
		o.MayStart = func(context.Context, dstack.AttemptID) error {
			if asked.Add(1) >= 2 {
				return errors.New("another server goes on")
			}
			return nil
		}
	})
	spec := newSpec("true")
	r.start(spec)
	for end := time.Now().Add(20 * time.Second); asked.Load() < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	r.waitFor(spec, "absent", func(rep dstack.Report) bool { return rep.State == dstack.AttemptAbsent })
	if left := listObjects(t, c, namespace, spec.Attempt); slices.ContainsFunc(left, func(name string) bool { return strings.HasPrefix(name, "pod") }) {
		t.Errorf("there is a pod: %v", left)
	}
	sweep(t, r.cluster.Cluster)
	if left := listObjects(t, c, namespace, spec.Attempt); len(left) > 0 {
		t.Errorf("the sweep leaves %v", left)
	}
}

// sweep sweeps twice, as long apart as a secret may be without its pod.
func sweep(t *testing.T, c *kubernetes.Cluster) {
	t.Helper()
	for _, after := range []time.Duration{0, 4 * time.Minute} {
		if err := c.DeleteLeftovers(t.Context(), after); err != nil {
			t.Fatal(err)
		}
	}
}

// sparesOthersStart lets another server sweep while this one is between the secret and the pod, whatever its clock says; and once the pod
// runs, which the other one does not know.
func sparesOthersStart(t *testing.T, c *kubetest.Cluster, namespace string) {
	var asked atomic.Int32
	atPod, mayGoOn := make(chan struct{}), make(chan struct{})
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) {
		o.MayStart = func(context.Context, dstack.AttemptID) error {
			if asked.Add(1) == 2 {
				close(atPod)
				<-mayGoOn
			}
			return nil
		}
	})
	other := kubernetes.New(kubernetes.Options{Client: newClient(t, c, namespace), Key: "kubernetes", Installation: r.options.Installation})
	spec := newSpec("exec httpd -f -p 8080")
	r.start(spec)
	<-atPod
	secrets := readObjects(t, c, namespace, spec.Attempt)
	if err := other.DeleteLeftovers(t.Context(), 30*time.Minute); err != nil {
		t.Error(err)
	}
	if left := readObjects(t, c, namespace, spec.Attempt); !slices.Equal(left, secrets) || len(left) == 0 {
		t.Errorf("of %v, another server leaves %v", secrets, left)
	}
	close(mayGoOn)
	r.waitFor(spec, "running", isRunning)
	for range 2 {
		if err := other.DeleteLeftovers(t.Context(), time.Hour); err != nil {
			t.Error(err)
		}
	}
	if err := other.DeleteLeftovers(t.Context(), 2*time.Hour); err != nil {
		t.Error(err)
	}
	if left := readObjects(t, c, namespace, spec.Attempt); len(left) != 1+len(secrets) {
		t.Errorf("of a pod that runs, another server leaves %v", left)
	}
}
