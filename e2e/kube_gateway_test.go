package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// kubeImage is the image of the program under test, on all nodes.
var kubeImage = fmt.Sprintf("docker.io/local/dstack-e2e-%d:kube", os.Getpid())

// loadOwnImage brings the program under test to the nodes as an image, if they do not have it.
func (s *clusterSet) loadOwnImage() {
	s.t.Helper()
	needPiece(s.t, "docker", "DSTACK_TEST_DOCKER")
	createImageOnce(s.t, kubeImage, func() { buildWithScript(s.t, "image", kubeImage) })
	file := filepath.Join(s.t.TempDir(), "image.tar")
	if out, err := exec.CommandContext(s.t.Context(), "docker", "save", "-o", file, kubeImage).CombinedOutput(); err != nil {
		s.t.Fatalf("docker save: %v: %s", err, out)
	}
	for _, node := range []string{"1", "2"} {
		s.cluster.Control(s.t, "import", node, file)
	}
}

// callNode makes a request for a service to a node. It returns the status and the body.
func (s *clusterSet) callNode(node, port string, host, token string) (int, string, error) {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, fmt.Sprintf("http://%s.1%s:%s/who", s.cluster.Network(s.t), strings.TrimPrefix(node, "k"), port), http.NoBody)
	if err != nil {
		return 0, "", err
	}
	request.Host = host
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// gatewayPort returns the port of nodes that leads to the pods of the gateway on them.
func (s *clusterSet) gatewayPort() string {
	s.t.Helper()
	var list struct {
		Items []struct {
			Spec struct {
				Ports []struct {
					Name     string
					NodePort int
				}
			}
		}
	}
	s.cluster.MustCall(s.t, http.MethodGet, "/api/v1/namespaces/"+s.namespace+"/services?labelSelector=dstack.ai/gateway=edge", nil, &list)
	for _, item := range list.Items {
		for _, p := range item.Spec.Ports {
			if p.Name == "http" {
				return strconv.Itoa(p.NodePort)
			}
		}
	}
	s.t.Fatal("the gateway has no service")
	return ""
}

// listGatewayPods returns the pods of the gateway that are not being deleted, and their nodes.
func (s *clusterSet) listGatewayPods() (names, nodes []string) {
	s.t.Helper()
	for _, p := range s.listPods() {
		if p.Metadata.Labels["dstack.ai/gateway"] == "edge" && p.Metadata.DeletionTimestamp == "" {
			names, nodes = append(names, p.Metadata.Name), append(nodes, p.Spec.NodeName)
		}
	}
	return names, nodes
}

// awaitProcesses waits until two processes of the gateway serve, and none is that of a pod.
func (s *clusterSet) awaitProcesses(limit time.Duration, gone string) {
	s.t.Helper()
	s.waitUntil(limit, "two processes serve, and no other is known", func() error {
		var views api.GatewayViews
		s.postJSON(api.PathGatewayViews, api.GatewayViewsRequest{}, &views)
		serving := 0
		for _, p := range views.Gateways[0].Processes {
			if p.IsServing && p.Name != gone {
				serving++
			}
		}
		if serving != 2 || len(views.Gateways[0].Processes) != 2 {
			return fmt.Errorf("%+v", views.Gateways[0])
		}
		return nil
	})
}

// TestCluster_Gateway: a gateway in a cluster, of two pods, serves a service to callers with a token, also while the server is down.
// In the long form, a pod that is deleted is replaced, and its process forgotten. With the gateway, all of it goes.
func TestCluster_Gateway(t *testing.T) {
	s := newClusterSet(t, "gateway_image: "+kubeImage)
	s.loadOwnImage()
	s.stopServer()
	s.extraEnv = append(s.extraEnv, "DSTACK_SERVER_HOST=0.0.0.0", "DSTACK_GATEWAY_SERVER_URL=http://"+s.cluster.Network(t)+".1:"+strconv.Itoa(s.port))
	s.startServer()
	file := filepath.Join(s.newFolder(""), "edge.dstack.yml")
	s.writeFile(file, "type: gateway\nname: edge\nbackend: kubernetes\ndomain: kube.test\ncertificate: null\n")
	s.runCLI("apply", "-f", file, "-y").expectExit(0)
	s.applyAndWait(s.newFolder(s.serviceConfig("shop", 1)))
	s.awaitProcesses(30*time.Second, "")
	port := s.gatewayPort()
	pods, nodes := s.listGatewayPods()
	if len(pods) != 2 {
		t.Fatalf("pods %v", pods)
	}
	serve := func() error {
		for _, node := range nodes {
			status, body, err := s.callNode(node, port, "shop.kube.test", s.token)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("it answers %d %s", status, body)
			}
			if err != nil {
				return err
			}
			if status, body, err := s.callNode(node, port, "shop.kube.test", ""); err != nil || status == http.StatusOK {
				return fmt.Errorf("without a token it answers %d %s: %w", status, body, err)
			}
		}
		return nil
	}
	s.waitUntil(20*time.Second, "the nodes lead to shop", serve)
	s.stopServer()
	if err := serve(); err != nil {
		t.Errorf("without a server: %v", err)
	}
	s.startServer()
	if isLongRun() {
		s.cluster.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+s.namespace+"/pods/"+pods[0], nil, nil)
		s.awaitProcesses(time.Minute, pods[0])
		_, nodes = s.listGatewayPods()
		s.waitUntil(20*time.Second, "the nodes lead to shop", serve)
	}
	s.runCLI("gateway", "delete", "edge", "-y").expectExit(0)
	s.waitUntil(time.Minute, "all of it goes", func() error {
		var views api.GatewayViews
		s.postJSON(api.PathGatewayViews, api.GatewayViewsRequest{}, &views)
		if left, _ := s.listGatewayPods(); len(left) > 0 || len(views.Gateways) > 0 {
			return fmt.Errorf("left: %v %+v", left, views.Gateways)
		}
		return nil
	})
	s.stopRun("shop")
}
