package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dstack/internal/api"
)

// The hosts have no GPUs. Stubs in place of the drivers' tools and of the kernel's list of devices print what real machines
// have printed: the inventory, the offers and the plan are tested, but no container gets a GPU.
func TestFleet_GPUs(t *testing.T) {
	s := newHostSet(t)
	nvidia := s.newTools(map[string]string{
		"nvidia-smi": "echo '0, GPU-5b3d1e2a-0001, NVIDIA H100 80GB HBM3, 81559, 535.216.01, 9.0, Disabled'\n" +
			"echo '1, GPU-5b3d1e2a-0002, NVIDIA H100 80GB HBM3, 81559, 535.216.01, 9.0, Disabled'",
		"nvidia-ctk": "exit 0",
	})
	amd := s.newTools(map[string]string{
		"rocm-smi": `echo '{"card0": {"PCI Bus": "0000:83:00.0", "VRAM Total Memory (B)": "206141652992", "Card Series": "AMD Instinct MI300X OAM"}, ` +
			`"system": {"Driver version": "6.10.5"}}'`,
	})
	s.bind(2, nvidia, "/usr/local/sbin")
	s.bind(3, amd, "/usr/local/sbin")
	s.bind(3, s.newDevice("0000:83:00.0", "0x1002", "0x74a1", "206141652992", "renderD128"), "/sys/bus/pci/devices")
	s.applyFleet("gpus", s.host(1), s.host(2), s.host(3)).expectExit(0).expectText("H100", "MI300X")
	want := map[int]string{1: "", 2: "nvidia H100 81559 GPU-5b3d1e2a-0001; nvidia H100 81559 GPU-5b3d1e2a-0002; ", 3: "amd MI300X 196592 renderD128; "}
	for i, gpus := range want {
		h := s.waitForHost(30*time.Second, "gpus", s.address(i), api.HostStatusIdle)
		got := ""
		for _, g := range h.Found.GPUs {
			got += fmt.Sprintf("%s %s %d %s; ", g.Vendor, g.Name, g.MemoryMiB, g.ID)
		}
		if got != gpus {
			t.Errorf("host %d has %q, want %q (%v)", i, got, gpus, h.Warnings)
		}
	}
	s.runCLI("offer", "--gpu", "H100:2").expectExit(0).expectText(s.address(2))
	s.runCLI("offer", "--gpu", "amd:1").expectExit(0).expectText(s.address(3))

	config := s.serviceConfig("asks", 1, "resources:", "  gpu: A100:1")
	s.runCLIIn(s.newFolder(config), "apply", "-f", "service.dstack.yml", "-y", "-d").expectError(4, "A100")
	config = s.serviceConfig("asks", 1, "resources:", "  gpu: H100:1")
	s.runCLIIn(s.newFolder(config), "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m").
		expectError(1, "NVIDIA Container Toolkit") // there is none
}

// newTools returns a folder with programs.
func (s *hostSet) newTools(scripts map[string]string) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.home, "tools")
	if err != nil {
		s.t.Fatal(err)
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	return dir
}

// newDevice returns a folder with a GPU, as in /sys/bus/pci/devices.
func (s *hostSet) newDevice(address, vendor, device, vram, node string) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.home, "devices")
	if err != nil {
		s.t.Fatal(err)
	}
	at := filepath.Join(dir, address)
	for name, text := range map[string]string{"class": "0x038000", "vendor": vendor, "device": device, "mem_info_vram_total": vram, "drm/" + node + "/dev": "226:128"} {
		s.writeFile(filepath.Join(at, name), text+"\n")
	}
	driver := filepath.Join(dir, "drivers", "amdgpu")
	err = os.MkdirAll(driver, 0o755)
	if err == nil {
		err = os.Symlink(driver, filepath.Join(at, "driver"))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// bind shows a folder at another path on a host, until the end of the test.
func (s *hostSet) bind(host int, folder, target string) {
	s.t.Helper()
	s.mustControl("bind", fmt.Sprint(host), folder, target)
	s.t.Cleanup(func() { _, _ = s.control(context.Background(), nil, "unbind", fmt.Sprint(host), target) })
}
