package kubeclient_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

// Rules 12 and 13: a deletion is about one object, is no force delete by accident, and may be repeated.
func TestDelete(t *testing.T) {
	t.Parallel()
	c := newClient(t, kubetest.Need(t))
	m := newMirror(t, c)
	pod := startPod(t, c, newPod("one", "trap '' TERM; sleep 1000"))
	waitForNames(t, m, "one")
	if err := kubeclient.Delete(t.Context(), c, kubeclient.Pods, "one", kubeclient.DeleteOptions{UID: "another"}); err != nil {
		t.Errorf("the deletion of an earlier pod of the name: %v", err)
	}
	if now, err := kubeclient.Get(t.Context(), c, kubeclient.Pods, "one"); err != nil || now.DeletionTimestamp != nil {
		t.Fatalf("the deletion of an earlier pod reached this one: %v, %v", now, err)
	}
	deletion := func(grace time.Duration) int64 {
		if err := kubeclient.Delete(t.Context(), c, kubeclient.Pods, "one", kubeclient.DeleteOptions{UID: pod.UID, Grace: grace}); err != nil {
			t.Fatal(err)
		}
		now, err := kubeclient.Get(t.Context(), c, kubeclient.Pods, "one")
		if err != nil || now.DeletionGracePeriodSeconds == nil {
			t.Fatalf("the pod is %v, %v", now, err)
		}
		return *now.DeletionGracePeriodSeconds
	}
	if first, longer, shorter := deletion(20*time.Second), deletion(time.Minute), deletion(1500*time.Millisecond); first != 20 || longer != 20 || shorter < 1 || shorter > 2 {
		t.Errorf("grace %d, then %d, then %d", first, longer, shorter)
	}
	if err := kubeclient.Delete(t.Context(), c, kubeclient.Pods, "one", kubeclient.DeleteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	waitForNames(t, m)
	if err := kubeclient.Delete(t.Context(), c, kubeclient.Pods, "one", kubeclient.DeleteOptions{}); err != nil {
		t.Errorf("the deletion of nothing: %v", err)
	}
	// A grace of zero seconds would forget a pod whose process still runs. Only Force does.
	for grace, want := range map[time.Duration]string{0: "<nil>", time.Nanosecond: "1", time.Second: "1"} {
		options := kubeclient.EncodeDelete(kubeclient.DeleteOptions{Grace: grace})
		got := "<nil>"
		if options.GracePeriodSeconds != nil {
			got = fmt.Sprint(*options.GracePeriodSeconds)
		}
		if got != want {
			t.Errorf("a grace of %v is sent as %s, want %s", grace, got, want)
		}
	}
}

// Rule 40: an Apply that changes nothing changes nothing, takes fields over, and leaves others' fields alone.
func TestApply(t *testing.T) {
	t.Parallel()
	c := newClient(t, kubetest.Need(t))
	apply := func(data map[string]string) *corev1.ConfigMap {
		t.Helper()
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: data}
		applied, err := kubeclient.Apply(t.Context(), c, kubeclient.ConfigMaps, object)
		if err != nil {
			t.Fatal(err)
		}
		return applied
	}
	first := apply(map[string]string{"a": "1", "b": "2"})
	if again := apply(map[string]string{"a": "1", "b": "2"}); again.ResourceVersion != first.ResourceVersion {
		t.Error("an Apply without a change changes the object")
	}
	other := map[string]any{"data": map[string]any{"a": "changed", "c": "3"}}
	if _, err := kubeclient.Patch(t.Context(), c, kubeclient.ConfigMaps, "settings", other); err != nil {
		t.Fatal(err)
	}
	if got := apply(map[string]string{"a": "1"}); fmt.Sprint(got.Data) != "map[a:1 c:3]" {
		t.Errorf("data %v, want that of the Apply and of the other change", got.Data)
	}
	listed, err := kubeclient.List(t.Context(), c, kubeclient.ConfigMaps, kubeclient.Selection{Fields: "metadata.name=settings"})
	if err != nil || len(listed) != 1 || listed[0].ManagedFields != nil {
		t.Errorf("listed %v, %v", listed, err)
	}
}
