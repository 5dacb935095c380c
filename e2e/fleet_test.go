package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestFleet uses three hosts as their users do: the first one as root, the second one as a user who may use Docker, and the
// third one through the first one, as a user who may only use sudo.
func TestFleet(t *testing.T) {
	s := newHostSet(t)
	behind := fmt.Sprintf("port: 2222, user: sudoer, proxy_jump: {hostname: %s, user: root, identity_file: %s/id}", s.address(1), s.folder)
	s.applyFleet("boxes", s.host(1), s.host(2, "user: worker"), s.host(3, behind)).expectExit(0).expectText(s.address(1), s.address(3))
	for i, access := range []string{"socket", "socket", "sudo stdio"} {
		h := s.waitForHost(30*time.Second, "boxes", s.address(i+1), api.HostStatusIdle)
		if h.Found.DockerAccess != access || h.Found.DockerVersion == "" || h.Found.CPUs == 0 || h.Found.MemoryMiB == 0 || h.HostKey == "" {
			t.Errorf("host %d was found to be %+v", i+1, h)
		}
	}
	t.Run("a service has a replica on each host", func(t *testing.T) { s.with(t).checkSpread() })
	t.Run("a volume keeps its data", func(t *testing.T) { s.with(t).checkVolume() })
	t.Run("an image of a private registry is pulled", func(t *testing.T) { s.with(t).checkRegistry() })
	t.Run("a drained host gives its replica away", func(t *testing.T) { s.with(t).checkDrain() })
	t.Run("a host leaves, and its volume is out of reach", func(t *testing.T) { s.with(t).checkLeaving() })
}

// with returns the same hosts for a part of the test.
func (s *hostSet) with(t *testing.T) *hostSet {
	part := *s
	part.harness = s.withT(t)
	return &part
}

func (s *hostSet) checkSpread() {
	v := s.applyAndWait(s.newFolder(s.serviceConfig("spread", 3)))
	if count := countByHost(v); len(count) != fleetHosts {
		s.t.Errorf("three replicas are on these hosts: %v", count)
	}
	seen := map[string]bool{}
	s.waitUntil(10*time.Second, "the gateway uses all replicas", func() error {
		for range 6 {
			r := s.measureRequest("GET", s.serviceURL("spread", "/who"), nil)
			if r.err != nil {
				return r.err
			}
			seen[r.instance] = true
		}
		if len(seen) != 3 {
			return fmt.Errorf("%v answered", seen)
		}
		return nil
	})
	if got, _ := s.fetchInfo("spread").lookUpEnv("FROM_FLEET"); got != "boxes" {
		s.t.Errorf("the variable of the fleet is %q", got)
	}
	for i := range fleetHosts {
		s.runCLI("exec", "spread", "--replica", fmt.Sprint(i), "--", "echo", "from the container").expectExit(0).expectText("from the container")
		if h := s.findHost("boxes", s.address(i+1)); h.Status != api.HostStatusBusy || len(h.Replicas) != 1 {
			s.t.Errorf("the host %s is %s with %v", h.Name, h.Status, h.Replicas)
		}
	}
	s.runCLI("logs", "spread").expectExit(0).expectText("workload: listening on 8000")
	s.expectStreamsWhole("spread")
	s.stopRun("spread")
	for i := 1; i <= fleetHosts; i++ {
		s.waitForHost(10*time.Second, "boxes", s.address(i), api.HostStatusIdle)
	}
}

// expectStreamsWhole checks that streams through all hosts are whole.
func (s *hostSet) expectStreamsWhole(run string) {
	s.t.Helper()
	var all []*eventStream
	for range 2 * fleetHosts {
		all = append(all, s.openStream(s.t.Context(), run, 30, 10))
	}
	for _, stream := range all {
		if <-stream.done; !stream.complete || stream.err != nil {
			s.t.Errorf("a stream ended after event %d of 30: %v", stream.lastEvent, stream.err)
		}
	}
}

// checkVolume applies the volume example: the data of one run is there in the next one.
func (s *hostSet) checkVolume() {
	s.writeFile(s.home+"/volume.dstack.yml", "type: volume\nname: my-new-volume\nbackend: ssh\nhost: "+s.address(2)+"\nsize: 1GB\n")
	s.runCLI("apply", "-f", s.home+"/volume.dstack.yml", "-y").expectExit(0)
	config := func(name, script string) string {
		return fmt.Sprintf("type: service\nname: %s\nimage: %s\nbackends: [ssh]\nport: 8000\nvolumes:\n- name: my-new-volume\n  path: /volume_data\n"+
			"commands:\n- %s\n- exec httpd -f -p 8000 -h /volume_data\n", name, fleetImage, script)
	}
	s.applyAndWait(s.newFolder(config("writer", "echo written by the first run > /volume_data/index.html")))
	s.expectStatus(s.serviceURL("writer", "/"), 200, "written by the first run")
	s.stopRun("writer")
	s.applyAndWait(s.newFolder(config("reader", "cat /volume_data/index.html")))
	s.expectStatus(s.serviceURL("reader", "/"), 200, "written by the first run")
	s.runCLI("volume", "delete", "my-new-volume", "-y").expectError(1, "my-new-volume", "reader")
	s.stopRun("reader")
	s.runCLI("volume", "delete", "my-new-volume", "-y").expectExit(0)
}

// checkDrain drains the host of a replica, which moves without a failed request.
func (s *hostSet) checkDrain() {
	s.applyAndWait(s.newFolder(s.serviceConfig("moves", 1)))
	from := s.listInstances("moves")[0]
	requests := s.startTraffic(20, s.serviceURL("moves", "/who"))
	s.runCLI("fleet", "drain", "boxes", from).expectExit(0)
	s.waitUntil(30*time.Second, "the replica is on another host", func() error {
		if all := s.listInstances("moves"); len(all) != 1 || all[0] == from {
			return fmt.Errorf("it is on %v", all)
		}
		return nil
	})
	s.waitForHost(30*time.Second, "boxes", from, api.HostStatusDrained)
	requests.expectNoFailure("requests while a host is drained")
	s.runCLI("fleet", "resume", "boxes", from).expectExit(0)
	s.waitForHost(10*time.Second, "boxes", from, api.HostStatusIdle)
	s.stopRun("moves")
}

// checkLeaving removes a host from the fleet by applying it again.
func (s *hostSet) checkLeaving() {
	s.writeFile(s.home+"/volume.dstack.yml", "type: volume\nname: left-behind\nbackend: ssh\nhost: "+s.address(2)+"\nsize: 1GB\n")
	s.runCLI("apply", "-f", s.home+"/volume.dstack.yml", "-y").expectExit(0)
	s.applyFleet("boxes", s.host(1)).expectExit(0)
	s.waitUntil(20*time.Second, "one host is left", func() error {
		if all := s.fetchHosts("boxes"); len(all) != 1 {
			return fmt.Errorf("there are %d", len(all))
		}
		return nil
	})
	config := s.serviceConfig("stuck", 1, "volumes:", "- name: left-behind", "  path: /data")
	r := s.runCLIIn(s.newFolder(config), "apply", "-f", "service.dstack.yml", "-y", "-d")
	s.t.Logf("exit %d: %s%s", r.code, r.out, r.err)
	if r.code == 0 {
		s.t.Error("a service was applied whose volume is on a host that left")
	}
	r.expectText("left-behind", s.address(2))
}

// checkRegistry runs an image that only the private registry has, on a host that has no login for it.
func (s *hostSet) checkRegistry() {
	image, user, password := s.pushPrivateImage()
	config := func(password string) string {
		return fmt.Sprintf("type: service\nname: private\nimage: %s\nregistry_auth: {username: %s, password: %s}\nbackends: [ssh]\nport: 8000\n"+
			"commands: [exec httpd -f -p 8000]\n", image, user, password)
	}
	refused := s.runCLIIn(s.newFolder(config("wrong-password")), "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	refused.expectError(1, image, "registry_auth").expectNoText("wrong-password")
	s.applyAndWait(s.newFolder(config(password)))
	s.stopRun("private")
}

// The hosts that answer are used, and each of the others says in one line what is wrong and what to do.
func TestFleet_BadHosts(t *testing.T) {
	s := newHostSet(t)
	s.act("hide-docker", 3, "show-docker")
	other := s.newKey("other")
	s.applyFleet("boxes",
		s.host(1),
		fmt.Sprintf("- %s.99", s.network), // nobody has the address
		fmt.Sprintf("- {hostname: %s.12, user: nobody2}", s.network), // no such user
		fmt.Sprintf("- {hostname: %s.112, user: guest}", s.network),  // may not use Docker
		s.host(3), // has none
		fmt.Sprintf("- {hostname: %s.111}", s.network), // the same machine as host 1
		fmt.Sprintf("- {hostname: %s.113, identity_file: %s}", s.network, other),
	)
	s.waitForHost(40*time.Second, "boxes", s.address(1), api.HostStatusIdle, api.HostStatusFailed)
	good := s.address(1)
	for _, c := range []struct {
		name  string
		step  string
		words []string
	}{
		{s.network + ".99", "connect", []string{s.network + ".99"}},
		{s.network + ".12", "login", []string{"nobody2"}},
		{s.network + ".112", "docker", []string{"guest"}},
		{s.network + ".13", "docker", []string{"install"}},
		{s.network + ".113", "login", []string{"key"}},
	} {
		h := s.waitForHost(40*time.Second, "boxes", c.name, api.HostStatusFailed, api.HostStatusUnreachable)
		line := h.Message + "; " + h.Hint
		t.Logf("%s: %s: %s", c.name, h.Step, line)
		if h.Step != c.step || strings.Contains(line, "\n") || h.Hint == "" {
			t.Errorf("%s failed at the step %q: %q", c.name, h.Step, line)
		}
		for _, word := range c.words {
			if !strings.Contains(strings.ToLower(line), word) {
				t.Errorf("%s does not say %q: %q", c.name, word, line)
			}
		}
	}
	same := s.waitForHost(40*time.Second, "boxes", s.network+".111", api.HostStatusFailed, api.HostStatusIdle)
	if same.Status == api.HostStatusIdle { // the one that was checked first is used
		good = s.network + ".111"
		same = s.waitForHost(10*time.Second, "boxes", s.address(1), api.HostStatusFailed)
	}
	if same.Step != "identity" || !strings.Contains(same.Message, good) {
		t.Errorf("the second entry of a machine: %s: %s; %s", same.Step, same.Message, same.Hint)
	}
	v := s.applyAndWait(s.newFolder(s.serviceConfig("works", 2)))
	if count := countByHost(v); count[good] != 2 {
		t.Errorf("the replicas are on %v, want both on %s", count, good)
	}

	t.Run("a changed host key", func(t *testing.T) { s.with(t).checkChangedKey(good) })
	s.stopRun("works")
}

// checkChangedKey gives the host in use another key: nothing is sent to it any more, and the message is loud.
func (s *hostSet) checkChangedKey(name string) {
	s.act("new-key", 1, "")
	h := s.waitForHost(40*time.Second, "boxes", name, api.HostStatusFailed)
	if h.Step != "host key" || h.Hint == "" {
		s.t.Errorf("a changed host key: %s: %s; %s", h.Step, h.Message, h.Hint)
	}
	s.t.Logf("%s: %s; %s", h.Step, h.Message, h.Hint)
	// The owner says that the new key is right, by its fingerprint.
	line, _, _ := strings.Cut(s.runOn(1, "ssh-keygen", "-lf", "/etc/fleet_host_key.pub"), " (")
	fingerprint := strings.Fields(line)[1]
	s.applyFleet("boxes", fmt.Sprintf("- {hostname: %s, host_key: '%s'}", name, fingerprint)).expectExit(0)
	s.waitForHost(40*time.Second, "boxes", name, api.HostStatusBusy, api.HostStatusIdle)
	s.waitForReplicasOn("works", 2)
}

// waitForReplicasOn waits until a run has as many ready replicas as desired.
func (s *hostSet) waitForReplicasOn(run string, ready int) {
	s.t.Helper()
	s.waitUntil(time.Minute, fmt.Sprintf("%s has %d ready replicas", run, ready), func() error {
		if v := s.fetchRun(run); v.Ready != ready {
			return fmt.Errorf("%s: %d are ready: %s", v.Status, v.Ready, formatReplicas(v))
		}
		return nil
	})
}

// newKey makes a key that no host allows.
func (s *hostSet) newKey(name string) string {
	s.t.Helper()
	file := s.home + "/" + name
	s.runOn(1, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file)
	return file
}

// listInstances returns the hosts on which replicas of a run are ready.
func (s *hostSet) listInstances(run string) []string {
	var names []string
	for _, r := range s.fetchRun(run).Replicas {
		if r.Status == "ready" {
			names = append(names, r.Instance)
		}
	}
	slices.Sort(names)
	return names
}
