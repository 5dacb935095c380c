package inventory_test

import (
	"testing"

	"dstack/internal/inventory"
)

func TestNameGPU(t *testing.T) {
	for reported, want := range map[string]string{
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
		if maker, name := inventory.NameGPU(reported); maker != "nvidia" || name != want {
			t.Errorf("%s is called %s of %s, want %s", reported, name, maker, want)
		}
	}
	if maker, name := inventory.NameGPU("AMD Instinct MI300X"); maker != "amd" || name != "MI300X" {
		t.Errorf("AMD Instinct MI300X is called %s of %s", name, maker)
	}
}
