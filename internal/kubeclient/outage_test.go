package kubeclient_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

func isLongRun() bool { return os.Getenv("DSTACK_TEST_LONG") != "" }

// An API server that is frozen, and one that is killed and started again, as rules 42 to 45 of design/KUBERNETES.md describe:
// the mirror says within seconds that it is not fresh, keeps what it has, and is back within seconds.
func TestMirror_OutagesOfARealAPIServer(t *testing.T) {
	if !isLongRun() {
		return // it needs a cluster of its own; make sim runs it
	}
	cluster := kubetest.Start(t, 1)
	c := newClient(t, cluster)
	m := newMirror(t, c)
	startPod(t, c, newPod("first", "sleep 1000"))
	waitForNames(t, m, "first")
	conn := dialUntilOpen(t, c)

	t.Run("frozen", func(t *testing.T) {
		cluster.Control(t, "freeze-api")
		checkAway(t, m, 12*time.Second)
		time.Sleep(5 * time.Second)
		cluster.Control(t, "thaw-api")
		checkBack(t, c, m, "second", 6*time.Second)
	})
	t.Run("killed", func(t *testing.T) {
		cluster.Control(t, "stop-api")
		checkAway(t, m, 8*time.Second)
		time.Sleep(10 * time.Second)
		cluster.Control(t, "start-api")
		checkBack(t, c, m, "third", 6*time.Second)
	})
	if _, err := conn.Write([]byte("x")); err == nil {
		_, err = conn.Read(make([]byte, 1))
		t.Logf("a connection through the API server that was killed: %v", err)
	}
}

func dialUntilOpen(t *testing.T, c *kubeclient.Client) interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
} {
	t.Helper()
	conn, err := c.DialPod(t.Context(), "first", 80)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// checkAway waits until the mirror says that it is not fresh, and checks that it keeps its pods.
func checkAway(t *testing.T, m *kubeclient.Mirror[corev1.Pod], limit time.Duration) {
	t.Helper()
	began, had := time.Now(), len(m.List())
	waitUntil(t, limit, func() error {
		if !kubeclient.IsAway(m.Err()) {
			return fmt.Errorf("the mirror's error is %w", m.Err())
		}
		return nil
	})
	t.Logf("away after %v: %v", time.Since(began), m.Err())
	if len(m.List()) != had {
		t.Errorf("the mirror has %d pods, want %d", len(m.List()), had)
	}
	if m.FreshAt().After(began.Add(time.Second)) {
		t.Error("the mirror is fresh during the outage")
	}
}

// checkBack waits until the mirror has a pod that is created after an outage.
func checkBack(t *testing.T, c *kubeclient.Client, m *kubeclient.Mirror[corev1.Pod], pod string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	waitUntil(t, limit, func() error { return c.CheckHealth(t.Context()) })
	answered := time.Now()
	if _, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, newPod(pod, "sleep 1000")); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, limit, func() error {
		if _, ok := m.Get(pod); !ok || m.Err() != nil || m.FreshAt().Before(began) {
			return fmt.Errorf("the mirror has %d pods, fresh %v ago: %w", len(m.List()), time.Since(m.FreshAt()), m.Err())
		}
		return nil
	})
	t.Logf("the API server answered after %v, the mirror was back %v later", answered.Sub(began), time.Since(answered))
}
