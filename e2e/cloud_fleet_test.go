package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestCloud_Fleet keeps a machine ready in a fleet that the newest published client applies. A service that names the fleet
// uses that machine, and adds another one. 0.18.10 sees and deletes the fleet, and nothing is left that costs money.
func TestCloud_Fleet(t *testing.T) {
	needNewestClient(t)
	needPublishedClient(t)
	s := newAWSSet(t)
	newest, oldest := newNewestClient(s.harness), newPublishedClient(s.harness)
	fleet := "type: fleet\nname: pool\nnodes: {min: 1, max: 2}\nspot_policy: on-demand\nidle_duration: 1h\nresources: {cpu: 2, memory: 1GB.., disk: 100GB..}\n"
	dir := s.newFolderWith("fleet.dstack.yml", fleet)
	newest.run(dir, "apply", "-f", "fleet.dstack.yml", "-y").expectExit(0).expectText("t3.micro", "Fleet pool does not exist yet.", "instance=0", "idle", "aws (us-east-1)", "$0.0104")
	newest.run(dir, "apply", "-f", "fleet.dstack.yml", "-y").expectExit(0).expectText("No configuration changes detected.")
	machine := s.waitForMachines(time.Second, 1)[0]
	if machine.Tags["dstack-fleet"] != "pool" || machine.Spot {
		t.Errorf("the machine is %+v", machine)
	}
	s.runCLIIn(dir, "apply", "-f", "fleet.dstack.yml", "-y").expectExit(0).expectText("1 machine kept ready, up to 2 when runs need them", "pool is ready with 1 machine")

	v := s.applyAndWait(s.newFolder(s.serviceConfig("web", "fleets: [pool]", "spot_policy: on-demand")))
	s.expectStatus(s.serviceURL("web", "/who"), 200)
	if r := v.Replicas[0]; r.Instance != "t3.micro" || len(s.ec2.Instances()) != 1 {
		t.Errorf("the replica is on %+v; the machines are %v", r, s.ec2.Instances())
	}
	oldest.run(dir, "fleet", "list").expectExit(0).expectText("pool", "aws (us-east-1)", "busy", "$0.0104")
	oldest.run(dir, "pool", "ps").expectExit(0).expectText("pool-0", "aws", "busy")
	oldest.run(dir, "fleet", "delete", "pool", "-y").expectExit(1).expectText("Fleet is in use")

	s.applyAndWait(s.newFolder(s.serviceConfig("more", "fleets: [pool]", "spot_policy: on-demand")))
	if f := s.fetchFleet("pool"); len(f.Machines) != 2 || f.Machines[1].Status != api.MachineStatusBusy || f.Machines[1].Name != "pool-1" {
		t.Errorf("%+v", f.Machines)
	}
	s.stopRun("web")
	s.stopRun("more")
	s.runCLI("fleet", "list").expectExit(0).expectText("pool-0", "pool-1", "idle", "aws us-east-1")

	oldest.run(dir, "fleet", "delete", "pool", "-y").expectExit(0).expectText("Fleet pool deleted")
	s.waitForMachines(30*time.Second, 0)
	s.expectOneLaunchEach()
	s.waitUntil(30*time.Second, "the fleet is gone", func() error {
		if text := s.runCLI("fleet", "list").out; strings.Contains(text, "pool") {
			return errors.New(text)
		}
		return nil
	})
}
