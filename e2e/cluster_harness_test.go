package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/kubeclient/kubetest"
)

// clusterSet is a Kubernetes cluster, a namespace of it, and a server that uses them.
type clusterSet struct {
	*harness
	cluster   *kubetest.Cluster
	namespace string
}

// newClusterSet starts a server with a namespace of the cluster that all tests share. It skips the test without a cluster.
// Settings are further lines of the backend in config.yml.
func newClusterSet(t *testing.T, settings ...string) *clusterSet {
	t.Helper()
	s := &clusterSet{cluster: kubetest.Need(t)}
	runParallel(t)
	s.start(t, settings)
	return s
}

// ownCluster is the cluster whose nodes and API server tests may break, one test at a time. It boots when the first test
// needs it, and stops with the last.
var ownCluster struct {
	sync.Mutex
	folder string
}

// newBrokenSet starts a server with a cluster that the test has for itself: it may crash nodes and stop the API server. The
// next test finds all of it running again.
func newBrokenSet(t *testing.T, settings ...string) *clusterSet {
	t.Helper()
	kubetest.Need(t)
	runParallelWith(t, &ownCluster.Mutex)
	kept := os.Getenv("DSTACK_TEST_OWN_CLUSTER") // of a developer, who started it
	if kept == "" && ownCluster.folder == "" {
		folder, err := os.MkdirTemp(os.Getenv("DSTACK_TEST_CLUSTERS"), "own-")
		if err != nil {
			t.Fatal(err)
		}
		ownCluster.folder = folder
		if _, err := kubetest.Boot(t.Context(), folder, 2); err != nil {
			t.Fatal(err)
		}
	}
	s := &clusterSet{cluster: kubetest.Open(t, cmp.Or(kept, ownCluster.folder))}
	t.Cleanup(s.mend)
	s.start(t, settings)
	return s
}

// stopOwnCluster stops the cluster that tests have broken.
func stopOwnCluster() error {
	if ownCluster.folder == "" {
		return nil
	}
	if out, err := kubetest.Control(context.Background(), ownCluster.folder, "down"); err != nil {
		return fmt.Errorf("the cluster does not stop: %w: %s", err, out)
	}
	return os.RemoveAll(ownCluster.folder)
}

// mend brings back what the test has broken.
func (s *clusterSet) mend() {
	if out, err := kubetest.Control(context.Background(), s.cluster.Folder, "mend", "1", "2"); err != nil {
		s.t.Errorf("the cluster is not mended: %v: %s", err, out)
	}
	for _, node := range []string{"k1", "k2"} {
		_, _, _ = s.cluster.Call(context.Background(), http.MethodPatch, "/api/v1/nodes/"+node, `{"spec": {"unschedulable": null}}`)
	}
}

func (s *clusterSet) start(t *testing.T, settings []string) {
	t.Helper()
	s.namespace = s.cluster.NewNamespace(t)
	s.harness = newStoppedHarness(t, "process")
	t.Cleanup(func() { s.expectNoPods(t) })
	s.writeClusterConfig(settings...)
	s.startServer()
}

// writeClusterConfig writes the server's config.yml with the cluster as its only backend.
func (s *clusterSet) writeClusterConfig(settings ...string) {
	s.t.Helper()
	lines := append([]string{"type: kubernetes", "kubeconfig: {filename: " + s.cluster.Kubeconfig + "}", "namespace: " + s.namespace}, settings...)
	s.writeFile(filepath.Join(s.serverDir, "config.yml"), "projects:\n- name: main\n  backends:\n  - "+strings.Join(lines, "\n    ")+"\n")
}

// serviceConfig returns the configuration of a service of the workload on nodes.
func (s *clusterSet) serviceConfig(name string, replicas int, lines ...string) string {
	text := fmt.Sprintf("type: service\nname: %s\nimage: local/busybox:1\nreplicas: %d\nport: 8000\ncommands:\n- exec ./workload 8000\n"+
		"resources: {cpu: 0.., memory: 64MB.., disk: 0GB..}\n", name, replicas)
	return text + strings.Join(append(lines, ""), "\n")
}

// pod is what tests read of a pod.
type pod struct {
	Metadata struct {
		Name              string
		UID               string
		Labels            map[string]string
		DeletionTimestamp string
	}
	Spec struct {
		NodeName   string
		Containers []struct {
			Resources struct{ Limits map[string]string }
		}
	}
	Status struct {
		Phase, PodIP string
		Conditions   []struct{ Type, Status, Reason, Message string }
	}
}

func (p pod) isReady() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// listPods returns the pods of the test's namespace.
func (s *clusterSet) listPods() []pod {
	s.t.Helper()
	var list struct{ Items []pod }
	s.cluster.MustCall(s.t, http.MethodGet, "/api/v1/namespaces/"+s.namespace+"/pods", nil, &list)
	return list.Items
}

// countByNode returns how many pods, which are not being deleted, each node has.
func (s *clusterSet) countByNode() map[string]int {
	s.t.Helper()
	count := map[string]int{}
	for _, p := range s.listPods() {
		if p.Metadata.DeletionTimestamp == "" {
			count[p.Spec.NodeName]++
		}
	}
	return count
}

// expectNoPods stops the runs and checks that nothing of the server is left in the namespace. After an outage of the API server,
// kubelets take up to a minute to learn what was deleted.
func (s *clusterSet) expectNoPods(t *testing.T) {
	if s.isRunning() {
		for _, v := range s.listActiveRuns() {
			s.runCLI("stop", v.Name, "-y", "--abort")
		}
	}
	err := retryFor(2*time.Minute, func() error {
		var left []string
		for _, kind := range []string{"pods", "secrets"} {
			var list struct{ Items []pod }
			status, text, err := s.cluster.Call(context.Background(), http.MethodGet, "/api/v1/namespaces/"+s.namespace+"/"+kind, nil)
			if err == nil && status != http.StatusOK {
				err = errors.New(string(text))
			}
			if err == nil {
				err = json.Unmarshal(text, &list)
			}
			if err != nil {
				return err
			}
			for _, p := range list.Items {
				left = append(left, kind+"/"+p.Metadata.Name+" "+p.Status.Phase)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("the namespace still has %s", strings.Join(left, ", "))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
