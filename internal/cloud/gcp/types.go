package gcp

import (
	"strings"

	"dstack/internal/dstack"
)

// gpuType is a GPU as the API names it.
type gpuType struct {
	api       string // nvidia-tesla-t4
	name      string // T4
	memoryGiB int64
}

// gpuTypes are the GPUs of GCP, named by its API.
var gpuTypes = []gpuType{
	{"nvidia-tesla-k80", "K80", 12},
	{"nvidia-tesla-p4", "P4", 8},
	{"nvidia-tesla-p100", "P100", 16},
	{"nvidia-tesla-v100", "V100", 16},
	{"nvidia-tesla-t4", "T4", 16},
	{"nvidia-l4", "L4", 24},
	{"nvidia-tesla-a100", "A100", 40},
	{"nvidia-a100-80gb", "A100", 80},
	{"nvidia-h100-80gb", "H100", 80},
	{"nvidia-h100-mega-80gb", "H100", 80},
	{"nvidia-h200-141gb", "H200", 141},
	{"nvidia-b200", "B200", 180},
	{"nvidia-gb200", "GB200", 186},
	{"nvidia-gb300", "GB300", 270},
	{"nvidia-rtx-pro-6000", "RTXPRO6000", 96},
}

// findGPUType returns a GPU by its name in the API. One that is not known has the name that the API gives it.
func findGPUType(api string) gpuType {
	for _, g := range gpuTypes {
		if g.api == api {
			return g
		}
	}
	name := strings.TrimPrefix(strings.TrimPrefix(api, "nvidia-"), "tesla-")
	return gpuType{api: api, name: strings.ToUpper(strings.ReplaceAll(name, "-", ""))}
}

// attachableGPUs are the GPUs that are added to a machine of type n1, with the most virtual CPUs that it may have, by
// their number. All other GPUs are part of their types.
var attachableGPUs = map[string]map[int]int{
	"T4":   {1: 48, 2: 48, 4: 96},
	"P4":   {1: 24, 2: 48, 4: 96},
	"V100": {1: 12, 2: 24, 4: 48, 8: 96},
	"P100": {1: 16, 2: 32, 4: 64},
}

// family returns the family of a type: n1 of n1-standard-8.
func family(machineType string) string {
	name, _, _ := strings.Cut(machineType, "-")
	return name
}

// hasAttachableGPUs reports whether the GPUs of a type are added to it.
func hasAttachableGPUs(machineType string) bool { return family(machineType) == "n1" }

// armFamilies have ARM processors.
var armFamilies = map[string]bool{"t2a": true, "c4a": true, "n4a": true, "a4x": true}

// isARM reports whether an offer's machine has an ARM processor.
func isARM(o dstack.Offer) bool { return o.Hardware.Arch == "arm" || armFamilies[family(o.Type)] }

// hyperdiskFamilies boot from Hyperdisk only. All others boot from Persistent Disk.
var hyperdiskFamilies = map[string]bool{
	"n4": true, "n4a": true, "n4d": true, "c4": true, "c4a": true, "c4d": true, "m4": true, "x4": true, "h4d": true,
	"g4": true, "a4": true, "a4x": true,
}

// bootDiskType returns the type of the disk that a machine boots from.
func bootDiskType(machineType string) string {
	if hyperdiskFamilies[family(machineType)] || strings.HasPrefix(machineType, "a3-ultragpu-") {
		return "hyperdisk-balanced"
	}
	return "pd-balanced"
}

// isTPU reports whether a type is a TPU, as the API or catalogues name it: ct6e-standard-4t, v5litepod-8, tpu-v5p-8.
func isTPU(o dstack.Offer) bool {
	for _, g := range o.Hardware.GPUs {
		if g.Maker == "google" {
			return true
		}
	}
	name := o.Type
	return strings.HasPrefix(name, "tpu") || strings.HasPrefix(name, "ct") ||
		strings.HasPrefix(name, "v") && len(name) > 1 && name[1] >= '0' && name[1] <= '9'
}

// The images that machines boot from, unless the settings name others. The newest image of the family is used.
const (
	imageCPU       = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
	imageARM       = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64"
	imageNvidia    = "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580"
	imageNvidiaARM = "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-arm64-with-nvidia-580"
	// imageOldNvidia has a driver that knows GPUs older than Turing, which the open driver does not.
	imageOldNvidia = "projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570"
)

var oldGPUs = map[string]bool{"K80": true, "P4": true, "P100": true, "V100": true}

// imageFor returns the image for an offer's machine.
func (s Settings) imageFor(o dstack.Offer) string {
	switch gpus := o.Hardware.GPUs; {
	case len(gpus) == 0 && s.Images.CPU != "":
		return s.Images.CPU
	case len(gpus) == 0 && isARM(o):
		return imageARM
	case len(gpus) == 0:
		return imageCPU
	case s.Images.Nvidia != "":
		return s.Images.Nvidia
	case isARM(o):
		return imageNvidiaARM
	case oldGPUs[gpus[0].Name]:
		return imageOldNvidia
	}
	return imageNvidia
}

// acceleratorsFor returns the GPUs that are added to an offer's machine; nil: none, or they are part of its type.
func acceleratorsFor(o dstack.Offer, zone string) ([]accelerator, error) {
	if len(o.Hardware.GPUs) == 0 || !hasAttachableGPUs(o.Type) {
		return nil, nil
	}
	wanted := o.Hardware.GPUs[0]
	for _, g := range gpuTypes {
		if g.name == wanted.Name && attachableGPUs[g.name] != nil {
			return []accelerator{{Type: "zones/" + zone + "/acceleratorTypes/" + g.api, Count: len(o.Hardware.GPUs)}}, nil
		}
	}
	message := "GCP cannot add a GPU of type " + wanted.Name + " to a machine of type " + o.Type
	failure := &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Scope: dstack.ScopeRegion, Message: message}
	return nil, &dstack.Error{Kind: dstack.NoCapacity, Message: message, Cause: failure}
}
