package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// cordonAll keeps new pods from the two nodes of the cluster, and waits until its scheduler knows: after an earlier test has stopped the API
// server, its scheduler needs 20 seconds to come back. The set takes the cordons back.
func (s *clusterSet) cordonAll() {
	s.t.Helper()
	for _, node := range []string{"k1", "k2"} {
		s.cluster.MustCall(s.t, http.MethodPatch, "/api/v1/nodes/"+node, `{"spec": {"unschedulable": true}}`, nil)
	}
	pods := "/api/v1/namespaces/" + s.namespace + "/pods"
	s.waitUntil(2*time.Minute, "the scheduler leaves out both nodes", func() error {
		var probe pod
		s.cluster.MustCall(s.t, http.MethodPost, pods, map[string]any{"metadata": map[string]any{"generateName": "probe-"},
			"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": "local/busybox:1"}}}}, &probe)
		path := pods + "/" + probe.Metadata.Name
		s.waitUntil(time.Minute, "the scheduler looks at a pod", func() error {
			if s.cluster.MustCall(s.t, http.MethodGet, path, nil, &probe); len(probe.Status.Conditions) == 0 {
				return errNotYet
			}
			return nil
		})
		s.cluster.MustCall(s.t, http.MethodDelete, path+"?gracePeriodSeconds=0", nil, nil)
		if why := probe.Status.Conditions[0]; !strings.Contains(why.Message, "2 node(s) were unschedulable") {
			return fmt.Errorf("%s: %s", why.Reason, why.Message)
		}
		return nil
	})
}

// Where the cluster adds nodes, a service that fits no node waits for one, in the words of the scheduler: for node_wait only, and it runs when
// there is one.
func TestCluster_AnyNode(t *testing.T) {
	s := newBrokenSet(t, "autoscaler: true", "node_wait: 2s")
	s.cordonAll()
	dir := s.newFolder(s.serviceConfig("patient", 1))
	for _, how := range [][]string{{"--wait", "ready", "--timeout", "1m"}, nil} { // waiting, and attached
		s.runCLIFor(time.Minute, dir, append([]string{"apply", "-f", "service.dstack.yml", "-y"}, how...)...).
			expectError(4, "the cluster had no node for the pod within 2s", "unschedulable")
	}
	if isLongRun() {
		t.Run("a node is added", func(t *testing.T) { s.with(t).checkAddedNode(dir) })
	}
}

// checkAddedNode adds the node that a service waits for, as an autoscaler does.
func (s *clusterSet) checkAddedNode(dir string) {
	s.stopServer()
	s.writeClusterConfig("autoscaler: true", "node_wait: 5m")
	s.startServer()
	s.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
	s.waitUntil(30*time.Second, "the service waits for a node", func() error {
		if v := s.fetchRun("patient"); !strings.Contains(formatReplicas(v), "waits for a node: 0/2 nodes are available: 2 node(s) were unschedulable") {
			return fmt.Errorf("%s: %s", v.Status, formatReplicas(v))
		}
		return nil
	})
	s.t.Cleanup(func() { _, _, _ = s.cluster.Call(context.Background(), http.MethodDelete, "/api/v1/nodes/k3", nil) })
	s.cluster.Undo(s.t, "crash", "3")
	s.cluster.Control(s.t, "up", "3")
	s.waitForReady(time.Minute, "patient", 1)
	if count := s.countByNode(); count["k3"] != 1 || len(count) != 1 {
		s.t.Errorf("the pods are on these nodes: %v", count)
	}
	s.expectStatus(s.serviceURL("patient", "/who"), 200)
	s.stopRun("patient")
}
