package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// badRevision is a revision that cannot become ready.
type badRevision struct {
	name, from, to string   // to replaces from in the configuration
	words          []string // in its error
	output         string   // the last line of its output
}

// TestFailedRevisions checks that a revision that does not become ready gets no
// requests, makes no request fail, is rolled back and is reported.
func TestFailedRevisions(t *testing.T) {
	needBaseImage(t)
	registry := needPiece(t, "registry", "DSTACK_TEST_REGISTRY")
	login := fmt.Sprintf("\nregistry_auth: {username: %s, password: %s}",
		os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD"))
	h := newParallelHarness(t, "docker", "DSTACK_SERVER_START_TIMEOUT=8s")
	config := h.workloadConfig("keeps", "replicas: 2", "drain_timeout: 5s", "probes: [{type: http, url: /health, interval: 1s}]", "- VERSION=1")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	before := h.listContainerNames()
	for i, c := range []badRevision{
		{"exits", "- exec ./workload", "- echo the model is not there\n- exit 9\n- exec ./workload",
			[]string{"code 9", "3 times in a row", "the model is not there"}, "the model is not there"},
		{"never listens", "- VERSION=1", "- VERSION=2\n- LISTEN_AFTER=600000", []string{"did not open within 8s"}, ""},
		{"no image", "drain_timeout", "image: " + registry + "/no/such:1" + login + "\ndrain_timeout", []string{"no/such:1"}, ""},
		{"sick", "- VERSION=1", "- VERSION=2\n- SICK=1", []string{"probes did not succeed within 8s", "500"}, "workload: listening on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.withT(t)
			h.expectRollback(dir, config, c, i+2)
			if now := h.listContainerNames(); !slices.Equal(now, before) {
				t.Errorf("the containers were %v and are %v", before, now)
			}
		})
	}
	v := h.applyChange(dir, setVersion(config, 1, 2))
	if v.Revision != 6 || v.RolledBack != nil {
		t.Errorf("after a good revision the revision is %d, and %+v was rolled back", v.Revision, v.RolledBack)
	}
}

// TestFailedRevisionOfProcess checks a failed revision whose replica could start
// only after the old one had ended.
func TestFailedRevisionOfProcess(t *testing.T) {
	h := newParallelHarness(t, "process")
	config := h.workloadConfig("returns", "drain_timeout: 5s", "- VERSION=1")
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	h.expectRollback(dir, config, badRevision{"exits", "- exec ./workload", "- echo the model is not there\n- exit 9\n- exec ./workload",
		[]string{"code 9", "3 times in a row"}, "the model is not there"}, 2)
}

// expectRollback applies a bad revision under load. It checks that the revision
// before keeps serving, and that status, history and events report the rollback.
func (h *harness) expectRollback(dir, config string, c badRevision, num int) {
	h.t.Helper()
	run := h.listActiveRuns()[0].Name
	replicas := h.fetchRun(run).Ready
	requests := h.startTraffic(10, h.serviceURL(run, "/who"))
	h.writeFile(dir+"/service.dstack.yml", strings.Replace(config, c.from, c.to, 1))
	r := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m")
	r.expectError(3, append(c.words, fmt.Sprintf("revision %d", num))...)
	h.waitForReplicas(30*time.Second, run, replicas)
	for _, s := range requests.expectNoFailure(c.name) {
		if s.err == nil && s.version != "1" {
			h.t.Errorf("a response is of version %q", s.version)
		}
	}
	v := h.findRun(run)
	if v.Status != api.StatusReady || v.Revision != 1 || v.RolledBack == nil || v.RolledBack.From != num || v.RolledBack.To != 1 ||
		!strings.Contains(v.RolledBack.Reason, c.words[0]) || !hasLine(v.RolledBack.LastOutput, c.output) {
		h.t.Errorf("the run is %s at revision %d, rolled back: %+v", v.Status, v.Revision, v.RolledBack)
	}
	newest := h.listRevisions(run)[0]
	if newest.Num != num || newest.Status != dstack.RevisionFailed || newest.Current || !strings.Contains(newest.Reason, c.words[0]) {
		h.t.Errorf("the newest revision in the history is %+v, want %d, failed for %q", newest, num, c.words[0])
	}
	h.expectEvent(run, dstack.EventRolledBack, fmt.Sprint(num), "1", c.words[0])
}

// hasLine reports whether a line begins with prefix; an empty prefix is always
// there.
func hasLine(lines []string, prefix string) bool {
	return prefix == "" || slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
}

// TestCrashLoop checks that a replica in a crash loop affects neither the other
// replica nor the run.
func TestCrashLoop(t *testing.T) {
	h := newParallelHarness(t, "docker")
	config := h.workloadConfig("loops", "replicas: 2", "- ONLY=1", "- CRASH_AFTER=1500")
	h.submitConfig(h.newFolder(config), config)
	h.waitUntil(30*time.Second, "replica 0 is ready", func() error { return h.checkReplicaStatus("loops", 0, dstack.ReplicaReady) })
	before := findReplica(h.fetchRun("loops"), 0)
	requests := h.startTraffic(10, h.serviceURL("loops", "/who"))
	h.waitUntil(time.Minute, "replica 1 has crashed four times", func() error {
		if r := findReplica(h.fetchRun("loops"), 1); r.Restarts < 4 {
			return fmt.Errorf("replica 1 has %d restarts and is %s: %s", r.Restarts, r.Status, r.Reason)
		}
		return nil
	})
	h.waitUntil(20*time.Second, "replica 1 waits for its next attempt", func() error { return h.checkReplicaStatus("loops", 1, dstack.ReplicaRestarting) })
	v := h.findRun("loops")
	if v.Status != api.StatusDegraded || v.Ready != 1 || v.DesiredReplicas != 2 {
		t.Errorf("the run is %s with %d of %d ready, want degraded", v.Status, v.Ready, v.DesiredReplicas)
	}
	if after := findReplica(v, 0); after.SubmissionID != before.SubmissionID || after.Restarts != 0 || after.Status != dstack.ReplicaReady {
		t.Errorf("replica 0 was %+v and is %+v", before, after)
	}
	if r := findReplica(v, 1); !hasLine(r.LastOutput, "workload: crashing") || !strings.Contains(r.Reason, "code 7") || r.RetryAt == nil {
		t.Errorf("the crashing replica is %+v", r)
	}
	var wire struct{ Status string }
	h.postJSON(api.ProjectPrefix+"/runs/get", map[string]string{"run_name": "loops"}, &wire)
	if wire.Status != "running" {
		t.Errorf("the run is %q in the 0.18.10 API, want running", wire.Status)
	}
	requests.expectNoFailure("requests") // the gateway repeats interrupted requests
}

func findReplica(v api.RunView, num int) api.ReplicaView {
	for _, r := range v.Replicas {
		if r.Num == num {
			return r
		}
	}
	return api.ReplicaView{Num: num}
}

func (h *harness) checkReplicaStatus(run string, num int, status dstack.ReplicaStatus) error {
	if r := findReplica(h.fetchRun(run), num); r.Status != status {
		return fmt.Errorf("replica %d is %q: %s", num, r.Status, r.Reason)
	}
	return nil
}
