package kubeclient_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/loop"
)

// newClient returns an administrator's client for a new namespace of the cluster.
func newClient(t *testing.T, cluster *kubetest.Cluster) *kubeclient.Client {
	t.Helper()
	return openClient(t, kubeclient.Options{KubeconfigFile: cluster.Kubeconfig, Namespace: cluster.NewNamespace(t)})
}

func openClient(t *testing.T, o kubeclient.Options) *kubeclient.Client {
	t.Helper()
	c, err := kubeclient.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runTasks runs tasks until the test ends.
func runTasks(t *testing.T, tasks ...loop.Task) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx, tasks...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a task ended: %v", err)
		}
	})
}

// newPod returns a pod that runs a shell script in busybox, with a short grace period.
func newPod(name, script string) *corev1.Pod {
	grace := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"test": "yes"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "main", Image: kubetest.Busybox, Command: []string{"sh", "-c", script}}},
		},
	}
}

// startPod creates a pod and waits until it runs.
func startPod(t *testing.T, c *kubeclient.Client, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	if _, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, pod); err != nil {
		t.Fatal(err)
	}
	return waitForPod(t, c, pod.Name, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
}

func waitForPod(t *testing.T, c *kubeclient.Client, name string, is func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	waitUntil(t, 30*time.Second, func() error {
		var err error
		if pod, err = kubeclient.Get(t.Context(), c, kubeclient.Pods, name); err == nil && !is(pod) {
			err = errors.New("the pod is " + string(pod.Status.Phase))
		}
		return err
	})
	return pod
}

// waitUntil repeats a check until it succeeds.
func waitUntil(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %v", limit, err)
		}
	}
}

// checkError checks the meaning, the kind, the message and the hint of an error.
func checkError(t *testing.T, err error, meaning kubeclient.Meaning, kind dstack.Kind, message, hint string) {
	t.Helper()
	failure, ok := errors.AsType[*dstack.Error](err)
	if !ok {
		t.Errorf("error %v (%T) is not for the user", err, err)
		return
	}
	if kubeclient.MeaningOf(err) != meaning || failure.Kind != kind || failure.Message != message || failure.Hint != hint {
		t.Errorf("error\n  %q, %q: %s\n  hint: %s\nwant\n  %q, %q: %s\n  hint: %s", kubeclient.MeaningOf(err), failure.Kind, failure.Message, failure.Hint,
			meaning, kind, message, hint)
	}
}
