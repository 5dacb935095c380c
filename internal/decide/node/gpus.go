package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
)

// The extended resources by which device plugins offer whole GPUs.
const (
	nvidiaResource = "nvidia.com/gpu"
	amdResource    = "amd.com/gpu"
	intelResource  = "gpu.intel.com/xe"
	migPrefix      = "nvidia.com/mig-" // and a profile: one part of a GPU
)

// makers are the makers of GPUs by the domain of their extended resources and of their drivers.
var makers = map[string]string{
	"nvidia.com": gpu.Nvidia, "gpu.nvidia.com": gpu.Nvidia, "amd.com": gpu.AMD, "gpu.amd.com": gpu.AMD, "gpu.intel.com": gpu.Intel,
}

// Device is a GPU that a driver for dynamic resource allocation publishes.
type Device struct {
	Class      string // the DeviceClass by which it is requested: gpu.nvidia.com
	Name       string // of its pool and of itself: unique on the node
	Product    string // as its driver reports it
	MemoryMiB  int64
	Capability [2]int
	IsTaken    bool // allocated to a pod that is not a replica of dstack
}

// deviceMark begins the ID of a GPU that is requested by a claim for a class of devices.
const deviceMark = "class:"

// maxGPUs limits how many GPUs one resource of a node may have: a device plugin that shares GPUs among many pods can offer thousands.
const maxGPUs = 256

// NewGPUID returns the ID of the num-th GPU of an extended resource of a node. It names no device: the cluster assigns one.
func NewGPUID(resource string, num int) string { return fmt.Sprintf("%s#%d", resource, num) }

// wholeResources are the extended resources by the makers of GPUs, for GPUs of any node, which have no ID.
var wholeResources = map[string]string{gpu.Nvidia: nvidiaResource, gpu.AMD: amdResource, gpu.Intel: intelResource, "": nvidiaResource}

// CountGPUs returns how many GPUs to request of each extended resource, and by claims of each class of devices.
func CountGPUs(gpus []dstack.GPU) (byResource, byClass map[string]int) {
	byResource, byClass = map[string]int{}, map[string]int{}
	for _, g := range gpus {
		name, _, _ := strings.Cut(cmp.Or(g.ID, wholeResources[g.Maker]), "#")
		if class, isDevice := strings.CutPrefix(name, deviceMark); isDevice {
			byClass[class]++
		} else {
			byResource[name]++
		}
	}
	return byResource, byClass
}

// gpuResources returns the extended resources of a node that are GPUs, or parts of some, sorted.
func gpuResources(n Facts) []string {
	var found []string
	for resource, count := range n.Allocatable.Extended {
		isWhole := resource == nvidiaResource || resource == amdResource || resource == intelResource
		if count > 0 && (isWhole || strings.HasPrefix(resource, migPrefix)) {
			found = append(found, resource)
		}
	}
	slices.Sort(found)
	return found
}

// readGPUs returns the GPUs that pods can request of a node. Devices of a driver count only if no device plugin offers GPUs: both would
// offer the same cards.
func readGPUs(n Facts) []dstack.GPU {
	var all []dstack.GPU
	for _, resource := range gpuResources(n) {
		model := describeResource(n.Labels, resource)
		for i := range min(n.Allocatable.Extended[resource], maxGPUs) {
			model.ID = NewGPUID(resource, int(i))
			all = append(all, model)
		}
	}
	if len(all) > 0 {
		return all
	}
	for _, d := range n.Devices {
		maker, name := gpu.ParseReported(d.Product)
		if known := makers[d.Class]; known != "" {
			maker = known
		}
		all = append(all, dstack.GPU{
			ID: deviceMark + d.Class + "#" + d.Name, Maker: maker, Name: name, MemoryMiB: d.MemoryMiB, Capability: d.Capability,
		})
	}
	return all
}

// describeResource returns what the labels of a node say about the GPUs of one of its resources.
func describeResource(labels map[string]string, resource string) dstack.GPU {
	domain, _, _ := strings.Cut(resource, "/")
	g := dstack.GPU{Maker: makers[domain]}
	switch {
	case strings.HasPrefix(resource, migPrefix), resource == nvidiaResource:
		g.Name = nvidiaName(labels, resource)
		g.MemoryMiB, _ = strconv.ParseInt(labels[resource+".memory"], 10, 64)
		g.Capability = [2]int{readNumber(labels["nvidia.com/gpu.compute.major"]), readNumber(labels["nvidia.com/gpu.compute.minor"])}
	case resource == amdResource:
		g.Name, g.MemoryMiB = amdModel(labels)
	}
	if g.Name == "" {
		g.Name = cloudName(labels)
	}
	if g.MemoryMiB == 0 {
		g.MemoryMiB = onlySize(g.Name)
	}
	if g.Name == "" {
		g.Name = UnknownGPU
	}
	return g
}

// UnknownGPU is the name of GPUs of which their node says no model.
const UnknownGPU = "unknown"

// nvidiaName returns the model that NVIDIA's GPU feature discovery found: NVIDIA-A100-SXM4-80GB, with dashes for spaces, with -SHARED if
// pods share the card, and with -MIG-1g.10gb for parts.
func nvidiaName(labels map[string]string, resource string) string {
	product := labels[resource+".product"]
	if product == "" && resource != nvidiaResource { // a part of a card whose own labels are missing
		if product = labels[nvidiaResource+".product"]; product != "" {
			product += "-MIG-" + strings.TrimPrefix(resource, migPrefix)
		}
	}
	if product == "" {
		return ""
	}
	product = strings.TrimSuffix(product, "-SHARED")
	if name := findModel(products, product); name != "" {
		return name
	}
	product, slice, isSlice := strings.Cut(product, "-MIG-")
	product = strings.ReplaceAll(product, "-", " ")
	if isSlice {
		product += " MIG " + slice
	}
	_, name := gpu.ParseReported(product)
	return name
}

// amdModel returns the model and the memory that AMD's node labeller found. It writes a label either with the value itself, or, where
// the values of cards differ, one for each value with the number of cards.
func amdModel(labels map[string]string) (name string, memoryMiB int64) {
	if product := amdValue(labels, "product-name"); product != "" {
		_, name = gpu.ParseReported(strings.ReplaceAll(product, "_", " "))
	}
	if name == "" {
		name = amdDevices[strings.ToLower(amdValue(labels, "device-id"))]
	}
	if size, ok := strings.CutSuffix(amdValue(labels, "vram"), "G"); ok {
		if gigabytes, err := strconv.ParseInt(size, 10, 64); err == nil {
			memoryMiB = gigabytes << 10
		}
	}
	return name, memoryMiB
}

func amdValue(labels map[string]string, property string) string {
	for _, prefix := range []string{"amd.com/gpu.", "beta.amd.com/gpu."} {
		if value := labels[prefix+property]; value != "" {
			return value
		}
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			if value, ok := strings.CutPrefix(key, prefix+property+"."); ok {
				return value
			}
		}
	}
	return ""
}

// amdDevices are the models of AMD by the PCI ID of their device.
var amdDevices = map[string]string{
	"740c": "MI250X", "7408": "MI250X", "740f": "MI210", "74a0": "MI300A", "74a1": "MI300X", "74b5": "MI300X", "74a9": "MI300X",
	"74a5": "MI325X", "74b9": "MI325X", "75a0": "MI350X", "75a3": "MI355X", "75b0": "MI350X", "75b3": "MI355X",
}

// cloudLabels are those by which clouds name the model of a node's GPUs: GKE, EKS, Karpenter on AWS.
var cloudLabels = []string{"cloud.google.com/gke-accelerator", "k8s.amazonaws.com/accelerator", "karpenter.k8s.aws/instance-gpu-name"}

// cloudName returns the model in a label such as nvidia-tesla-t4, nvidia-h100-80gb or nvidia-l4.
func cloudName(labels map[string]string) string {
	text := firstLabel(labels, cloudLabels)
	if text == "" {
		return ""
	}
	if name := findModel(gkeModels, text); name != "" {
		return name
	}
	_, name := gpu.ParseReported(strings.ReplaceAll(text, "-", " "))
	return name
}

// onlySize returns the memory of a model that is sold with one size; 0: it is not known.
func onlySize(name string) int64 {
	m, ok := gpu.Find(name)
	if !ok || len(m.Sizes) != 1 {
		return 0
	}
	return int64(m.Sizes[0]) << 10
}

func readNumber(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
