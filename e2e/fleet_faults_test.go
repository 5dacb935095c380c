package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// hostFault is what happens to a host, and how it ends.
type hostFault struct {
	name     string
	command  string
	undo     string
	keepsRun bool // the container runs on, while the server does not reach it
	isLong   bool // only in long runs
}

var hostFaults = []hostFault{
	{name: "power cut", command: "crash", undo: "up"},
	{name: "cable pulled", command: "unplug", undo: "plug", keepsRun: true},
	{name: "SSH stopped", command: "stop-sshd", undo: "start-sshd", keepsRun: true, isLong: true},
	{name: "Docker stopped", command: "stop-docker", undo: "start-docker", isLong: true},
	{name: "Docker killed", command: "kill-docker", undo: "start-docker", isLong: true},
}

// A host goes away while its replica has requests: the replica is replaced on another host. When the host is back, what is
// not wanted any more is stopped, and nothing of others is touched.
func TestFleet_HostGoesAway(t *testing.T) {
	s := newHostSet(t)
	s.applyFleet("boxes", s.host(1), s.host(2), s.host(3)).expectExit(0)
	for i := 1; i <= fleetHosts; i++ {
		s.waitForHost(30*time.Second, "boxes", s.address(i), api.HostStatusIdle)
	}
	s.applyAndWait(s.newFolder(s.serviceConfig("steady", 2)))
	for _, fault := range hostFaults {
		if fault.isLong && !isLongRun() {
			continue
		}
		t.Run(fault.name, func(t *testing.T) { s.with(t).checkFault(fault) })
	}
	if !isLongRun() {
		return
	}
	t.Run("disk full", func(t *testing.T) { s.with(t).checkFullDisk() })
}

// Times of the end of a host. They are longer than what users are promised, because the machine is shared.
const (
	replacementLimit = 45 * time.Second
	returnLimit      = 30 * time.Second
)

func (s *hostSet) checkFault(fault hostFault) {
	victim := s.numberOf(s.listInstances("steady")[0])
	foreign := s.runOn(victim, "docker", "run", "-d", "--restart", "always", "--label", "dstack.installation=another", fleetImage, "sleep", "1000")
	defer func() {
		_, _ = s.control(context.Background(), nil, "run", strconv.Itoa(victim), "docker", "rm", "-f", foreign)
	}()
	requests := s.startTraffic(20, s.serviceURL("steady", "/who"))
	s.waitUntil(10*time.Second, "requests are answered", func() error {
		if len(requests.resultsSoFar()) < 10 {
			return errNotYet
		}
		return nil
	})
	began := time.Now()
	s.act(fault.command, victim, fault.undo)
	s.waitUntil(replacementLimit, "the replica is replaced", func() error {
		if all := s.listInstances("steady"); len(all) != 2 || slices.Contains(all, s.address(victim)) {
			return fmt.Errorf("replicas are ready on %v", all)
		}
		return nil
	})
	replaced := time.Now()
	s.mustControl(fault.undo, strconv.Itoa(victim))
	s.waitForHost(returnLimit, "boxes", s.address(victim), api.HostStatusIdle)
	s.waitUntil(returnLimit, "the host has nothing of the service any more", func() error {
		if left := s.listContainersOn(victim); len(left) > 0 {
			return fmt.Errorf("it has %v", left)
		}
		return nil
	})
	all := requests.finish()
	failed := filterFailed(all)
	s.t.Logf("%s: %d of %d requests failed; replaced after %s, back after %s more; the slowest request took %s", fault.name, len(failed),
		len(all), replaced.Sub(began).Round(100*time.Millisecond), time.Since(replaced).Round(100*time.Millisecond), slowest(all))
	for _, r := range failed {
		if r.startedAt.After(replaced) {
			s.t.Errorf("a request failed after the replica was replaced: %v", r.err)
		}
	}
	if len(failed)*20 > len(all) {
		s.t.Errorf("%d of %d requests failed; the first one: %v", len(failed), len(all), failed[0].err)
	}
	if state := s.runOn(victim, "docker", "inspect", "-f", "{{.State.Running}}", foreign); state != "true" {
		s.t.Errorf("the container of another installation runs: %s", state)
	}
}

func slowest(all []requestResult) time.Duration {
	var longest time.Duration
	for _, r := range all {
		longest = max(longest, r.duration())
	}
	return longest.Round(10 * time.Millisecond)
}

// numberOf returns the number of a host by its name in the configuration.
func (s *hostSet) numberOf(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, s.network+"."))
	if err != nil {
		s.t.Fatalf("%q is no host", name)
	}
	return n%100 - 10
}

// checkFullDisk fills the disk of a host: what runs there goes on, and new replicas are placed elsewhere.
func (s *hostSet) checkFullDisk() {
	victim := s.numberOf(s.listInstances("steady")[0])
	s.t.Cleanup(func() {
		_, _ = s.control(context.Background(), nil, "run", strconv.Itoa(victim), "rm", "-f", "/var/lib/docker/filler")
	})
	_, _ = s.control(s.t.Context(), nil, "run", strconv.Itoa(victim), "dd", "if=/dev/zero", "of=/var/lib/docker/filler", "bs=1M") // until it is full
	requests := s.startTraffic(20, s.serviceURL("steady", "/who"))
	s.submitConfig(s.newFolder(s.serviceConfig("steady", 4)), s.serviceConfig("steady", 4))
	s.waitUntil(time.Minute, "all replicas are ready", func() error {
		v := s.fetchRun("steady")
		if v.Ready != 4 {
			return fmt.Errorf("%s", formatReplicas(v))
		}
		return nil
	})
	all := requests.finish()
	failed := filterFailed(all)
	s.t.Logf("disk full: %d of %d requests failed; replicas are on %v", len(failed), len(all), s.listInstances("steady"))
	if len(failed) > 0 {
		s.t.Errorf("a request failed beside a full disk: %v", failed[0].err)
	}
	s.stopRun("steady")
}

// The stub answers on the host's socket as Docker 18.09 does: an engine as old as that cannot be had for this test.
func TestFleet_OldDocker(t *testing.T) {
	s := newHostSet(t)
	socket := filepath.Join(s.home, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stub := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.39")
		if r.URL.Path != "/_ping" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- stub.Serve(l) }()
	t.Cleanup(func() {
		_ = stub.Close()
		<-done
	})
	s.act("stop-docker", 3, "start-docker")
	s.runOn(3, "ln", "-sf", socket, "/run/docker.sock")
	t.Cleanup(func() { _, _ = s.control(context.Background(), nil, "run", "3", "rm", "-f", "/run/docker.sock") })
	s.applyFleet("old", s.host(3))
	h := s.waitForHost(30*time.Second, "old", s.address(3), api.HostStatusFailed)
	if h.Step != "docker" || !strings.Contains(h.Message, "1.39") || !strings.Contains(h.Hint, "19.03") {
		t.Errorf("an old engine: %s: %s; %s", h.Step, h.Message, h.Hint)
	}
}
