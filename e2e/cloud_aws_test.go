package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/cloud/aws/ec2test"
)

// TestCloud_Service rents a machine for a service, serves it through the gateway, gives the idle machine to another
// service, and ends it when nothing uses it.
func TestCloud_Service(t *testing.T) {
	s := newAWSSet(t)
	v := s.applyAndWait(s.newFolder(s.serviceConfig("first", "spot_policy: on-demand", "idle_duration: 15s")))
	if r := v.Replicas[0]; r.Backend != "aws" || r.Region != "us-east-1" || r.Instance != "t3.micro" || r.Spot || r.Price != 0.0104 {
		t.Errorf("the replica is %+v", r)
	}
	s.expectStatus(s.serviceURL("first", "/who"), 200)
	machine := s.waitForMachines(time.Second, 1)[0]
	if machine.Type != "t3.micro" || machine.Spot || machine.DiskGB != 100 || machine.Tags["dstack-run"] != "first" {
		t.Errorf("the machine is %s with %v and a disk of %d GB", machine, machine.Tags, machine.DiskGB)
	}
	if names := s.machines.listContainersOn(machine.ID); names == "" || strings.Contains(names, "\n") {
		t.Errorf("the machine has the containers %q", names)
	}
	s.runCLI("ps", "-v").expectExit(0).expectText("first", "aws", "0.0104")
	s.runCLI("cost", "--by", "run").expectExit(0).expectText("first")
	s.expectNoMetadata(machine.ID)

	s.stopRun("first")
	v = s.applyAndWait(s.newFolder(s.serviceConfig("second", "spot_policy: on-demand", "idle_duration: 3s")))
	s.expectStatus(s.serviceURL("second", "/who"), 200)
	if n := s.ec2.CountCalls("RunInstances"); len(s.ec2.Alive()) != 1 || s.ec2.Alive()[0].ID != machine.ID {
		t.Errorf("the idle machine was not used: %d launches, %v", n, s.ec2.Alive())
	}
	s.stopRun("second")
	s.waitForMachines(60*time.Second, 0)
	s.expectOneLaunchEach()
	if left := s.ec2.Volumes(); len(left) > 0 {
		t.Errorf("disks are left: %v", left)
	}
}

// expectNoMetadata checks that the container of a machine does not reach the metadata service, which the machine does.
func (s *awsSet) expectNoMetadata(machine string) {
	s.t.Helper()
	const ask = "curl -sS -m 5 -o /dev/null -w %{http_code} http://169.254.169.254/latest/meta-data/instance-id"
	const inside = "nsenter --net -t $(docker inspect -f '{{.State.Pid}}' $(docker ps -q)) " + ask
	number := s.machines.numberOf(machine)
	if out, err := s.machines.control(s.t.Context(), nil, "run", number, "sh", "-c", inside); err == nil || !strings.Contains(out, "curl: (7)") {
		s.t.Errorf("the container gets %q, %v", out, err)
	}
	if out := s.machines.mustControl("run", number, "sh", "-c", ask); out != "401" { // it asks for a token
		s.t.Errorf("the machine gets %q", out)
	}
}

// TestCloud_Shortage has no machine in one zone, then none of the cheapest type, and then credentials that have expired.
func TestCloud_Shortage(t *testing.T) {
	s := newAWSSet(t, "- {type: local, engine: process}")
	s.ec2.SetCapacity(ec2test.Place{Zone: "us-east-1a", Type: "t3.micro"}, 0)
	s.ec2.SetCapacity(ec2test.Place{Zone: "us-east-1b", Type: "t3.micro"}, 1)
	s.ec2.SetCapacity(ec2test.Place{Zone: "us-east-1c", Type: "t3.micro"}, 0)
	const lines = "spot_policy: on-demand\nidle_duration: 0s"
	s.applyAndWait(s.newFolder(s.serviceConfig("zone", lines)))
	if m := s.waitForMachines(time.Second, 1)[0]; m.Zone != "us-east-1b" || m.Type != "t3.micro" {
		t.Errorf("the machine is %s, want one in the zone that has some", m)
	}
	v := s.applyAndWait(s.newFolder(s.serviceConfig("type", lines)))
	if r := v.Replicas[0]; r.Instance != "m7i.large" {
		t.Errorf("the replica is on %s, want the next type", r.Instance)
	}
	s.expectOneLaunchEach()

	s.ec2.SetKey(ec2test.AccessKey, ec2test.Key{Secret: ec2test.SecretKey, IsExpired: true})
	s.stopServer()
	s.startServer()
	s.waitForText("RequestExpired")
	s.runCLIIn(s.newFolder(s.serviceConfig("none", lines)), "apply", "-f", "service.dstack.yml", "-d").expectText("aws", "credentials")
	s.applyAndWait(s.newFolder(portConfig("here", "auto", "backends: [local]"))) // other backends go on
	s.stopRun("here")
	s.expectStatus(s.serviceURL("zone", "/who"), 200) // and what runs goes on
	s.ec2.SetKey(ec2test.AccessKey, ec2test.Key{Secret: ec2test.SecretKey})
	s.stopRun("zone")
	s.stopRun("type")
	s.waitForMachines(60*time.Second, 0)
}

// TestCloud_SpotLost takes a spot machine back with notice and another one without.
func TestCloud_SpotLost(t *testing.T) {
	s := newAWSSet(t)
	s.applyAndWait(s.newFolder(s.serviceConfig("spot", "spot_policy: spot", "retry: true", "idle_duration: 0s")))
	first := s.waitForMachines(time.Second, 1)[0]
	if !first.Spot {
		t.Errorf("the machine is %s", first)
	}

	began := time.Now()
	s.ec2.Warn(first.ID, time.Now().Add(time.Minute))
	s.waitForMachines(15*time.Second, 2)
	t.Logf("a replacement was asked for %s after the notice", time.Since(began).Round(100*time.Millisecond))
	for isReplaced := false; !isReplaced; {
		s.expectStatus(s.serviceURL("spot", "/who"), 200)
		isReplaced = s.fetchRun("spot").Ready == 1 && len(s.ec2.Alive()) == 1 && s.ec2.Alive()[0].ID != first.ID
		if time.Since(began) > 50*time.Second {
			t.Fatalf("the replica was not replaced before its machine was taken back: %s; %v", formatReplicas(s.fetchRun("spot")), s.ec2.Alive())
		}
	}
	s.ec2.Interrupt(first.ID)

	second := s.waitForMachines(time.Second, 1)[0]
	began = time.Now()
	s.machines.crash(second.ID) // its cloud says that it runs
	s.waitUntil(15*time.Second, "the lost machine is noticed", func() error {
		if v := s.fetchRun("spot"); v.Ready > 0 {
			return fmt.Errorf("%s", formatReplicas(v))
		}
		return nil
	})
	t.Logf("the loss was noticed after %s", time.Since(began).Round(100*time.Millisecond))
	s.ec2.Interrupt(second.ID)
	s.waitForReplicasOf("spot", 1)
	s.expectStatus(s.serviceURL("spot", "/who"), 200)
	s.stopRun("spot")
	s.waitForMachines(60*time.Second, 0)
	s.expectOneLaunchEach()
}

// TestCloud_Volume writes to a volume on one machine and reads it on the next, which is rented in the volume's zone.
func TestCloud_Volume(t *testing.T) {
	s := newAWSSet(t)
	s.applyCloudVolume("aws", "us-east-1", "us-east-1b", "1GB")
	config := func(name string) string {
		text := s.serviceConfig(name, "spot_policy: on-demand\nidle_duration: 0s\nvolumes: ['data:/data']\n")
		return strings.Replace(text, "- exec ./workload", "- echo "+name+" >>/data/names\n- exec ./workload", 1)
	}
	for i, name := range []string{"first", "second"} {
		s.applyAndWait(s.newFolder(config(name)))
		if m := s.waitForMachines(time.Second, 1)[0]; m.Zone != "us-east-1b" {
			t.Errorf("the machine is %s, want one in the volume's zone", m)
		}
		r := s.runCLI("exec", name, "--", "cat", "/data/names").expectExit(0).expectText("first")
		if i == 1 {
			r.expectText("second")
		}
		s.runCLI("volume", "delete", "data", "-y").expectExit(1).expectText(name) // it is used
		s.stopRun(name)
		s.waitForMachines(60*time.Second, 0)
	}
	s.runCLI("volume", "delete", "data", "-y").expectExit(0)
	s.waitUntil(30*time.Second, "the disk is deleted", func() error {
		if left := s.ec2.Volumes(); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}
