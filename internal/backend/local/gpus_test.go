package local

import (
	"testing"

	"dstack/internal/dstack"
)

func TestShortGPUName(t *testing.T) {
	for full, want := range map[string]string{
		"NVIDIA A100-SXM4-80GB":              "A100",
		"NVIDIA A100-PCIE-40GB":              "A100",
		"NVIDIA A100 80GB PCIe":              "A100",
		"NVIDIA H100 80GB HBM3":              "H100",
		"NVIDIA H100 PCIe":                   "H100",
		"NVIDIA H100 NVL":                    "H100",
		"NVIDIA H200":                        "H200",
		"NVIDIA B200":                        "B200",
		"NVIDIA L4":                          "L4",
		"NVIDIA L40S":                        "L40S",
		"NVIDIA A10G":                        "A10G",
		"Tesla T4":                           "T4",
		"Tesla V100-SXM2-16GB":               "V100",
		"NVIDIA GeForce RTX 4090":            "RTX4090",
		"NVIDIA GeForce RTX 3080 Ti":         "RTX3080Ti",
		"NVIDIA RTX A6000":                   "A6000",
		"NVIDIA RTX 6000 Ada Generation":     "RTX6000",
		"NVIDIA GeForce RTX 4070 Laptop GPU": "RTX4070",
	} {
		if got := shortGPUName(full); got != want {
			t.Errorf("%s is called %s, want %s", full, got, want)
		}
	}
}

func TestParseGPUs(t *testing.T) {
	text := "GPU-aa11, NVIDIA H200, 143771, 9.0\nGPU-bb22, NVIDIA L4, 23034, 8.9\nGPU-cc33, Tesla K80, 11441, [N/A]\n\nNo devices were found\nGPU-dd44, odd, [N/A], 8.0\n"
	got := parseGPUs(text)
	want := []dstack.GPU{
		{ID: "GPU-aa11", Maker: "nvidia", Name: "H200", MemoryMiB: 143771, Capability: [2]int{9, 0}},
		{ID: "GPU-bb22", Maker: "nvidia", Name: "L4", MemoryMiB: 23034, Capability: [2]int{8, 9}},
		{ID: "GPU-cc33", Maker: "nvidia", Name: "K80", MemoryMiB: 11441},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
