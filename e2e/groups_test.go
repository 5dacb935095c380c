package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

const groupsConfig = `type: service
name: groups
port: auto
env: [HOST=127.0.0.1]
drain_timeout: 5s
groups:
- name: base
  replicas: 1
  commands: [VERSION=base exec ./workload $PORT]
- name: burst
  replicas: 0..2
  scaling: {metric: concurrency, target: 1, scale_up_delay: 1s, scale_down_delay: 3s, window: 5s}
  commands: [VERSION=one exec ./workload $PORT]
`

// readyOf returns the ready replicas of a group.
func readyOf(v api.RunView, group string) (all []api.ReplicaView) {
	for _, r := range v.Replicas {
		if r.Group == group && r.Status == dstack.ReplicaReady {
			all = append(all, r)
		}
	}
	return all
}

// expectVersions checks that requests reach replicas that answer with these versions, and no others.
func (h *harness) expectVersions(run string, want ...string) {
	h.t.Helper()
	h.waitUntil(30*time.Second, "requests reach "+strings.Join(want, " and "), func() error {
		seen := map[string]int{}
		for range 30 {
			s := h.measureRequest("GET", h.serviceURL(run, "/slow?ms=1"), nil)
			if s.err != nil {
				return s.err
			}
			seen[h.measureRequest("GET", h.serviceURL(run, "/who"), nil).version]++
		}
		for _, version := range want {
			if seen[version] == 0 {
				return fmt.Errorf("the answers are of %v", seen)
			}
			delete(seen, version)
		}
		if len(seen) > 0 {
			return fmt.Errorf("others are of %v", seen)
		}
		return nil
	})
}

// TestGroups runs a service of two groups with different commands. Requests reach both, one of them
// scales with the load, and an update of it leaves the other alone.
func TestGroups(t *testing.T) {
	h := newParallelHarness(t, "process")
	dir := h.newFolder(groupsConfig)
	first := h.applyAndWait(dir)
	if first.Ready != 1 || len(first.Groups) != 2 || first.Groups[0].Ready != 1 || first.Groups[1] != (api.GroupView{Name: "burst", Max: 2}) {
		t.Fatalf("it begins with %+v", first.Groups)
	}
	h.expectVersions("groups", "base")
	requests := h.startTraffic(6, h.serviceURL("groups", "/slow?ms=500"))
	h.waitForReplicas(time.Minute, "groups", 3)
	h.expectVersions("groups", "base", "one")
	x := h.explainRun("groups")
	if len(x.Groups) != 2 || x.Groups[1].DesiredReplicas != 2 || !strings.Contains(x.Groups[1].Decision.Reason, "other groups take 1") {
		t.Errorf("the explanation is %+v", x)
	}
	h.runCLI("explain", "groups").expectExit(0).expectText("group base: 1 replica desired", "group burst: 2 replicas desired", "other groups take 1")
	h.runCLI("ps", "-v").expectExit(0).expectText("(base)", "(burst)", "group burst, 2 desired: ")

	v := h.applyChange(dir, strings.Replace(groupsConfig, "VERSION=one", "VERSION=two", 1))
	if v.Revision != 2 {
		t.Errorf("the revision is %d", v.Revision)
	}
	h.expectVersions("groups", "base", "two")
	after := h.findRun("groups")
	if base := readyOf(after, "base"); len(base) != 1 || base[0].SubmissionID != readyOf(first, "base")[0].SubmissionID || base[0].Restarts != 0 {
		t.Errorf("the group that did not change has %+v, before the update %+v", base, readyOf(first, "base"))
	}
	requests.expectNoFailure("requests during the scale-up and the update")
	h.waitForReplicas(time.Minute, "groups", 1)
	h.expectVersions("groups", "base")
	h.expectEvent("groups", dstack.EventScaled, "", "2", "other groups take 1")
	h.expectEvent("groups", dstack.EventReplica, "ready", "draining", "replaced by revision 2")
	h.expectEvent("groups", dstack.EventReplica, "ready", "draining", "scaled down")
	h.runCLI("events", "groups").expectExit(0).expectText("scaled (burst)", "(base)")

	broken := strings.Replace(groupsConfig, "VERSION=base", "exit 3; VERSION=base", 1)
	h.writeFile(dir+"/service.dstack.yml", broken)
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m").expectExit(3)
	h.expectVersions("groups", "base")
}
