package host_test

import (
	"encoding/json"
	"strings"
	"testing"

	"dstack/internal/decide/host"
	"dstack/internal/dstack"
)

func TestFindMissing(t *testing.T) {
	hardware := dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 90 << 10, Arch: "x86", GPUs: []dstack.GPU{{Maker: "nvidia", ID: "GPU-1", Name: "L4", MemoryMiB: 23034}}}
	for _, c := range []struct {
		name, resources string
		want, hint      string // parts of the failure; empty: the host suits
	}{
		{"nothing is asked for", `{}`, "", ""},
		{"exactly what it has", `{"cpu": 8, "memory": "32GB", "disk": "90GB", "gpu": "L4:1"}`, "", ""},
		{"more than the host needs to have", `{"cpu": "..4", "memory": "8GB..16GB", "gpu": "24GB"}`, "", ""},
		{"GPUs", `{"gpu": "L4:2"}`, "needs gpu: L4:2; has 1×L4", "write gpu: L4"},
		{"another GPU", `{"gpu": "H100"}`, "needs gpu: H100; has 1×L4", "gpu"},
		{"CPUs", `{"cpu": "16.."}`, "needs cpu: 16..; has 8", "write cpu: 8.."},
		{"the architecture", `{"cpu": "arm:4"}`, "needs cpu: arm; has x86", "x86"},
		{"memory", `{"memory": "64GB.."}`, "needs memory: 64GB..; has 32GB", "write memory: 32GB.."},
		{"disk", `{"disk": "200GB.."}`, "needs disk: 200GB..; has 90GB", "write disk: 90GB.."},
		{"all at once", `{"cpu": "16..", "memory": "64GB..", "gpu": "A100"}`, "has 8; needs memory: 64GB..; has 32GB; needs gpu: A100; has 1×L4", "or remove the host from the fleet"},
	} {
		h := dstack.Host{ID: "h", AppliedAt: now}
		if err := json.Unmarshal([]byte(c.resources), &h.Resources); err != nil {
			t.Fatal(err)
		}
		f := host.FindMissing(h, dstack.HostFacts{Hardware: hardware})
		switch {
		case f == nil && c.want != "":
			t.Errorf("%s: nothing is missing", c.name)
		case f == nil:
		case c.want == "" || !strings.Contains(f.Message, c.want) || !strings.Contains(f.Hint, c.hint) || f.Step != dstack.HostStepResources:
			t.Errorf("%s: %s: %s (%s)", c.name, f.Step, f.Message, f.Hint)
		}
	}
}

// The images and files of replicas fill the disk of a host. It stays in the fleet, until the
// fleet is applied again.
func TestFindMissing_AFilledDisk(t *testing.T) {
	h := dstack.Host{ID: "h", AppliedAt: now, Check: dstack.HostCheck{Status: dstack.HostReady, AppliedAt: now}}
	if err := json.Unmarshal([]byte(`{"disk": "100GB.."}`), &h.Resources); err != nil {
		t.Fatal(err)
	}
	found := dstack.HostFacts{Hardware: dstack.Hardware{DiskMiB: 20 << 10}}
	if f := host.FindMissing(h, found); f != nil {
		t.Errorf("a host in use: %+v", f)
	}
	h.AppliedAt = h.AppliedAt.Add(1)
	f := host.FindMissing(h, found)
	if f == nil {
		t.Fatal("a host that was applied again is not compared")
	}
	h.Check = host.Decide(h, host.Result{Found: found, Failure: f}, now)
	if f := host.FindMissing(h, found); f == nil || h.Check.Status != dstack.HostFailed {
		t.Errorf("its next check succeeds; status %s", h.Check.Status)
	}
}
