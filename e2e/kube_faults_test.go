package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// clusterFault is what happens to a cluster while a service of two replicas has requests.
type clusterFault struct {
	name   string
	check  func(s *clusterSet)
	isLong bool // only in long runs
}

// clusterFaults end with those of the API server: for up to a minute after one, kubelets and the scheduler do not learn of changes.
var clusterFaults = []clusterFault{
	{name: "an operator deletes a pod", check: (*clusterSet).checkDeletedPod},
	{name: "a node crashes", check: func(s *clusterSet) { s.checkLostNode("crash", "up") }},
	{name: "a node is cut off", check: func(s *clusterSet) { s.checkLostNode("unplug", "plug") }, isLong: true},
	{name: "no node answers its cluster", check: (*clusterSet).checkAllNodesSilent, isLong: true},
	{name: "an operator drains a node", check: (*clusterSet).checkDrainedNode},
	{name: "the API server is killed", check: func(s *clusterSet) { s.checkAwayAPI("stop-api", "start-api") }},
	{name: "the API server hangs", check: func(s *clusterSet) { s.checkAwayAPI("freeze-api", "thaw-api") }, isLong: true},
	{name: "the server is killed while the API server is away", check: (*clusterSet).checkServerKilledMeanwhile},
}

// spreadPods brings the service's replicas on both nodes, one on each.
func (s *clusterSet) spreadPods() {
	s.t.Helper()
	if count := s.countByNode(); len(s.listActiveRuns()) > 0 && count["k1"] == 1 && count["k2"] == 1 {
		s.waitForPods(time.Minute, 2)
		return
	}
	for _, v := range s.listActiveRuns() {
		s.stopRun(v.Name)
	}
	s.applyAndWait(s.newFolder(s.serviceConfig("steady", 2)))
	s.waitForPods(time.Minute, 2)
	if count := s.countByNode(); count["k1"] != 1 || count["k2"] != 1 {
		s.t.Fatalf("two replicas are on these nodes: %v", count)
	}
}

// A service goes on through all that happens to its cluster, and no pod is doubled or left behind.
func TestCluster_Faults(t *testing.T) {
	s := newBrokenSet(t)
	for _, fault := range clusterFaults {
		if fault.isLong && !isLongRun() {
			continue
		}
		t.Run(fault.name, func(t *testing.T) {
			part := s.with(t)
			part.spreadPods()
			fault.check(part)
			s.cmd, s.done = part.cmd, part.done // it may have killed the server
		})
	}
}

// with returns the same cluster and server for a part of the test.
func (s *clusterSet) with(t *testing.T) *clusterSet {
	part := *s
	part.harness = s.withT(t)
	return &part
}

// listReadyPods returns the UIDs of the pods that are ready and stay, with their nodes, and an error if there are others.
func (s *clusterSet) listReadyPods() (map[string]string, error) {
	ready := map[string]string{}
	var others []string
	for _, p := range s.listPods() {
		if p.isReady() && p.Metadata.DeletionTimestamp == "" {
			ready[p.Metadata.UID] = p.Spec.NodeName
		} else {
			others = append(others, p.Metadata.Name+" "+p.Status.Phase)
		}
	}
	if len(others) > 0 {
		return ready, fmt.Errorf("%d pods are ready, and these are not: %s", len(ready), strings.Join(others, ", "))
	}
	return ready, nil
}

// waitForPods waits until there are exactly as many pods, all ready, and as many replicas, and returns their UIDs with their
// nodes.
func (s *clusterSet) waitForPods(limit time.Duration, n int) (ready map[string]string) {
	s.t.Helper()
	s.waitUntil(limit, fmt.Sprintf("there are exactly %d pods, all ready", n), func() (err error) {
		if ready, err = s.listReadyPods(); err != nil {
			return err
		}
		if v := s.fetchRun("steady"); len(ready) != n || v.Ready != n {
			return fmt.Errorf("%d pods and %d replicas are ready: %s", len(ready), v.Ready, formatReplicas(v))
		}
		return nil
	})
	return ready
}

// startSteadyTraffic sends requests to the service, and returns when some were answered.
func (s *clusterSet) startSteadyTraffic() *traffic {
	s.t.Helper()
	requests := s.startTraffic(20, s.serviceURL("steady", "/who"))
	s.waitUntil(10*time.Second, "requests are answered", func() error {
		if len(requests.resultsSoFar()) < 10 {
			return errNotYet
		}
		return nil
	})
	return requests
}

// outage is how long the API server is away: longer than a node may be silent.
func outage() time.Duration {
	if isLongRun() {
		return 3 * time.Minute
	}
	return 12 * time.Second
}

// checkAwayAPI takes the API server away: everything goes on, and afterwards the same pods are there.
func (s *clusterSet) checkAwayAPI(command, undo string) {
	before := s.waitForPods(time.Minute, 2)
	requests := s.startSteadyTraffic()
	s.cluster.Undo(s.t, undo)
	s.cluster.Control(s.t, command)
	s.stayAway(requests, outage())
	s.cluster.Control(s.t, undo)
	back := time.Now()
	after := s.waitForPods(30*time.Second, 2)
	s.t.Logf("all replicas are ready %s after the API server is back", time.Since(back).Round(100*time.Millisecond))
	s.expectSamePods(before, after)
	requests.expectNoFailure("requests while the API server is away")
}

// stayAway waits, and checks that nothing is replaced meanwhile.
func (s *clusterSet) stayAway(requests *traffic, long time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if v := s.fetchRun("steady"); len(v.Replicas) != 2 || v.Ready != 2 {
			s.t.Fatalf("while the API server is away: %s", formatReplicas(v))
		}
		if bad := filterFailed(requests.resultsSoFar()); len(bad) > 0 {
			s.t.Fatalf("a request fails while the API server is away: %v", bad[0].err)
		}
	}
}

func (s *clusterSet) expectSamePods(before, after map[string]string) {
	s.t.Helper()
	if !maps.Equal(before, after) {
		s.t.Errorf("the pods were %v, and are %v", before, after)
	}
}

// checkServerKilledMeanwhile kills the server while it cannot reach the API server: it starts nevertheless, and adopts the
// pods when the API server is back.
func (s *clusterSet) checkServerKilledMeanwhile() {
	before := s.waitForPods(time.Minute, 2)
	s.cluster.Undo(s.t, "start-api")
	s.cluster.Control(s.t, "stop-api")
	s.killServer()
	s.startServer()
	s.cluster.Control(s.t, "start-api")
	s.expectSamePods(before, s.waitForPods(time.Minute, 2))
	s.expectStatus(s.serviceURL("steady", "/who"), 200)
}

// checkDeletedPod deletes a pod as `kubectl delete pod` does: it is replaced, and no request fails.
func (s *clusterSet) checkDeletedPod() {
	requests := s.startSteadyTraffic()
	victim := s.listPods()[0]
	s.cluster.MustCall(s.t, http.MethodDelete, "/api/v1/namespaces/"+s.namespace+"/pods/"+victim.Metadata.Name, nil, nil)
	s.waitUntil(time.Minute, "the pod is replaced", func() error {
		after, err := s.listReadyPods()
		if _, isThere := after[victim.Metadata.UID]; err == nil && (isThere || len(after) != 2) {
			err = fmt.Errorf("the pods are %v", after)
		}
		return err
	})
	requests.expectNoFailure("requests while a pod is deleted")
}

// checkDrainedNode drains a node as `kubectl drain` does: it is cordoned, and its pods are evicted. The budget holds the
// eviction back until the replica has moved, so that no request fails and no stream is cut.
func (s *clusterSet) checkDrainedNode() {
	requests := s.startSteadyTraffic()
	streams := s.startStreams("steady", 60, 100, 500*time.Millisecond)
	s.waitUntil(10*time.Second, "streams run", func() error { return streams.checkStarted(4) })
	cordon := func(is string) {
		s.cluster.MustCall(s.t, http.MethodPatch, "/api/v1/nodes/k2", `{"spec": {"unschedulable": `+is+`}}`, nil)
	}
	cordon("true")
	refused := 0
	s.waitUntil(90*time.Second, "the node has no pod", func() error {
		left := 0
		for _, p := range s.listPods() {
			if p.Spec.NodeName != "k2" {
				continue
			}
			left++
			status, text := s.evict(p)
			if status == http.StatusTooManyRequests && strings.Contains(text, "DisruptionBudget") {
				refused++
			} else if status != http.StatusCreated && status != http.StatusNotFound {
				s.t.Fatalf("the eviction is answered with %d: %s", status, text)
			}
		}
		if left > 0 {
			return fmt.Errorf("%d pods are on it", left)
		}
		return nil
	})
	if refused == 0 {
		s.t.Error("the pod was evicted before its replica had moved")
	}
	s.waitForPods(30*time.Second, 2)
	requests.expectNoFailure("requests while a node is drained")
	streams.expectComplete("streams while a node is drained")
	cordon("null")
}

func (s *clusterSet) evict(p pod) (int, string) {
	path := "/api/v1/namespaces/" + s.namespace + "/pods/" + p.Metadata.Name + "/eviction"
	status, text, err := s.cluster.Call(s.t.Context(), http.MethodPost, path, map[string]any{"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata": map[string]any{"name": p.Metadata.Name, "namespace": s.namespace}})
	if err != nil {
		s.t.Fatal(err)
	}
	return status, string(text)
}

// checkLostNode takes a node away: its replica is replaced on the other one. When the node is back, nothing is left on it that
// is not wanted.
func (s *clusterSet) checkLostNode(command, undo string) {
	requests := s.startSteadyTraffic()
	began := time.Now()
	s.cluster.Undo(s.t, undo, "2")
	s.cluster.Control(s.t, command, "2")
	s.waitUntil(replacementLimit, "the replica is replaced", func() error {
		onFirst := 0
		for _, p := range s.listPods() {
			if p.Spec.NodeName == "k1" && p.isReady() {
				onFirst++
			}
		}
		if v := s.fetchRun("steady"); onFirst != 2 || v.Ready != 2 {
			return fmt.Errorf("%d pods are ready on the other node: %s", onFirst, formatReplicas(v))
		}
		return nil
	})
	replaced := time.Now()
	s.cluster.Control(s.t, undo, "2")
	s.waitForPods(returnLimit, 2)
	all := requests.finish()
	failed := filterFailed(all)
	s.t.Logf("%s: %d of %d requests failed; replaced after %s, back after %s more; the slowest request took %s", command, len(failed),
		len(all), replaced.Sub(began).Round(100*time.Millisecond), time.Since(replaced).Round(100*time.Millisecond), slowest(all))
	for _, r := range failed {
		if r.startedAt.After(replaced) {
			s.t.Errorf("a request failed after the replica was replaced: %v", r.err)
		}
	}
	if len(failed)*20 > len(all) {
		s.t.Errorf("%d of %d requests failed; the first one: %v", len(failed), len(all), failed[0].err)
	}
}

// checkAllNodesSilent stops the kubelets of all nodes: replicas serve on, as those of a cluster whose control plane is cut off do.
func (s *clusterSet) checkAllNodesSilent() {
	requests := s.startSteadyTraffic()
	before, err := s.listReadyPods()
	if err != nil {
		s.t.Fatal(err)
	}
	signal := func(name string) [][]string {
		var all [][]string
		for _, node := range []string{"1", "2"} {
			all = append(all, []string{"run", node, "sh", "-c", "kill -" + name + " $(cat /run/kubelet.pid)"})
		}
		return all
	}
	for i, stop := range signal("STOP") {
		s.cluster.Undo(s.t, signal("CONT")[i]...)
		s.cluster.Control(s.t, stop...)
	}
	s.waitForNodes("Unknown")
	// The cluster says it of one node after the other: for the moment between, the first one is lost as any other would be.
	s.waitUntil(5*time.Second, "both replicas are ready", func() error { return s.checkReady(2) })
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := s.checkReady(2); err != nil {
			s.t.Errorf("while no node answers: %v", err)
			break
		}
	}
	for _, goOn := range signal("CONT") {
		s.cluster.Control(s.t, goOn...)
	}
	s.waitForNodes("True")
	requests.expectNoFailure("requests while no node answers")
	s.expectSamePods(before, s.waitForPods(time.Minute, 2))
}

// checkReady returns an error unless so many replicas are ready.
func (s *clusterSet) checkReady(n int) error {
	if v := s.fetchRun("steady"); v.Ready != n {
		return fmt.Errorf("%d replicas are ready: %s", v.Ready, formatReplicas(v))
	}
	return nil
}

// waitForNodes waits until the condition Ready of both nodes has a status.
func (s *clusterSet) waitForNodes(want string) {
	s.t.Helper()
	s.waitUntil(time.Minute, "the nodes are ready: "+want, func() error {
		var list struct{ Items []pod }
		s.cluster.MustCall(s.t, http.MethodGet, "/api/v1/nodes", nil, &list)
		for _, n := range list.Items {
			for _, c := range n.Status.Conditions {
				if c.Type == "Ready" && c.Status != want {
					return fmt.Errorf("%s is ready: %s", n.Metadata.Name, c.Status)
				}
			}
		}
		return nil
	})
}
