package node

import (
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
)

// labelledModel is what a label says about the GPUs of a node.
type labelledModel struct {
	value string
	name  string
	sizes []int // gigabytes; empty: every size that the model is sold with
}

// products are the names by which NVIDIA's GPU feature discovery labels nodes.
var products = []labelledModel{
	{"Tesla-P100-PCIE-16GB", "P100", []int{16}}, {"Tesla-V100-SXM2-16GB", "V100", []int{16}}, {"Tesla-V100-PCIE-16GB", "V100", []int{16}},
	{"Tesla-V100-SXM2-32GB", "V100", []int{32}}, {"Tesla-V100-PCIE-32GB", "V100", []int{32}}, {"Tesla-T4", "T4", nil},
	{"NVIDIA-A100-SXM4-40GB", "A100", []int{40}}, {"NVIDIA-A100-PCIE-40GB", "A100", []int{40}},
	{"NVIDIA-A100-SXM4-80GB", "A100", []int{80}}, {"NVIDIA-A100-80GB-PCIe", "A100", []int{80}},
	{"NVIDIA-H100-80GB-HBM3", "H100", []int{80}}, {"NVIDIA-H100-PCIe", "H100", []int{80}}, {"NVIDIA-H100-NVL", "H100NVL", nil},
	{"NVIDIA-H200-NVL", "H200NVL", nil}, {"NVIDIA-GH200-480GB", "GH200", []int{96}}, {"NVIDIA-GH200-144G-HBM3e", "GH200", []int{144}},
	{"NVIDIA-RTX-A4000", "A4000", nil}, {"NVIDIA-RTX-A5000", "A5000", nil}, {"NVIDIA-RTX-A6000", "A6000", nil},
	{"NVIDIA-RTX-6000-Ada-Generation", "RTX6000Ada", nil}, {"NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "RTXPRO6000", nil},
	{"NVIDIA-H20-3e", "H20-3e", nil}, {"NVIDIA-GeForce-RTX-3090", "RTX3090", nil}, {"NVIDIA-GeForce-RTX-4090", "RTX4090", nil}, {"NVIDIA-GeForce-RTX-5090", "RTX5090", nil},
}

// gkeModels are the values of GKE's label, which EKS has in its own label, too.
var gkeModels = []labelledModel{
	{"nvidia-tesla-p4", "P4", nil}, {"nvidia-tesla-p100", "P100", []int{16}}, {"nvidia-tesla-v100", "V100", []int{16}}, {"nvidia-tesla-t4", "T4", nil},
	{"nvidia-l4", "L4", nil}, {"nvidia-tesla-a100", "A100", []int{40}}, {"nvidia-a100-80gb", "A100", []int{80}}, {"nvidia-h100-80gb", "H100", []int{80}},
	{"nvidia-h100-mega-80gb", "H100", []int{80}}, {"nvidia-h200-141gb", "H200", nil}, {"nvidia-b200", "B200", nil}, {"nvidia-gb200", "GB200", nil},
	{"nvidia-rtx-pro-6000", "RTXPRO6000", nil},
}

// cloudModels are the labels by which clouds name the GPUs of nodes, also of those that their autoscalers could add.
var cloudModels = []struct {
	provider, label string
	models          []labelledModel
}{
	{providerGKE, "cloud.google.com/gke-accelerator", gkeModels},
	{providerEKS, "k8s.amazonaws.com/accelerator", gkeModels},
	{providerKarpenter, "karpenter.k8s.aws/instance-gpu-name", []labelledModel{
		{"v100", "V100", nil}, {"t4", "T4", nil}, {"t4g", "T4G", nil}, {"a10g", "A10G", nil}, {"l4", "L4", nil}, {"l40s", "L40S", nil}, {"a100", "A100", nil},
		{"h100", "H100", []int{80}}, {"h200", "H200", nil}, {"b200", "B200", nil},
	}},
	{providerKarpenter, "karpenter.azure.com/sku-gpu-name", []labelledModel{
		{"V100", "V100", nil}, {"T4", "T4", nil}, {"A10", "A10", nil}, {"A100", "A100", []int{80}}, {"H100", "H100", nil}, {"H200", "H200", nil},
	}},
}

// findModel returns the model that a value of a label stands for; empty: it is none of the known ones.
func findModel(known []labelledModel, value string) string {
	for _, k := range known {
		if k.value == value {
			return k.name
		}
	}
	return ""
}

// listValues returns the values of a label whose models suit.
func listValues(known []labelledModel, models []dstack.GPU) (values []string) {
	for _, k := range known {
		if slices.ContainsFunc(models, func(g dstack.GPU) bool {
			return g.Name == k.name && (len(k.sizes) == 0 || slices.Contains(k.sizes, int(g.MemoryMiB>>10)))
		}) {
			values = append(values, k.value)
		}
	}
	return values
}

// listProducts returns the names of products whose models suit, also of cards that pods share. A model without a product is looked for
// as NVIDIA names most: NVIDIA-L4.
func listProducts(models []dstack.GPU, names []string) (values []string) {
	values = listValues(products, models)
	for _, name := range listNames(models, names) {
		if !slices.ContainsFunc(products, func(k labelledModel) bool { return k.name == name }) {
			values = append(values, "NVIDIA-"+name)
		}
	}
	if len(values) == 0 { // of a size that no product has
		for _, name := range listNames(models, names) {
			values = append(values, "NVIDIA-"+name)
		}
	}
	for _, value := range slices.Clone(values) {
		values = append(values, value+"-SHARED")
	}
	return values
}

// listNames returns the names of models that suit, and those of a configuration that this version does not know.
func listNames(models []dstack.GPU, requested []string) (names []string) {
	for _, m := range models {
		if !slices.Contains(names, m.Name) {
			names = append(names, m.Name)
		}
	}
	for _, name := range requested {
		if !gpu.ParseRequest(name).Known {
			names = append(names, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return names
}

// listAMDDevices returns the PCI IDs of models of AMD, sorted.
func listAMDDevices(models []dstack.GPU) (ids []string) {
	for id, name := range amdDevices {
		if slices.ContainsFunc(models, func(g dstack.GPU) bool { return g.Name == name }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
