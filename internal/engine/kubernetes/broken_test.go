package kubernetes_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient/kubetest"
)

// TestBrokenCluster breaks a cluster of its own. It is part of the long run.
func TestBrokenCluster(t *testing.T) {
	if os.Getenv("DSTACK_TEST_LONG") == "" {
		return
	}
	c := kubetest.Start(t, 2)
	namespace := c.NewNamespace(t)
	t.Run("an API server that goes away and comes back", func(t *testing.T) { survivesAPIServer(t, c, namespace) })
	t.Run("a node that goes away and comes back", func(t *testing.T) { survivesNode(t, c, namespace) })
}

// numberReader reads the output of an attempt that counts.
type numberReader struct {
	mu      sync.Mutex
	numbers []string
	done    sync.WaitGroup
}

func (r *rig) readNumbers(ctx context.Context, spec dstack.AttemptSpec) *numberReader {
	n := &numberReader{}
	n.done.Go(func() {
		for l, err := range r.Logs(ctx, spec.Attempt, time.Time{}) {
			if err != nil {
				r.t.Errorf("logs: %v", err)
				return
			}
			n.mu.Lock()
			n.numbers = append(n.numbers, string(l.Text))
			n.mu.Unlock()
		}
	})
	return n
}

func (n *numberReader) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.numbers)
}

// counts prints a number ten times a second.
const counts = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"

// Rules 42 to 45: nothing ends, nothing is doubled, output has no gap, and what was asked for meanwhile happens.
func survivesAPIServer(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	running, later := newSpec(counts), newSpec("sleep 600")
	r.start(running)
	r.waitFor(running, "running", isRunning)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	numbers := r.readNumbers(ctx, running)
	c.Control(t, "stop-api")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := r.ListReports(t.Context()); dstack.KindOf(err) == dstack.Unavailable {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody notices that the API server is away")
		}
	}
	r.start(later)
	time.Sleep(8 * time.Second)
	c.Control(t, "start-api")
	back := time.Now()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err := r.ListReports(t.Context()); err == nil {
			break
		}
	}
	if took := time.Since(back); took > 12*time.Second {
		t.Errorf("the pods were known %v after the API server came back", took)
	}
	r.waitFor(later, "running", isRunning)
	if all := r.cluster.Pods().List(); len(all) != 2 {
		t.Errorf("there are %d pods", len(all))
	}
	before := numbers.count()
	for end := time.Now().Add(20 * time.Second); numbers.count() < before+20 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
	}
	cancel()
	numbers.done.Wait()
	for i, text := range numbers.numbers {
		if text != fmt.Sprint(i) {
			t.Fatalf("line %d is %q: %q", i, text, numbers.numbers[max(0, i-3):min(len(numbers.numbers), i+3)])
		}
	}
	t.Logf("%d lines without a gap", len(numbers.numbers))
}

// Rules 34 to 37: a lost node makes its pods not ready, and nothing else; a removal waits for it.
func survivesNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k2")
	spec := newSpec("exec httpd -f -p 8080")
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	c.Control(t, "crash", "2")
	r.waitFor(spec, "not ready", func(rep dstack.Report) bool { return isRunning(rep) && !rep.Ready })
	time.Sleep(10 * time.Second) // Kubernetes would have marked the pod for deletion with a toleration of 5 seconds
	r.waitFor(spec, "still known", isRunning)
	if err := r.Engine.Remove(t.Context(), spec.Attempt); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the removal of a pod on a lost node: %v", err)
	}
	c.Control(t, "up", "2")
	if err := r.Remove(t.Context(), spec.Attempt); err != nil {
		t.Error(err)
	}
	if all, err := r.ListReports(t.Context()); err != nil || slices.ContainsFunc(all, func(rep dstack.Report) bool { return rep.Attempt == spec.Attempt }) {
		t.Errorf("%+v, %v", all, err)
	}
}
