package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The examples of the documentation page that need no GPU run on a cluster, unchanged but for the names by which they run side by side.
func TestCluster_SeedExamples(t *testing.T) {
	s := newClusterSet(t)
	s.runCLI("offer").expectExit(0).expectText("kubernetes", "k1", "k2")
	for _, name := range []string{"python", "plain", "auth", "image"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := s.withT(t)
			dir := h.newFolder(readSeedExample(t, name))
			h.writeFile(filepath.Join(dir, "notes.txt"), "what a page says")
			h.applyAndWait(dir, "-n", name)
			h.expectStatus(h.serviceURL(name, "/"), 200, "Directory listing", "notes.txt")
			h.expectStatus(h.servicePathURL(name, "/notes.txt"), 200, "what a page says")
			h.expectResponse("GET", h.serviceURL(name, "/service.dstack.yml"), h.token, "", 404)
			if name == "auth" {
				h.expectResponse("GET", h.serviceURL(name, "/"), "", "", 200)
			} else {
				h.expectUnauthorized(h.serviceURL(name, "/"))
			}
			if name == "python" {
				h.runCLI("exec", name, "--", "sh", "-c", "echo of $DSTACK_RUN_NAME; exit 3").expectExit(3).expectText("of python")
				h.waitUntil(10*time.Second, "the log has the requests", func() error {
					if out := h.runCLI("logs", name).expectExit(0).out; !strings.Contains(out, "GET /notes.txt") {
						return fmt.Errorf("the log is %s", out)
					}
					return nil
				})
			}
			h.stopRun(name)
		})
	}
}

// Load scales a service from zero replicas to four and back to one, on both nodes, and an update replaces them; no request fails and no
// stream is cut.
func TestCluster_ScaleAndUpdate(t *testing.T) {
	s := newClusterSet(t)
	config := s.serviceConfig("busy", 1, "env: [VERSION=0]", fastScaling("concurrency", 2), "drain_timeout: 15s")
	config = strings.Replace(config, "replicas: 1", "replicas: 0..4", 1)
	dir := s.newFolder(config)
	s.applySleeping(dir)
	many := s.startTraffic(16, s.serviceURL("busy", "/slow?ms=500"))
	s.waitForReady(time.Minute, "busy", 4)
	if count := s.countByNode(); count["k1"] != 2 || count["k2"] != 2 {
		t.Errorf("four replicas are on these nodes: %v", count)
	}
	streams := s.startStreams("busy", 20, 100, 200*time.Millisecond)
	s.waitUntil(time.Minute, "streams have started", func() error { return streams.checkStarted(8) })
	s.applyChange(dir, setVersion(config, 0, 1))
	if r := s.measureRequest("GET", s.serviceURL("busy", "/who"), nil); r.err != nil || r.version != "1" {
		t.Errorf("after the update a response is of version %q: %v", r.version, r.err)
	}
	streams.expectComplete("streams during the update")
	many.expectNoFailure("requests during the update")
	few := s.startTraffic(1, s.serviceURL("busy", "/slow?ms=100"))
	s.waitForReady(time.Minute, "busy", 1)
	few.expectNoFailure("requests while replicas leave")
	s.waitUntil(30*time.Second, "one pod is left", func() error {
		if count := s.countByNode(); count["k1"]+count["k2"] != 1 {
			return fmt.Errorf("%v", count)
		}
		return nil
	})
}

// Rule 35: a pod that someone deletes is replaced when its end begins, however long that takes. Streams that it has are whole, and it gets
// no more requests.
func TestCluster_DeletedPod(t *testing.T) {
	s := newClusterSet(t)
	s.applyAndWait(s.newFolder(s.serviceConfig("stubborn", 1, "env: [IGNORE_TERM=1]", "drain_timeout: 25s")))
	requests := s.startTraffic(4, s.serviceURL("stubborn", "/who"))
	streams := s.startStreams("stubborn", 100, 100, 500*time.Millisecond)
	s.waitUntil(10*time.Second, "streams run", func() error { return streams.checkStarted(4) })
	victim := s.listPods()[0]
	s.cluster.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+s.namespace+"/pods/"+victim.Metadata.Name, nil, nil)
	deleted := time.Now()
	s.waitUntil(15*time.Second, "the pod is replaced", func() error {
		for _, p := range s.listPods() {
			if p.Metadata.UID != victim.Metadata.UID && p.isReady() && s.fetchRun("stubborn").Ready == 1 {
				return nil
			}
		}
		return errNotYet
	})
	took, isThere := time.Since(deleted), false
	for _, p := range s.listPods() {
		isThere = isThere || p.Metadata.UID == victim.Metadata.UID
	}
	t.Logf("replaced %s after it was deleted", took.Round(100*time.Millisecond))
	if !isThere {
		t.Error("the pod was gone before it was replaced, though it had streams")
	}
	streams.expectComplete("streams of the pod that was deleted")
	requests.expectNoFailure("requests while a pod is deleted")
	s.waitUntil(30*time.Second, "one pod is left", func() error {
		if all := s.listPods(); len(all) != 1 {
			return fmt.Errorf("%d pods: %s", len(all), formatReplicas(s.fetchRun("stubborn")))
		}
		return nil
	})
}

// waitForReady waits until a run has exactly as many replicas, all ready.
func (s *clusterSet) waitForReady(limit time.Duration, run string, ready int) {
	s.t.Helper()
	s.waitUntil(limit, fmt.Sprintf("%s has exactly %d replicas, all ready", run, ready), func() error {
		if v := s.fetchRun(run); v.Ready != ready || v.DesiredReplicas != ready {
			return fmt.Errorf("the run is %s, %d replicas are desired, %d ready: %s", v.Status, v.DesiredReplicas, v.Ready, formatReplicas(v))
		}
		return nil
	})
}

// An image of a private registry is pulled with the right password; with a wrong one, the failure names image and field, not the password.
func TestCluster_PrivateRegistry(t *testing.T) {
	s := newClusterSet(t)
	registry, path, user, password := s.pushImage("/private/cluster:1")
	address := s.proxyTo(s.cluster.Network(t), registry)
	s.cluster.Control(t, "registry", address, "http://"+address)
	with := func(name, password string) string {
		config := strings.Replace(s.serviceConfig(name, 1, "registry_auth: {username: "+user+", password: "+password+"}"),
			"local/busybox:1", address+path, 1)
		return s.newFolder(config)
	}
	refused := s.runCLIIn(with("refused", "wrong-password"), "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	refused.expectError(1, address+path, "registry_auth")
	refused.expectNoText("wrong-password")
	s.applyAndWait(with("pulled", password))
	s.expectStatus(s.serviceURL("pulled", "/who"), 200)
}

// A language model in an imported image answers the OpenAI client through the gateway.
func TestCluster_Model(t *testing.T) {
	python := needPiece(t, "python", "DSTACK_TEST_PYTHON")
	s := newClusterSet(t)
	createImageOnce(t, "smollm2:local", func() { createModelImage(t, python) })
	archive := filepath.Join(s.home, "smollm2.tar")
	runDocker(t, "save", "-o", archive, "smollm2:local")
	s.cluster.Control(t, "import", "1", archive)
	dir := s.copyFolder("../examples/smollm2")
	s.runCLI("offer", "--instance-type", "k1").expectExit(0).expectText("k1")
	s.decodeReadyRun(s.runCLIIn(dir, "apply", "-f", "docker.dstack.yml", "-y", "--instance-type", "k1", "--wait", "ready", "--timeout", "2m", "-o", "json"))
	runChatClient(t, python, "clients/chat.py", fmt.Sprintf("http://gateway.localhost:%d/v1", s.port), s.token)
}

// GPUs that a device plugin counts are offered by the model of the node's labels, assigned, and free again.
func TestCluster_GPUs(t *testing.T) {
	s := newBrokenSet(t)
	const path = "/api/v1/nodes/k2"
	label := func(value any) string {
		return mustJSON(t, map[string]any{"metadata": map[string]any{"labels": map[string]any{"nvidia.com/gpu.product": value, "nvidia.com/gpu.memory": value}}})
	}
	s.cluster.MustCall(t, http.MethodPatch, path, strings.Replace(label("NVIDIA-L4"), `memory":"NVIDIA-L4"`, `memory":"23034"`, 1), nil)
	s.cluster.MustCall(t, http.MethodPatch, path+"/status", `[{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "2"}]`, nil)
	t.Cleanup(func() {
		_, _, _ = s.cluster.Call(context.Background(), http.MethodPatch, path, label(nil))
		_, _, _ = s.cluster.Call(context.Background(), http.MethodPatch, path+"/status", `[{"op": "remove", "path": "/status/capacity/nvidia.com~1gpu"}]`)
	})
	s.waitUntil(20*time.Second, "the GPUs are offered", func() error {
		if r := s.runCLI("offer", "--gpu", "L4:2"); !strings.Contains(r.out, "2×L4 24GB") {
			return fmt.Errorf("%s %s", r.out, r.err)
		}
		return nil
	})
	gpuService := func(name, gpu string) string {
		return s.newFolder(strings.Replace(s.serviceConfig(name, 1), "memory: 64MB..", "memory: 64MB.., gpu: "+gpu, 1))
	}
	s.applyAndWait(gpuService("one", "24GB"))
	if count := s.countByNode(); count["k2"] != 1 {
		t.Errorf("the replica with a GPU is on these nodes: %v", count)
	}
	s.runCLIIn(gpuService("both", "L4:2"), "apply", "-f", "service.dstack.yml", "-y", "-d").expectError(4, "1 of 2 GPUs free")
	s.runCLIIn(gpuService("other", "A100"), "apply", "-f", "service.dstack.yml", "-y", "-d").expectError(4, "A100", "2×L4 24GB")
	s.stopRun("one")
	s.applyAndWait(gpuService("both", "L4:2"))
	if limits := s.listPods()[0].Spec.Containers[0].Resources.Limits; limits["nvidia.com/gpu"] != "2" {
		t.Errorf("the pod's limits are %v", limits)
	}
}

func mustJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
