package kubernetes_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

func refusesUnknownCommand(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("", func(s *dstack.AttemptSpec) { s.Argv = []string{"/no/such"} }), true, false, "the command cannot be run in image", "/no/such")
}

func refusesTinyMemory(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("true", func(s *dstack.AttemptSpec) { s.MemoryMiB = 1 }), true, false, "the limit on memory is too low")
}

func waitsForRegistry(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("true", func(s *dstack.AttemptSpec) { s.Image = c.Network(t) + ".1:1/no/registry:1" })
	r.start(spec)
	r.waitFor(spec, "waiting", func(rep dstack.Report) bool {
		return rep.State == dstack.AttemptPulling && strings.Contains(rep.Progress, "is tried again")
	})
}

func refusesOverQuota(t *testing.T, c *kubetest.Cluster, namespace string) {
	c.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/resourcequotas", `{"metadata":{"name":"q"},"spec":{"hard":{"requests.nvidia.com/gpu":"1"}}}`, nil)
	r := newRig(t, c, namespace, "k1")
	two := func(s *dstack.AttemptSpec) { s.GPUs = []dstack.GPU{{ID: "nvidia.com/gpu#0"}, {ID: "nvidia.com/gpu#1"}} }
	time.Sleep(time.Second) // the quota counts from a moment after its creation on
	r.expectRefusal(newSpec("true", two), false, true, "quota")
}

func refusesByPolicy(t *testing.T, c *kubetest.Cluster, namespace string) {
	c.MustCall(t, http.MethodPatch, "/api/v1/namespaces/"+namespace, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`, nil)
	time.Sleep(time.Second) // the API server's copy of the namespace
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("true"), true, false, "PodSecurity")
}

func refusesDeletedNamespace(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	keeps := newSpec("trap '' TERM; sleep 600")
	r.start(keeps)
	r.waitFor(keeps, "running", isRunning)
	c.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+namespace, nil, nil)
	spec := newSpec("true")
	r.start(spec)
	if rep := r.waitFor(spec, "over", isOver); !strings.Contains(rep.Error, "namespace") {
		t.Errorf("%+v", rep)
	}
}

// Rule 19: with two budgets, a pod can never be evicted.
func leavesOtherBudget(t *testing.T, c *kubetest.Cluster, namespace string) {
	budgets := "/apis/policy/v1/namespaces/" + namespace + "/poddisruptionbudgets"
	c.MustCall(t, http.MethodPost, budgets, `{"metadata":{"name":"mine"},"spec":{"maxUnavailable":1,"selector":{}}}`, nil)
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("true")
	r.start(spec)
	r.waitFor(spec, "over", isOver)
	var list struct{ Items []struct{} }
	if c.MustCall(t, http.MethodGet, budgets, nil, &list); len(list.Items) != 1 {
		t.Errorf("there are %d budgets", len(list.Items))
	}
}

// needsListedRights runs an attempt, its code, a command and its output with exactly the rights of the list.
func needsListedRights(t *testing.T, c *kubetest.Cluster, namespace string) {
	var rules []kubetest.Rule
	for _, right := range kubernetes.Rights() {
		resource := right.Resource
		if right.Subresource != "" {
			resource += "/" + right.Subresource
		}
		rules = append(rules, kubetest.Rule{APIGroups: []string{right.Group}, Resources: []string{resource}, Verbs: []string{right.Verb}})
	}
	client, err := kubeclient.New(kubeclient.Options{KubeconfigFile: c.NewAccount(t, namespace, rules, nil)})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) { o.Client = client })
	spec := newSpec("cat app/hello.txt; echo; exec httpd -f -p 8080", func(s *dstack.AttemptSpec) {
		s.CodeHash, s.Auth = "code-of-enginetest", &dstack.RegistryAuth{Username: "u", Password: "p"}
	})
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	if got := r.exec(spec, "cat app/hello.txt"); got != "hello from the folder" {
		t.Errorf("%q", got)
	}
	if err := r.Stop(t.Context(), spec.Attempt, time.Second); err != nil {
		t.Fatal(err)
	}
	if got := r.output(spec); !strings.HasPrefix(got, "hello from the folder") {
		t.Errorf("%q", got)
	}
	if err := r.cluster.DeleteLeftovers(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
}
