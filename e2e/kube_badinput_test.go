package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/kubeclient/kubetest"
)

// badCluster is a cluster in config.yml that cannot be used.
type badCluster struct {
	name, kubeconfig, namespace string
	want                        []string // of the line about it
}

// Clusters that cannot be used are explained in one line each: what, why and what to do. The others keep working, and one that is mended is
// used without a restart of the server.
func TestCluster_BadInput(t *testing.T) {
	s := &clusterSet{cluster: kubetest.Need(t)}
	runParallel(t)
	s.namespace = s.cluster.NewNamespace(t)
	s.harness = newStoppedHarness(t, "process")
	t.Cleanup(func() { s.expectNoPods(t) })
	clusters := s.listBadClusters(t)
	config := []string{"type: kubernetes", "kubeconfig: {filename: " + s.cluster.Kubeconfig + "}", "namespace: " + s.namespace}
	for _, c := range clusters {
		config = append(config, "- {type: kubernetes, name: "+c.name+", kubeconfig: {filename: "+c.kubeconfig+"}, namespace: "+c.namespace+"}")
	}
	text := strings.ReplaceAll(strings.Join(config, "\n    "), "\n    - ", "\n  - ")
	s.writeFile(filepath.Join(s.serverDir, "config.yml"), "projects:\n- name: main\n  backends:\n  - "+text+"\n")
	s.startServer()
	s.waitUntil(20*time.Second, "every bad cluster is explained", func() error { return s.checkExplained(clusters) })

	dir := s.newFolder(s.serviceConfig("web", 1))
	s.applyAndWait(dir)
	s.expectStatus(s.serviceURL("web", "/who"), 200)

	mended, err := os.ReadFile(s.cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s.writeFile(clusters[0].kubeconfig, string(mended))
	s.waitUntil(20*time.Second, "the cluster is used once its kubeconfig is there", func() error {
		if err := s.checkExplained(clusters[1:]); err != nil {
			return err
		}
		if out := s.runCLI("offer").expectExit(0); strings.Contains(out.out+out.err, "nosuch-file") {
			return fmt.Errorf("the offers are\n%s%s", out.out, out.err)
		}
		return nil
	})
	s.runCLI("stop", "web", "-y").expectExit(0)
}

// listBadClusters returns one cluster for each thing that can be wrong. The first lacks only its file.
func (s *clusterSet) listBadClusters(t *testing.T) []badCluster {
	t.Helper()
	folder := t.TempDir()
	admin, err := os.ReadFile(s.cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		s.writeFile(path, text)
		return path
	}
	_, rest, _ := strings.Cut(string(admin), "token: ")
	token, _, _ := strings.Cut(rest, "}")
	ended := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1700000000}`)) + ".c2ln"
	poor := s.cluster.NewAccount(t, s.namespace, []kubetest.Rule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch"}}}, nil)
	stub := func(version string, isAway bool) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, version) }))
		t.Cleanup(server.Close)
		if isAway {
			server.Close()
		}
		return fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],"+
			" users: [{name: u}], contexts: [{name: c, context: {cluster: c, user: u}}]}", server.URL)
	}
	return []badCluster{
		{"missing", filepath.Join(folder, "nosuch-file"), s.namespace, []string{"nosuch-file", "put it there"}},
		{"text", write("text", "clusters: [\n"), s.namespace, []string{"text is not a kubeconfig: yaml: line 1", "kubectl config view"}},
		{"ended", write("ended", strings.Replace(string(admin), token, ended, 1)), s.namespace, []string{"the token expired on 2023-11-14 22:13 UTC", "renew the kubeconfig"}},
		{"wrong", write("wrong", strings.Replace(string(admin), token, "wrong", 1)), s.namespace, []string{"does not accept the credentials: Unauthorized", "renew the kubeconfig"}},
		{"poor", poor, s.namespace, []string{`lacks rights in the namespace "` + s.namespace + `": create pods, `, "create secrets", "get pods/exec"}},
		{"absent", s.cluster.Kubeconfig, "nosuch", []string{`the namespace "nosuch" does not exist`, "kubectl create namespace nosuch"}},
		{"hidden", poor, "nosuch", []string{`check that the namespace "nosuch" exists`}},
		{"old", write("old", stub(`{"major":"1","minor":"29","gitVersion":"v1.29.7"}`, false)), s.namespace, []string{"Kubernetes v1.29.7, which is too old", "upgrade it to v1.30"}},
		{"page", write("page", stub("<html>", false)), s.namespace, []string{"is not an API server of Kubernetes", "check server: in the kubeconfig"}},
		{"away", write("away", stub("", true)), s.namespace, []string{"does not answer", "check that it runs"}},
	}
}

// checkExplained checks that offers have the good cluster's nodes, and a line for each bad cluster.
func (s *clusterSet) checkExplained(clusters []badCluster) error {
	result := s.runCLI("offer").expectExit(0)
	out := result.out + result.err
	if !strings.Contains(out, "k1") || !strings.Contains(out, "k2") {
		return fmt.Errorf("the offers lack the nodes of the good cluster:\n%s", out)
	}
	flat := strings.Join(strings.Fields(out), " ")
	for _, c := range clusters {
		for _, want := range c.want {
			if !strings.Contains(flat, want) {
				return fmt.Errorf("%s is not explained by %q:\n%s", c.name, want, out)
			}
		}
	}
	return nil
}
