package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCloud_GCP rents a spot machine of Google's, and gets the next one when it is taken back.
func TestCloud_GCP(t *testing.T) {
	s := newGCPSet(t)
	config := strings.NewReplacer("NAME", "rented", "IMAGE", fleetImage).Replace(`type: service
name: NAME
image: IMAGE
backends: [gcp]
port: 8000
commands:
- exec ./workload 8000
resources: {cpu: 2.., memory: 4GB.., disk: 20GB..}
spot_policy: auto
retry: true
idle_duration: 0s
`)
	v := s.applyAndWait(s.newFolder(config))
	if r := v.Replicas[0]; r.Backend != "gcp" || r.Region != "us-central1" || r.Instance != "e2-standard-2" || r.Price <= 0 {
		t.Errorf("the replica is %+v", r)
	}
	s.expectStatus(s.serviceURL("rented", "/who"), 200)
	first := s.compute.Instances()
	if len(first) != 1 || first[0].Labels["dstack-run"] != "rented" {
		t.Fatalf("machines: %d, %v", len(first), first[0].Labels)
	}
	s.compute.Interrupt(first[0].Name)
	s.waitUntil(40*time.Second, "the replica is on another machine", func() error {
		all := s.compute.Instances()
		if len(all) != 1 || all[0].Name == first[0].Name || s.fetchRun("rented").Ready != 1 {
			return fmt.Errorf("%d machines: %s", len(all), formatReplicas(s.fetchRun("rented")))
		}
		return nil
	})
	s.expectStatus(s.serviceURL("rented", "/who"), 200)
	s.stopRun("rented")
	s.waitUntil(60*time.Second, "the machine is gone", func() error {
		if all := s.compute.Instances(); len(all) > 0 {
			return fmt.Errorf("%s is %s", all[0].Name, all[0].Status)
		}
		return nil
	})
	if isLongRun() {
		s.checkVolume(config)
	}
}

// checkVolume writes to a volume on one machine and reads it on the next.
func (s *gcpSet) checkVolume(config string) {
	s.t.Helper()
	s.applyCloudVolume("gcp", "us-central1", "us-central1-b", "10GB")
	for i, name := range []string{"first", "second"} {
		text := strings.NewReplacer("name: rented", "name: "+name, "- exec", "- echo "+name+" >>/data/names\n- exec").Replace(config)
		s.applyAndWait(s.newFolder(text + "volumes: ['data:/data']\n"))
		if all := s.compute.Instances(); len(all) != 1 || all[0].Zone != "us-central1-b" {
			s.t.Errorf("machines: %+v", all)
		}
		if r := s.runCLI("exec", name, "--", "cat", "/data/names").expectExit(0).expectText("first"); i == 1 {
			r.expectText("second")
		}
		s.stopRun(name)
	}
	s.runCLI("volume", "delete", "data", "-y").expectExit(0)
	s.waitUntil(60*time.Second, "the disks are gone", func() error {
		if left := s.compute.Disks(); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}
