package v018_test

import (
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/server/wire/v018"
)

// A machine with several models of GPU is described by each of them.
func TestBuildOffer_DescribesEveryGPU(t *testing.T) {
	a10g := dstack.GPU{Name: "A10G", MemoryMiB: 24 << 10}
	hw := dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 100 << 10, GPUs: []dstack.GPU{{Name: "RTXPRO6000", MemoryMiB: 96 << 10}, a10g, a10g}}
	got := v018.BuildOffer(dstack.Placement{Offer: dstack.Offer{Backend: "ssh", Hardware: hw}}).Instance.Resources.Description
	if want := "8xCPU, 32GB, 1xRTXPRO6000 (96GB), 2xA10G (24GB), 100.0GB (disk)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
