package kubeclient_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

// An API server answers 403 for many reasons, and so it does with 409, 404 and 400. Each has a meaning and words of its own
// (rules 12, 20, 21, 26, 29, 54, 55 of design/KUBERNETES.md).
func TestCreate_SaysWhyAPodIsRefused(t *testing.T) {
	t.Parallel()
	c := newClient(t, kubetest.Need(t))
	const cannot = `cannot create the pod "x" in the cluster "kubernetes": `
	for _, test := range []struct {
		name          string
		change        func(*corev1.Pod)
		meaning       kubeclient.Meaning
		kind          dstack.Kind
		message, hint string
	}{
		{"a priority class that does not exist", func(p *corev1.Pod) { p.Spec.PriorityClassName = "nosuch" },
			kubeclient.MissingReference, dstack.Invalid, cannot + "no PriorityClass with name nosuch was found", "create it in the cluster, or name another one"},
		{"a service account that does not exist", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nosuch" },
			kubeclient.MissingReference, dstack.Invalid, cannot + "error looking up service account " + c.Namespace() +
				`/nosuch: serviceaccount "nosuch" not found`, "create it in the cluster, or name another one"},
		{"a runtime class that does not exist", func(p *corev1.Pod) { name := "nosuch"; p.Spec.RuntimeClassName = &name },
			kubeclient.MissingReference, dstack.Invalid, cannot + `pod rejected: RuntimeClass "nosuch" not found`,
			"create it in the cluster, or name another one"},
		{"a GPU that is only requested", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"nvidia.com/gpu": kubeclient.Count(1)}
		}, kubeclient.Refused, dstack.Invalid,
			cannot + "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources", ""},
		{"annotations that are too long", func(p *corev1.Pod) {
			p.Annotations = map[string]string{"a": strings.Repeat("a", 262_144)}
		}, kubeclient.Refused, dstack.Invalid, cannot + "metadata.annotations: Too long: may not be more than 262144 bytes", ""},
		{"a pod that is too large to be stored", func(p *corev1.Pod) {
			for i := range 20 {
				p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprint("A", i), Value: strings.Repeat("a", 100_000)})
			}
		}, kubeclient.TooLarge, dstack.TooLarge, cannot + "it has 2000783 bytes, and a cluster stores at most 1500000",
			"shorten environment values and commands, or put them into files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := newPod("x", "sleep 1000")
			test.change(pod)
			_, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, pod)
			checkError(t, err, test.meaning, test.kind, test.message, test.hint)
		})
	}
	if _, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, newPod("x", "trap '' TERM; sleep 1000")); err != nil {
		t.Fatal(err)
	}
	_, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, newPod("x", "true"))
	checkError(t, err, kubeclient.AlreadyExists, dstack.Conflict, cannot+"the name is taken", "")
	if err := kubeclient.Delete(t.Context(), c, kubeclient.Pods, "x", kubeclient.DeleteOptions{Grace: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	_, err = kubeclient.Create(t.Context(), c, kubeclient.Pods, newPod("x", "true"))
	checkError(t, err, kubeclient.BeingDeleted, dstack.Conflict, cannot+"an object of this name is being deleted", "wait until it is gone")
}

// A quota is a lack of capacity, not of a right (rule 55).
func TestCreate_TellsQuotasFromRights(t *testing.T) {
	t.Parallel()
	c := newClient(t, kubetest.Need(t))
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"limits.memory": resource.MustParse("1Gi")}}}
	if _, err := kubeclient.Create(t.Context(), c, kubeclient.Quotas, quota); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 10*time.Second, func() error {
		q, err := kubeclient.Get(t.Context(), c, kubeclient.Quotas, "q")
		if err == nil && len(q.Status.Hard) == 0 {
			err = fmt.Errorf("the quota is not in effect")
		}
		return err
	})
	_, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, newPod("x", "true"))
	checkError(t, err, kubeclient.MissingLimit, dstack.Invalid,
		`cannot create the pod "x" in the cluster "kubernetes": failed quota: q: must specify limits.memory for: main`,
		"a quota counts this resource: name it in resources: of the configuration")
	pod := newPod("x", "true")
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": kubeclient.MiB(2048)}
	_, err = kubeclient.Create(t.Context(), c, kubeclient.Pods, pod)
	checkError(t, err, kubeclient.OverQuota, dstack.NoCapacity, `cannot create the pod "x" in the cluster "kubernetes": exceeded quota: q,`+
		` requested: limits.memory=2147483648, used: limits.memory=0, limited: limits.memory=1Gi`,
		`ask for less, stop other pods of the namespace "`+c.Namespace()+`", or have the quota raised`)
}

// A namespace that is missing or being deleted is told from objects that are missing, also where an API server says 403.
func TestNamespace_MissingOrDeleted(t *testing.T) {
	t.Parallel()
	c := newClient(t, kubetest.Need(t))
	absent := c.InNamespace("nosuch")
	_, err := kubeclient.Create(t.Context(), absent, kubeclient.Pods, newPod("x", "true"))
	checkError(t, err, kubeclient.NamespaceMissing, dstack.Unavailable,
		`cannot create the pod "x" in the cluster "kubernetes": the namespace "nosuch" does not exist`, "create it: kubectl create namespace nosuch")
	checkError(t, absent.CheckNamespace(t.Context()), kubeclient.NamespaceMissing, dstack.Unavailable,
		`in the cluster "kubernetes", the namespace "nosuch" does not exist`, "create it: kubectl create namespace nosuch")
	if err := c.CheckNamespace(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = kubeclient.Get(t.Context(), c, kubeclient.Pods, "nosuch")
	checkError(t, err, kubeclient.NotFound, dstack.NotFound, `cannot read the pod "nosuch" in the cluster "kubernetes": it does not exist`, "")
	_, err = kubeclient.List(t.Context(), c, kubeclient.HTTPRoutes, kubeclient.Selection{})
	checkError(t, err, kubeclient.NotServed, dstack.Unsupported,
		`cannot list HTTP routes in the cluster "kubernetes": the cluster does not have this kind of object`,
		"use a newer Kubernetes, or install what defines it")

	// A config map with a finalizer keeps the namespace in deletion.
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept", Finalizers: []string{"dstack.ai/test"}}}
	if _, err := kubeclient.Create(t.Context(), c, kubeclient.ConfigMaps, kept); err != nil {
		t.Fatal(err)
	}
	defer func() {
		free := map[string]any{"metadata": map[string]any{"finalizers": nil}}
		if _, err := kubeclient.Patch(context.WithoutCancel(t.Context()), c, kubeclient.ConfigMaps, "kept", free); err != nil {
			t.Error(err)
		}
	}()
	if err := kubeclient.Delete(t.Context(), c, kubeclient.Namespaces, c.Namespace(), kubeclient.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	again := "wait until it is gone, and create it again; or use another one: namespace: in config.yml"
	_, err = kubeclient.Create(t.Context(), c, kubeclient.Pods, newPod("x", "true"))
	checkError(t, err, kubeclient.NamespaceDeleted, dstack.Unavailable,
		`cannot create the pod "x" in the cluster "kubernetes": the namespace "`+c.Namespace()+`" is being deleted`, again)
	checkError(t, c.CheckNamespace(t.Context()), kubeclient.NamespaceDeleted, dstack.Unavailable,
		`in the cluster "kubernetes", the namespace "`+c.Namespace()+`" is being deleted`, again)
}

// An account learns each right that it lacks, by name, also for streams, whose refusal names none (rules 46, 54, question 60).
func TestRights_AreNamed(t *testing.T) {
	t.Parallel()
	cluster := kubetest.Need(t)
	namespace := cluster.NewNamespace(t)
	poor := openClient(t, kubeclient.Options{KubeconfigFile: cluster.NewAccount(t, namespace, []kubetest.Rule{
		{APIGroups: []string{""}, Resources: []string{"pods/exec", "pods/portforward"}, Verbs: []string{"get"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"watch"}},
	}, nil)})
	if poor.Namespace() != namespace {
		t.Errorf("the namespace is %q, want that of the kubeconfig, %q", poor.Namespace(), namespace)
	}
	role := "give the account the right: docs/reference/kubernetes.md has the whole role"
	lacks := func(right string) string {
		return `in the cluster "kubernetes": the account lacks the right to ` + right + ` in the namespace "` + namespace + `"`
	}
	checkError(t, poor.CheckHealth(t.Context()), kubeclient.NoRight, dstack.Forbidden, "cannot list pods "+lacks("list pods"), role)
	_, err := kubeclient.Create(t.Context(), poor, kubeclient.Pods, newPod("x", "true"))
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden, `cannot create the pod "x" `+lacks("create pods"), role)
	_, err = kubeclient.List(t.Context(), poor, kubeclient.Nodes, kubeclient.Selection{})
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden,
		`cannot list nodes in the cluster "kubernetes": the account lacks the right to list nodes at the cluster scope`, role)
	_, err = kubeclient.List(t.Context(), poor, kubeclient.Budgets, kubeclient.Selection{})
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden, "cannot list disruption budgets "+lacks("list poddisruptionbudgets.policy"), role)

	startPod(t, openClient(t, kubeclient.Options{KubeconfigFile: cluster.Kubeconfig, Namespace: namespace}), newPod("x", "sleep 1000"))
	_, err = poor.Exec(t.Context(), kubeclient.ExecRequest{Pod: "x", Argv: []string{"true"}})
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden, `cannot run a command in the pod "x" in the cluster "kubernetes": the account lacks`+
		` a right in the namespace "`+namespace+`": it needs both get and create of pods/exec`, role)
	_, err = poor.DialPod(t.Context(), "x", 8080)
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden, `cannot connect to the pod "x" in the cluster "kubernetes": the account lacks`+
		` a right in the namespace "`+namespace+`": it needs both get and create of pods/portforward`, role)

	rights := []kubeclient.Right{
		{Verb: "create", Resource: "pods"},
		{Verb: "create", Resource: "secrets"},
		{Verb: "create", Resource: "pods", Subresource: "exec"},
		{Verb: "list", Resource: "events"},
		{Verb: "list", Resource: "nodes", IsClusterWide: true},
		{Verb: "list", Group: "resource.k8s.io", Resource: "deviceclasses", IsClusterWide: true, IsOptional: true},
	}
	optional, err := poor.CheckRights(t.Context(), rights)
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden, `the account of the cluster "kubernetes" lacks rights in the namespace "`+namespace+
		`": create pods, create pods/exec, list events, list nodes (cluster-wide)`,
		"give the account the role of docs/reference/kubernetes.md; it shows each right: kubectl auth can-i --list --namespace "+namespace)
	if len(optional) != 1 || optional[0].String() != "list deviceclasses.resource.k8s.io" {
		t.Errorf("optional rights that are missing: %v", optional)
	}
	_, err = poor.InNamespace("nosuch").CheckRights(t.Context(), rights)
	checkError(t, err, kubeclient.NoRight, dstack.Forbidden, `the account of the cluster "kubernetes" lacks rights in the namespace "nosuch":`+
		` create pods, create secrets, create pods/exec, list events, list nodes (cluster-wide)`,
		`check that the namespace "nosuch" exists and is the right one: namespace: in config.yml; then give the account the role of`+
			` docs/reference/kubernetes.md; it shows each right: kubectl auth can-i --list --namespace nosuch`)
	if err := poor.InNamespace("nosuch").CheckNamespace(t.Context()); err != nil {
		t.Errorf("an account that may not know of a namespace is told: %v", err)
	}
}
