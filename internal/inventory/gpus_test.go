package inventory_test

import (
	"fmt"
	"strings"
	"testing"

	"dstack/internal/inventory"
)

// describe formats GPUs as "id maker name memory capability".
func describe(r inventory.GPUReport) string {
	var lines []string
	for _, g := range r.GPUs {
		line := fmt.Sprintf("%s %s %s %d", g.ID, g.Maker, g.Name, g.MemoryMiB)
		if g.Capability[0] > 0 {
			line += fmt.Sprintf(" %d.%d", g.Capability[0], g.Capability[1])
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

const toolkit = "@@ toolkit\nyes\n"

// The lines, texts and exit codes were seen with real drivers: 535 and 550 (A100, H100),
// 570 (TITAN V, RTX 5880 Ada), 470 (no compute capability) and in reports of users about
// failures of NVML.
func TestParseGPUs_NVIDIA(t *testing.T) {
	const pci = "@@ pci\n0000:01:00.0 0x10de 0x2330 nvidia 0 renderD128\n0000:02:00.0 0x10de 0x2330 nvidia 0 renderD129\n"
	for _, c := range []struct{ name, output, gpus, driver, warning string }{
		{"two cards", toolkit + "@@ nvidia\n0, GPU-aa, NVIDIA H100 80GB HBM3, 81559, 535.216.01, 9.0, Disabled\n" +
			"1, GPU-bb, NVIDIA TITAN V, 12288, 570.86.15, 7.0, [N/A]\n@@ exit\n0\n" + pci,
			"GPU-aa nvidia H100 81559 9.0; GPU-bb nvidia TITANV 12288 7.0", "570.86.15", ""},
		{"an old driver, at the second try", toolkit + "@@ nvidia\nField \"mig.mode.current\" is not a valid field to query.\n\n@@ exit\n2\n" +
			"@@ nvidia\n0, GPU-aa, Tesla T4, 15109, 470.182.03\n@@ exit\n0\n", "GPU-aa nvidia T4 15109", "470.182.03", ""},
		{"no toolkit", "@@ nvidia\n0, GPU-aa, NVIDIA L4, 23034, 550.54.15, 8.9, [N/A]\n@@ exit\n0\n", "GPU-aa nvidia L4 23034 8.9", "550.54.15",
			"the NVIDIA Container Toolkit is not installed, so containers cannot use the GPUs"},
		{"one is split", toolkit + "@@ nvidia\n0, GPU-aa, NVIDIA A100-SXM4-80GB, 81920, 535.216.01, 8.0, Enabled\n" +
			"1, GPU-bb, NVIDIA A100-SXM4-80GB, 81920, 535.216.01, 8.0, Disabled\n@@ exit\n0\n", "GPU-bb nvidia A100 81920 8.0", "535.216.01",
			"the GPU 0 (NVIDIA A100-SXM4-80GB) is left out: it is split by MIG"},
		{"a slice as a card of a virtual machine", toolkit + "@@ nvidia\n0, GPU-aa, NVIDIA A100-SXM4-40GB MIG 1g.5gb, 4864, 535.1.1, 8.0, [N/A]\n@@ exit\n0\n",
			"", "535.1.1", "is left out: it is split by MIG"},
		{"a card that reports no memory", toolkit + "@@ nvidia\n0, GPU-aa, NVIDIA L4, [Unknown Error], 550.54.15, 8.9, [N/A]\n@@ exit\n0\n", "", "550.54.15",
			"the GPU 0 (NVIDIA L4) is left out: nvidia-smi says of its memory only [Unknown Error]"},
		{"a lost card ends the list", toolkit + "@@ nvidia\n0, GPU-aa, NVIDIA L4, 23034, 550.54.15, 8.9, [N/A]\n" +
			"Unable to determine the device handle for GPU1: 0000:02:00.0: GPU is lost.  Reboot the system to recover this GPU\n@@ exit\n15\n",
			"GPU-aa nvidia L4 23034 8.9", "550.54.15", "a GPU does not answer any more"},
		{"another version runs", "@@ nvidia\nFailed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.161\n@@ exit\n18\n" + pci, "", "",
			"NVIDIA's driver was updated, and the kernel still runs the old one"},
		{"the driver does not run", "@@ nvidia\nNVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n\n@@ exit\n9\n", "", "",
			"installed but does not run"},
		{"no card", "@@ nvidia\nNo devices were found\n@@ exit\n6\n", "", "", "finds no GPU"},
		{"it hangs", "@@ nvidia\n\n@@ exit\n124\n", "", "", "does not answer within 20s"},
		{"it is broken", "@@ nvidia\nsh: 1: nvidia-smi: Exec format error\n@@ exit\n126\n", "", "", "nvidia-smi fails: sh: 1: nvidia-smi: Exec format error (exit 126)"},
		{"cards without a driver", pci, "", "", "it has 2 NVIDIA GPUs without a driver"},
		{"no card, no tool", "@@ pci\n0000:00:02.0 0x8086 0x4680 i915 0 renderD128\n", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) { checkGPUs(t, c.output, c.gpus, c.driver, c.warning) })
	}
}

// The outputs are shortened from real ones: those of rocm-smi from ROCm 4.3, 5.7, 6.0 and
// 6.1 (MI50, MI100, RX 6700 XT, as published with Telegraf) and a card MI250X, those of
// amd-smi from ROCm 6.2, 7 and 10 (MI210, MI300X, MI350X).
func TestParseGPUs_AMD(t *testing.T) {
	const mi100 = `{"card0": {"GPU ID": "0x738c", "PCI Bus": "0000:1E:00.0", "VRAM Total Memory (B)": "34342961152", "Card series": "Arcturus GL-XL [Instinct MI100]", "Card model": "0x0c34"},
"card10": {"GPU ID": "0x738c", "PCI Bus": "0000:3F:00.0", "VRAM Total Memory (B)": "34342961152", "Card series": "Arcturus GL-XL [Instinct MI100]", "Card model": "0x0c34"},
"card2": {"GPU ID": "0x738c", "PCI Bus": "0000:22:00.0", "VRAM Total Memory (B)": "34342961152", "Card series": "Arcturus GL-XL [Instinct MI100]", "Card model": "0x0c34"}, "system": {"Driver version": "6.3.6"}}`
	const kernel = "@@ amdgpu\n6.10.5\n@@ pci\n0000:83:00.0 0x1002 0x74a1 amdgpu 206141652992 renderD128\n0000:03:00.0 0x1002 0x164e amdgpu 67108864 renderD129\n"
	for _, c := range []struct{ name, output, gpus, driver, warning string }{
		{"rocm-smi of ROCm 5.7", "@@ rocm\n" + mi100 + "\n@@ exit\n0\n",
			"amd-0000:1e:00.0 amd MI100 32752; amd-0000:22:00.0 amd MI100 32752; amd-0000:3f:00.0 amd MI100 32752", "6.3.6", ""},
		{"rocm-smi of ROCm 4.3, without names", `@@ rocm
{"card0": {"GPU ID": "0x66a1", "PCI Bus": "0000:63:00.0", "VRAM Total Memory (B)": "34342961152", "Card series": "0x1002", "Card model": "0x1002"}}
@@ exit
0
`, "amd-0000:63:00.0 amd MI50 32752", "", ""},
		{"rocm-smi of ROCm 6.1, with other names of fields", `@@ rocm
WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status

{"card0": {"Device ID": "0x73df", "PCI Bus": "0000:07:00.0", "VRAM Total Memory (B)": "12868124672", "Card Series": "Navi 22 [Radeon RX 6700/6700 XT / 6800M]", "Card Model": "0x73df"}, "system": {"Driver version": "6.3.6"}}
@@ exit
0
`, "amd-0000:07:00.0 amd RX6700 12272", "6.3.6", ""},
		{"an internal name", `@@ rocm
{"card0": {"Card Series": "AMD INSTINCT MI200 (MCM) OAM LC MBA HPE C2", "Card Model": "0x7408", "VRAM Total Memory (B)": "68702699520"}}
@@ exit
0
`, "amd-card0 amd MI250X 65520", "", ""},
		{"amd-smi of ROCm 7", `@@ amd
{"gpu_data": [{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "device_id": "0x74a1"}, "bus": {"bdf": "0000:83:00.0"},
"vram": {"type": "HBM3", "size": {"value": 196592, "unit": "MB"}}, "driver": {"name": "amdgpu", "version": "6.19.14"}}]}
@@ exit
0
` + kernel, "renderD128 amd MI300X 196592", "6.19.14", ""},
		{"amd-smi of ROCm 6.2", `@@ amd
[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI210", "device_id": "0x740f"}, "bus": {"bdf": "0000:23:00.0"}, "vram": {"size": "65520 MB"},
"driver": {"version": "Linuxversion6.14.0-24-generic(buildd@lcy02-amd64-010)"}}]
@@ exit
0
`, "amd-0000:23:00.0 amd MI210 65520", "", ""},
		{"the kernel alone; the processor's own GPU is not listed", kernel, "renderD128 amd MI300X 196592", "6.10.5", ""},
		{"a failing tool beside the kernel", "@@ amd\nERROR:root:Unable to get devices, driver not initialized (amdgpu not found in modules)\n@@ exit\n255\n" + kernel,
			"renderD128 amd MI300X 196592", "6.10.5", "amd-smi fails: ERROR:root:Unable to get devices"},
		{"no driver", "@@ pci\n0000:83:00.0 0x1002 0x74a1 vfio-pci 0 none\n", "", "", "it has an AMD GPU without the kernel's driver amdgpu"},
		{"a partitioned card", `@@ amd
[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "device_id": "0x74a1"}, "bus": {"bdf": "0000:83:00.0"}, "vram": {"size": {"value": 24574, "unit": "MB"}}},
{"gpu": 1, "asic": {"market_name": "AMD Instinct MI300X", "device_id": "0x74a1"}, "bus": {"bdf": "0000:83:00.0"}, "vram": {"size": {"value": 24574, "unit": "MB"}}}]
@@ exit
0
` + kernel, "", "6.10.5", "the GPU at 0000:83:00.0 (MI300X) is left out: it is partitioned"},
	} {
		t.Run(c.name, func(t *testing.T) { checkGPUs(t, c.output, c.gpus, c.driver, c.warning) })
	}
}

// checkGPUs parses an output. It expects one warning, or none.
func checkGPUs(t *testing.T, output, gpus, driver, warning string) {
	t.Helper()
	r := inventory.ParseGPUs(output)
	if got := describe(r); got != gpus {
		t.Errorf("GPUs %q, want %q", got, gpus)
	}
	if r.DriverVersion != driver {
		t.Errorf("driver %q, want %q", r.DriverVersion, driver)
	}
	if got := strings.Join(r.Warnings, "\n"); warning == "" && got != "" || !strings.Contains(got, warning) || len(r.Warnings) > 1 {
		t.Errorf("warnings %q, want %q", r.Warnings, warning)
	}
}

// The GPU of a DGX Spark has no memory of its own.
func TestParse_SharedMemory(t *testing.T) {
	r, err := inventory.Parse(toolkit + "@@ nvidia\n0, GPU-aa, NVIDIA GB10, [N/A], 580.95.05, 12.1, [N/A]\n@@ exit\n0\n" + plainHost)
	if err != nil || describe(inventory.GPUReport{GPUs: r.Hardware.GPUs}) != "GPU-aa nvidia GB10 24105 12.1" {
		t.Errorf("GPUs %+v, %v", r.Hardware.GPUs, err)
	}
}
