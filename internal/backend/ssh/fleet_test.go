package ssh

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/dstack"
)

// fleetHost returns how to log in to a host of e2e/fleet/fleet.sh.
func fleetHost(t *testing.T, num, user string) dstack.SSHLogin {
	t.Helper()
	dir := os.Getenv("DSTACK_TEST_FLEET")
	if dir == "" {
		reason := os.Getenv("DSTACK_TEST_WITHOUT_FLEET")
		if reason == "" {
			reason = "run the tests with `make test`, which brings it"
		}
		t.Skipf("needs fleet: %s", reason)
	}
	key, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil {
		t.Fatal(err)
	}
	network, err := os.ReadFile(filepath.Join(dir, "network"))
	if err != nil {
		t.Fatal(err)
	}
	return dstack.SSHLogin{Address: strings.TrimSpace(string(network)) + ".1" + num + ":22", User: user, PrivateKey: string(key)}
}

// Real hosts are used through the socket, or through sudo, and refuse users without rights.
func TestFleet_UsersOfRealHosts(t *testing.T) {
	hosts := &memoryHosts{}
	hosts.add("root", fleetHost(t, "1", "root"))
	hosts.add("sudoer", fleetHost(t, "2", "sudoer"))
	hosts.add("guest", fleetHost(t, "3", "guest"))
	hosts.add("worker", fleetHost(t, "3", "worker"))
	b := open(t, hosts)
	for id, access := range map[dstack.InstanceID]dstack.DockerAccess{
		"root": dstack.DockerSocket, "sudoer": dstack.DockerSudoStdio, "worker": dstack.DockerSocket,
	} {
		c := hosts.waitForStatus(t, id, dstack.HostReady)
		f := c.Found
		if f.DockerAccess != access || f.EngineID == "" || f.MachineID == "" || f.DockerAPI == "" || f.Hardware.CPUs < 1 || f.Hardware.DiskMiB < 1 {
			t.Errorf("%s: found %+v", id, f)
		}
		eng, err := b.Engine(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := eng.ListReports(t.Context()); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	c := hosts.waitForStatus(t, "guest", dstack.HostFailed)
	if c.Step != dstack.HostStepDocker || !strings.Contains(c.Hint, "usermod -aG docker guest") {
		t.Errorf("guest: %+v", c)
	}
	if got := offered(t, b); !slices.Equal(got, []string{"root", "sudoer", "worker"}) {
		t.Errorf("offered %v", got)
	}
}

func TestFleet_FollowsTheContract(t *testing.T) {
	login := fleetHost(t, "1", "root")
	testContract(t, func(*testing.T) dstack.SSHLogin { return login })
}

func TestBackend_FollowsTheContract(t *testing.T) {
	testContract(t, func(t *testing.T) dstack.SSHLogin {
		_, login := newFakeHost(t)
		return login
	})
}

func testContract(t *testing.T, newLogin func(t *testing.T) dstack.SSHLogin) {
	lacks := []backendtest.Feature{backendtest.RentedMachines, backendtest.Refusals, backendtest.Volumes, backendtest.ExternalDisks}
	backendtest.Run(t, func(t *testing.T) backendtest.Fixture {
		hosts := &memoryHosts{}
		hosts.add("host", newLogin(t))
		return backendtest.Fixture{Timeout: 10 * time.Second, Lacks: lacks, Open: func(t *testing.T) backend.Backend {
			b := open(t, hosts)
			hosts.waitForStatus(t, "host", dstack.HostReady)
			return b
		}}
	})
}

// Port 2222 of a real host is open to the other hosts only.
func TestFleet_RealHostsBehindAJumpHost(t *testing.T) {
	hosts := &memoryHosts{}
	jump := fleetHost(t, "2", "guest")
	for _, num := range []string{"1", "3"} {
		login := fleetHost(t, num, "worker")
		login.Address = strings.TrimSuffix(login.Address, ":22") + ":2222"
		id := dstack.InstanceID("h" + num)
		hosts.add(id, login)
		hosts.change(id, func(h *dstack.Host) { h.Jump = new(jump) })
	}
	b := open(t, hosts)
	for _, id := range []dstack.InstanceID{"h1", "h3"} {
		hosts.waitForStatus(t, id, dstack.HostReady)
		eng, err := b.Engine(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := eng.ListReports(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
