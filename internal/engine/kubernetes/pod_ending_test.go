package kubernetes_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient/kubetest"
)

// survivesDeletion deletes a pod as kubectl does. Its secret goes with the next sweep.
func survivesDeletion(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("trap 'echo ends; exit 5' TERM; while :; do sleep 0.1; done")
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	pod := r.onlyPod().Name
	c.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+namespace+"/pods/"+pod, nil, nil)
	rep := r.waitFor(spec, "over", isOver)
	if rep.State != dstack.AttemptExited || rep.ExitCode != 5 && !rep.Disrupted || !slices.Contains(rep.LastOutput, "ends") {
		t.Errorf("%+v", rep)
	}
	other := newSpec("true")
	other.Attempt = spec.Attempt
	if err := r.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if got := r.waitFor(spec, "still over", isOver); got.ExitCode != rep.ExitCode {
		t.Errorf("it was started again: %+v", got)
	}
}

// reportsDeletion deletes the pod of a process that ignores SIGTERM: it is reported at once, and not when the process ends. What the
// server itself ends is not reported so.
func reportsDeletion(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("trap '' TERM; exec httpd -f -p 8080")
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	began, pod := time.Now(), r.onlyPod().Name
	c.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+namespace+"/pods/"+pod, nil, nil)
	rep := r.waitFor(spec, "ending", func(rep dstack.Report) bool { return rep.Ending != "" })
	if took := time.Since(began); took > 5*time.Second || !isRunning(rep) || rep.Ready || rep.Disrupted || !strings.Contains(rep.Ending, pod+" is being deleted, and not by this server") {
		t.Errorf("after %s: %+v", took, rep)
	}
	if err := r.Stop(t.Context(), spec.Attempt, 5*time.Second); err != nil { // it has drained
		t.Fatal(err)
	}
	if rep = r.waitFor(spec, "over", isOver); rep.Disrupted || time.Since(began) > 25*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), rep)
	}
	own := newSpec("trap '' TERM; exec sleep 600")
	r.start(own)
	r.waitFor(own, "running", isRunning)
	if err := r.Stop(t.Context(), own.Attempt, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	if rep = r.waitFor(own, "over", func(rep dstack.Report) bool { return isOver(rep) || rep.Ending != "" }); rep.Ending != "" || rep.Disrupted {
		t.Errorf("it was stopped by the server: %+v", rep)
	}
}

// hooksSucceed ends pods in each way: their hooks before SIGTERM do not fail. On a busy machine a kubelet may see the end of killed
// processes only after the engine has ceased to wait for that, and then runs the hook in vain: so each way has three tries.
func hooksSucceed(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	for i, end := range []func(id dstack.AttemptID) error{
		func(id dstack.AttemptID) error { return r.Stop(t.Context(), id, 5*time.Second) },
		func(id dstack.AttemptID) error { return r.Stop(t.Context(), id, 0) },
		func(id dstack.AttemptID) error { return r.Remove(t.Context(), id) },
		func(id dstack.AttemptID) error { return r.Remove(t.Context(), id) },
	} {
		var failure string
		for range 3 {
			spec := newSpec("exec httpd -f -p 8080")
			r.start(spec)
			r.waitFor(spec, "running", isRunning)
			if err := end(spec.Attempt); err != nil {
				t.Fatal(err)
			}
			r.waitFor(spec, "over", func(rep dstack.Report) bool { return rep.State.IsOver() })
			if failure = failedHook(t, c, namespace, kubernetes.PodName(r.options, spec)); failure == "" {
				break
			}
			t.Logf("way %d: %s", i, failure)
		}
		if failure != "" {
			t.Errorf("way %d of ending a pod: %s", i, failure)
		}
	}
}

// failedHook returns what the events of a pod say of a hook that failed; empty: none did.
func failedHook(t *testing.T, c *kubetest.Cluster, namespace, pod string) string {
	t.Helper()
	var events struct {
		Items []struct {
			Reason, Message string
			InvolvedObject  struct{ Name string }
		}
	}
	c.MustCall(t, http.MethodGet, "/api/v1/namespaces/"+namespace+"/events", nil, &events)
	for _, e := range events.Items {
		if e.Reason == "FailedPreStopHook" && e.InvolvedObject.Name == pod {
			return e.Reason + ": " + e.Message
		}
	}
	return ""
}

func blocksEviction(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("exec httpd -f -p 8080")
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	pod := r.onlyPod().Name
	eviction := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q}}`, pod)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		status, text, err := c.Call(t.Context(), http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods/"+pod+"/eviction", eviction)
		if err == nil && status == http.StatusTooManyRequests && strings.Contains(string(text), "disruption budget") {
			break
		}
		if status == http.StatusCreated || time.Now().After(end) {
			t.Fatalf("status %d, %v: %s", status, err, text)
		}
	}
}

// servesBeforeEnd checks that a process goes on for a while after its pod was deleted: gateways learn of that meanwhile.
func servesBeforeEnd(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("trap 'exit 0' TERM; while :; do date +%s%N; sleep 0.1; done")
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	began := time.Now()
	if err := r.Stop(t.Context(), spec.Attempt, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	rep := r.waitFor(spec, "over", isOver)
	if took := rep.EndedAt.Sub(began); took < time.Second || rep.ExitCode != 0 {
		t.Errorf("it ended after %v: %+v", took, rep)
	}
}
