package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dstack/internal/kubeclient/kubetest"
)

const chartToken = "chart-token-chart-token-chart-token-0"

// helm runs helm for the namespace of the test.
func (s *clusterSet) helm(program string, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(args, "-n", s.namespace)...)
	cmd.Env = append(s.buildEnv(), "KUBECONFIG="+s.cluster.Kubeconfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("helm %v: %v: %s", args, err, out)
	}
}

// makeVolume makes a volume of 1 GiB on node 1 that only a claim of the test's namespace gets.
func (s *clusterSet) makeVolume() {
	s.t.Helper()
	folder := "/var/lib/" + s.namespace
	s.cluster.Control(s.t, "run", "1", "sh", "-c", "mkdir -p "+folder+" && chown 65532:65532 "+folder)
	s.cluster.Undo(s.t, "run", "1", "rm", "-rf", folder)
	s.cluster.MustCall(s.t, http.MethodPost, "/api/v1/persistentvolumes", map[string]any{"metadata": map[string]any{"name": s.namespace},
		"spec": map[string]any{"capacity": map[string]any{"storage": "1Gi"}, "accessModes": []string{"ReadWriteOnce"}, "storageClassName": s.namespace,
			"persistentVolumeReclaimPolicy": "Retain", "hostPath": map[string]any{"path": folder},
			"nodeAffinity": map[string]any{"required": map[string]any{"nodeSelectorTerms": []any{map[string]any{"matchExpressions": []any{
				map[string]any{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{"k1"}}}}}}}}}, nil)
	s.t.Cleanup(func() {
		_, _, _ = s.cluster.Call(context.Background(), http.MethodDelete, "/api/v1/persistentvolumes/"+s.namespace, nil)
	})
}

// TestCluster_Chart: the chart installs a server in a namespace. With exactly the rights of the chart, which include no more than nodes
// outside of the namespace, it runs a service, and again after its pod was replaced.
func TestCluster_Chart(t *testing.T) {
	s := &clusterSet{cluster: kubetest.Need(t)}
	program := needPiece(t, "helm", "DSTACK_TEST_HELM")
	t.Parallel()
	s.namespace = s.cluster.NewNamespace(t)
	s.harness = newStoppedHarness(t, "process")
	s.loadOwnImage()
	s.makeVolume()
	s.cluster.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+s.namespace+"/secrets",
		map[string]any{"metadata": map[string]any{"name": "admin"}, "stringData": map[string]any{"token": chartToken}}, nil)
	repository, tag, _ := strings.Cut(kubeImage, ":")
	s.helm(program, "install", "dstack", "../deploy/helm/dstack", "--set-string", "image.repository="+repository+",image.tag="+tag+
		",adminTokenSecret=admin,persistence.size=1Gi,persistence.storageClass="+s.namespace)
	t.Cleanup(func() { s.helm(program, "uninstall", "dstack") })
	s.connectToChart()
	s.runCLIIn(s.newFolder(s.serviceConfig("shop", 1)), "apply", "-f", ".", "-y", "--wait", "ready").expectExit(0)
	for _, p := range s.listPods() {
		if p.Metadata.Labels["app.kubernetes.io/name"] == "dstack-server" {
			s.cluster.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+s.namespace+"/pods/"+p.Metadata.Name, nil, nil)
		}
	}
	s.connectToChart()
	s.waitUntil(30*time.Second, "the next server knows the service", func() error {
		if out := s.runCLI("ps").out; !strings.Contains(out, "1 of 1") {
			return fmt.Errorf("ps: %s", out)
		}
		return nil
	})
	s.runCLI("stop", "shop", "-y").expectExit(0)
}

// connectToChart waits until a pod of the server is ready, and makes commands use it.
func (s *clusterSet) connectToChart() {
	s.t.Helper()
	s.waitUntil(time.Minute, "the server is ready", func() error {
		for _, p := range s.listPods() {
			if p.Metadata.Labels["app.kubernetes.io/name"] == "dstack-server" && p.Metadata.DeletionTimestamp == "" && p.isReady() {
				s.extraEnv = []string{"DSTACK_URL=http://" + p.Status.PodIP + ":3000", "DSTACK_TOKEN=" + chartToken}
				return nil
			}
		}
		return fmt.Errorf("pods %+v", s.listPods())
	})
}
