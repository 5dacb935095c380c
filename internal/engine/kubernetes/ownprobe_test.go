package kubernetes_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/spec"
)

// kubectl shows what the service's probe says, and the server goes on to know whether the port is open: its own probes decide
// what the replica gets.
func TestOwnProbe(t *testing.T) {
	t.Parallel()
	c := kubetest.Need(t)
	r := newRig(t, c, c.NewNamespace(t), "k1", func(o *kubernetes.Options) { o.Dialer = newDialer() })
	served := newSpec("mkdir /own && cd /own && httpd -f -p 8080; sleep 100", func(s *dstack.AttemptSpec) {
		s.ReadyProbe = &spec.Probe{Method: "get", URL: "/health", Interval: 1, Timeout: 2, ReadyAfter: 1}
	})
	isReady := func() bool {
		for _, condition := range r.onlyPod().Status.Conditions {
			if condition.Type == corev1.PodReady {
				return condition.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	expect := func(want, wantPort bool, when string) {
		t.Helper()
		r.waitFor(served, "as expected "+when, func(rep dstack.Report) bool {
			return rep.State == dstack.AttemptRunning && rep.Ready == wantPort && isReady() == want
		})
	}
	r.start(served)
	expect(false, true, "while /health is missing")
	r.exec(served, ": > /own/health")
	expect(true, true, "with /health")
	r.exec(served, "rm /own/health")
	expect(false, true, "once /health is gone")
	r.exec(served, "kill -KILL $(pidof httpd)")
	expect(false, false, "once the port is closed")
}
