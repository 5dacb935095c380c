package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/api"
)

// fleetImage is the image of services on hosts. It contains only busybox.
const fleetImage = "dstack-fleet-e2e:1"

// hostSet is the hosts of fleet/fleet.sh, and a server that uses them.
type hostSet struct {
	*harness
	folder  string
	network string // the first three numbers of the hosts' addresses
}

// fleetHosts is how many hosts there are.
const fleetHosts = 3

// fleetLock is held by the test that uses the hosts.
var fleetLock sync.Mutex

// newHostSet starts a server for a test that has all hosts for itself. It skips the test without them.
func newHostSet(t *testing.T) *hostSet {
	t.Helper()
	s := &hostSet{folder: needPiece(t, "fleet", "DSTACK_TEST_FLEET")}
	runParallelWith(t, &fleetLock)
	network, err := os.ReadFile(filepath.Join(s.folder, "network"))
	if err != nil {
		t.Fatal(err)
	}
	s.network = strings.TrimSpace(string(network))
	s.harness = newHarness(t, "process")
	t.Cleanup(func() { s.expectNoContainers(t) })
	rootfs := buildRootfs(t)
	for i := 1; i <= fleetHosts; i++ {
		if _, err := s.control(t.Context(), nil, "run", strconv.Itoa(i), "docker", "image", "inspect", fleetImage); err == nil {
			continue
		}
		if out, err := s.control(t.Context(), rootfs, "run", strconv.Itoa(i), "docker", "import", "-c", "ENV PATH=/bin", "-", fleetImage); err != nil {
			t.Fatalf("docker import on host %d: %v: %s", i, err, out)
		}
	}
	return s
}

// buildRootfs returns an archive with busybox.
func buildRootfs(t *testing.T) []byte {
	t.Helper()
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs fleet: busybox (package busybox-static) is not installed")
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "root/", "tmp/", "proc/", "sys/", "dev/"} {
		add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, text)
	for _, name := range []string{"sh", "cat", "echo", "sleep", "httpd", "hostname", "dd", "ls", "df", "env"} {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// control runs a command of fleet.sh and returns its output.
func (s *hostSet) control(ctx context.Context, stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "fleet/fleet.sh", args...)
	cmd.Env = append(os.Environ(), "FLEET_DIR="+s.folder)
	cmd.Stdin = bytes.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// act does something to a host, such as crash, and undoes it with another command at the end of the test.
func (s *hostSet) act(command string, host int, undo string) {
	s.t.Helper()
	if undo != "" {
		s.t.Cleanup(func() { _, _ = s.control(context.Background(), nil, undo, strconv.Itoa(host)) })
	}
	s.mustControl(command, strconv.Itoa(host))
}

func (s *hostSet) mustControl(args ...string) string {
	s.t.Helper()
	out, err := s.control(s.t.Context(), nil, args...)
	if err != nil {
		s.t.Fatalf("fleet.sh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// runOn runs a command on a host, without SSH.
func (s *hostSet) runOn(host int, args ...string) string {
	s.t.Helper()
	return s.mustControl(append([]string{"run", strconv.Itoa(host)}, args...)...)
}

func (s *hostSet) address(host int) string { return fmt.Sprintf("%s.%d", s.network, 10+host) }

// host returns the line of a host in the configuration of a fleet, with more of its fields.
func (s *hostSet) host(host int, fields ...string) string {
	return fmt.Sprintf("- {hostname: %s%s}", s.address(host), strings.Join(append([]string{""}, fields...), ", "))
}

// applyFleet applies a fleet with the lines of its hosts. Its exit status is not checked.
func (s *hostSet) applyFleet(name string, hosts ...string) *result {
	s.t.Helper()
	file := filepath.Join(s.home, name+".dstack.yml")
	s.writeFile(file, fmt.Sprintf("type: fleet\nname: %s\nenv: [FROM_FLEET=%s]\nssh_config:\n  user: root\n  identity_file: %s\n  hosts:\n  %s\n",
		name, name, filepath.Join(s.folder, "id"), strings.Join(hosts, "\n  ")))
	return s.runCLI("apply", "-f", file, "-y")
}

// fetchHosts returns the hosts of a fleet.
func (s *hostSet) fetchHosts(fleet string) []api.HostView {
	s.t.Helper()
	var views []api.FleetView
	s.postJSON(api.PathFleetViews, api.FleetViewsRequest{Names: []string{fleet}}, &views)
	if len(views) != 1 {
		s.t.Fatalf("%d fleets are named %s", len(views), fleet)
	}
	return views[0].Hosts
}

// findHost returns the host of a fleet by the name that the configuration has for it.
func (s *hostSet) findHost(fleet, name string) api.HostView {
	s.t.Helper()
	for _, h := range s.fetchHosts(fleet) {
		if h.Name == name {
			return h
		}
	}
	s.t.Fatalf("the fleet %s has no host %s", fleet, name)
	return api.HostView{}
}

// waitForHost waits until a host has a status.
func (s *hostSet) waitForHost(limit time.Duration, fleet, name string, statuses ...api.HostStatus) api.HostView {
	s.t.Helper()
	var h api.HostView
	s.waitUntil(limit, fmt.Sprintf("the host %s is %v", name, statuses), func() error {
		h = s.findHost(fleet, name)
		for _, status := range statuses {
			if h.Status == status && h.IsChecked {
				return nil
			}
		}
		return fmt.Errorf("it is %s (checked: %v): %s %s", h.Status, h.IsChecked, h.Step, h.Message)
	})
	return h
}

// serviceConfig returns the configuration of a service of the workload on hosts.
func (s *hostSet) serviceConfig(name string, replicas int, lines ...string) string {
	text := fmt.Sprintf("type: service\nname: %s\nimage: %s\nreplicas: %d\nbackends: [ssh]\nport: 8000\ncommands:\n- exec ./workload 8000\n",
		name, fleetImage, replicas)
	return text + strings.Join(append(lines, ""), "\n")
}

// listContainersOn returns the names of this server's containers on a host, with their states.
func (s *hostSet) listContainersOn(host int) []string {
	out, err := s.control(context.Background(), nil, "run", strconv.Itoa(host), "docker", "ps", "-a",
		"--filter", "label=dstack.installation="+s.installationName(), "--format", "{{.Names}} {{.State}}")
	if err != nil || out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

// installationName returns the name with which the containers of the server are labelled.
func (s *hostSet) installationName() string {
	if s.installation == "" {
		_, _ = s.listContainers() // reads it; there may be no Docker here
	}
	return s.installation
}

// expectNoContainers stops the runs and checks that nothing of the server is left on the hosts.
func (s *hostSet) expectNoContainers(t *testing.T) {
	if s.isRunning() {
		for _, v := range s.listActiveRuns() {
			s.runCLI("stop", v.Name, "-y", "--abort")
		}
	}
	err := retryFor(20*time.Second, func() error {
		for i := 1; i <= fleetHosts; i++ {
			if left := s.listContainersOn(i); len(left) > 0 {
				return fmt.Errorf("containers are left on host %d: %v", i, left)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// countByHost returns how many replicas of a run each host has, by the name of the host.
func countByHost(v api.RunView) map[string]int {
	count := map[string]int{}
	for _, r := range v.Replicas {
		if r.Instance != "" && !r.Status.IsFinished() {
			count[r.Instance]++
		}
	}
	return count
}
