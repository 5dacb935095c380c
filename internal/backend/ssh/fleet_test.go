package ssh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/dstack"
)

// fleetHost returns how to log in to host n of the fleet of scripts/pieces.sh.
func fleetHost(t *testing.T, n string) dstack.SSHLogin {
	t.Helper()
	dir := os.Getenv("DSTACK_TEST_FLEET")
	key, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil {
		t.Fatal(err)
	}
	return dstack.SSHLogin{Address: "10.77.0.1" + n + ":22", User: "root", PrivateKey: string(key)}
}

func TestFleet_AHostBecomesReady(t *testing.T) {
	hosts := &memoryHosts{}
	hosts.add("h1", fleetHost(t, "1"))
	b := open(t, hosts)
	began := time.Now()
	c := hosts.waitForStatus(t, "h1", dstack.HostReady)
	t.Logf("ready after %v: %+v", time.Since(began).Round(time.Millisecond), c)
	f := c.Found
	if f.DockerAccess != dstack.DockerSocket || f.EngineID == "" || f.DockerAPI != "1.41" || f.Hardware.CPUs < 1 || f.Hardware.MemoryMiB < 64 || f.Hardware.DiskMiB < 1 {
		t.Errorf("found %+v", f)
	}
	if key := hosts.get("h1").Login.HostKey; !strings.HasPrefix(key, "ssh-ed25519 ") {
		t.Errorf("pinned %q", key)
	}
	offers, err := b.Offers(t.Context(), dstack.Requirements{Project: "p"})
	if err != nil || len(offers) != 1 || offers[0].OwnedInstance != "h1" || offers[0].Fleet != "rack" || !offers[0].IsRemote || offers[0].Backend != "ssh" || offers[0].Region != "remote" {
		t.Errorf("offers %+v, %v", offers, err)
	}
	if offers, _ := b.Offers(t.Context(), dstack.Requirements{Project: "q"}); len(offers) > 0 {
		t.Errorf("another project is offered %+v", offers)
	}
}

func TestFleet_FollowsTheContract(t *testing.T) {
	lacks := []backendtest.Feature{backendtest.RentedMachines, backendtest.Refusals, backendtest.Volumes, backendtest.ExternalDisks}
	backendtest.Run(t, func(t *testing.T) backendtest.Fixture {
		hosts := &memoryHosts{}
		hosts.add("h2", fleetHost(t, "2"))
		return backendtest.Fixture{Timeout: 10 * time.Second, Lacks: lacks, Open: func(t *testing.T) backend.Backend {
			b := open(t, hosts)
			hosts.waitForStatus(t, "h2", dstack.HostReady)
			return b
		}}
	})
}
