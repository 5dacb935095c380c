package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dstack/internal/decide/node"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/spec"
)

// formatSelector writes a selector as text: a In [x y] & b Gt [1] | …
func formatSelector(selector dstack.NodeSelector) string {
	var terms []string
	for _, term := range selector {
		var parts []string
		for _, r := range term {
			parts = append(parts, strings.TrimSuffix(fmt.Sprintf("%s %s %v", r.Label, r.Operator, r.Values), " []"))
		}
		terms = append(terms, strings.Join(parts, " & "))
	}
	return strings.Join(terms, " | ")
}

func TestNewSelector(t *testing.T) {
	one, spot, onDemand := 1, true, false
	cards := func(g spec.GPU) dstack.Requirements {
		g.Count = spec.Range[int]{Min: &one, Max: &one}
		return dstack.Requirements{Resources: spec.Resources{GPU: &g}}
	}
	atLeast := func(size spec.GB) *spec.Range[spec.GB] { return &spec.Range[spec.GB]{Min: &size} }
	const unmarked = "karpenter.sh/capacity-type NotIn [spot] & cloud.google.com/gke-spot NotIn [true] & cloud.google.com/gke-preemptible NotIn [true] & " +
		"eks.amazonaws.com/capacityType NotIn [SPOT] & kubernetes.azure.com/scalesetpriority NotIn [spot]"
	for _, c := range []struct {
		name string
		need dstack.Requirements
		want string
	}{
		{"nothing is asked for", dstack.Requirements{}, ""},
		{"sizes are requests of the pod", dstack.Requirements{Resources: spec.Resources{Memory: *atLeast(64)}}, ""},
		{"a processor type", dstack.Requirements{Resources: spec.Resources{CPUArch: "arm"}}, "kubernetes.io/arch In [arm64]"},
		{"instance types", dstack.Requirements{InstanceTypes: []string{"g5.xlarge", "k2"}},
			"node.kubernetes.io/instance-type In [g5.xlarge k2] | kubernetes.io/hostname In [g5.xlarge k2]"},
		{"regions", dstack.Requirements{Regions: []string{"eu-west-1"}},
			"topology.kubernetes.io/region In [eu-west-1] | topology.kubernetes.io/zone In [eu-west-1]"},
		{"the region of nodes without one", dstack.Requirements{Regions: []string{"cluster"}},
			"topology.kubernetes.io/region In [cluster] | topology.kubernetes.io/zone In [cluster] | topology.kubernetes.io/region DoesNotExist"},
		{"spot", dstack.Requirements{Spot: &spot}, "karpenter.sh/capacity-type In [spot] | cloud.google.com/gke-spot In [true] | " +
			"cloud.google.com/gke-preemptible In [true] | eks.amazonaws.com/capacityType In [SPOT] | kubernetes.azure.com/scalesetpriority In [spot]"},
		{"no spot", dstack.Requirements{Spot: &onDemand}, unmarked},
		{"any GPU is a request of the pod", cards(spec.GPU{}), ""},
		{"a model in every provider's words", cards(spec.GPU{Name: []string{"T4"}}),
			"nvidia.com/gpu.product In [Tesla-T4 Tesla-T4-SHARED] | cloud.google.com/gke-accelerator In [nvidia-tesla-t4] | " +
				"k8s.amazonaws.com/accelerator In [nvidia-tesla-t4] | karpenter.k8s.aws/instance-gpu-name In [t4] | karpenter.azure.com/sku-gpu-name In [T4]"},
		{"a model of one size", cards(spec.GPU{Name: []string{"A100"}, Memory: atLeast(80)}),
			"nvidia.com/gpu.product In [NVIDIA-A100-SXM4-80GB NVIDIA-A100-80GB-PCIe NVIDIA-A100-SXM4-80GB-SHARED NVIDIA-A100-80GB-PCIe-SHARED] | " +
				"cloud.google.com/gke-accelerator In [nvidia-a100-80gb] | k8s.amazonaws.com/accelerator In [nvidia-a100-80gb] | " +
				"karpenter.k8s.aws/instance-gpu-name In [a100] | karpenter.azure.com/sku-gpu-name In [A100]"},
		{"a model whose name NVIDIA writes plainly", cards(spec.GPU{Name: []string{"A2"}}), "nvidia.com/gpu.product In [NVIDIA-A2 NVIDIA-A2-SHARED]"},
		{"a model that this version does not know", cards(spec.GPU{Name: []string{"R9000"}}), "nvidia.com/gpu.product In [NVIDIA-R9000 NVIDIA-R9000-SHARED]"},
		{"a size", cards(spec.GPU{Memory: atLeast(141)}), "nvidia.com/gpu.memory Gt [129944] | cloud.google.com/gke-accelerator In [nvidia-h200-141gb nvidia-b200 nvidia-gb200] | " +
			"k8s.amazonaws.com/accelerator In [nvidia-h200-141gb nvidia-b200 nvidia-gb200] | karpenter.k8s.aws/instance-gpu-name In [h200 b200] | " +
			"karpenter.azure.com/sku-gpu-name In [H200]"},
		{"a compute capability", cards(spec.GPU{ComputeCapability: &[2]int{12, 1}}),
			"nvidia.com/gpu.compute.major Gt [12] | nvidia.com/gpu.compute.major In [12] & nvidia.com/gpu.compute.minor Gt [0]"},
		{"a model of AMD", cards(spec.GPU{Name: []string{"MI300X"}}), "amd.com/gpu.device-id In [74a1 74a9 74b5] | " +
			"amd.com/gpu.product-name In [AMD_Instinct_MI300X AMD_Instinct_MI300X_OAM AMD_Radeon_PRO_MI300X]"},
		{"labels of two providers are not combined", func() dstack.Requirements {
			need := cards(spec.GPU{Name: []string{"B200"}})
			need.Spot = &spot
			return need
		}(), "karpenter.sh/capacity-type In [spot] & nvidia.com/gpu.product In [NVIDIA-B200 NVIDIA-B200-SHARED] | " +
			"karpenter.sh/capacity-type In [spot] & karpenter.k8s.aws/instance-gpu-name In [b200] | " +
			"cloud.google.com/gke-spot In [true] & nvidia.com/gpu.product In [NVIDIA-B200 NVIDIA-B200-SHARED] | " +
			"cloud.google.com/gke-spot In [true] & cloud.google.com/gke-accelerator In [nvidia-b200] | " +
			"cloud.google.com/gke-preemptible In [true] & nvidia.com/gpu.product In [NVIDIA-B200 NVIDIA-B200-SHARED] | " +
			"cloud.google.com/gke-preemptible In [true] & cloud.google.com/gke-accelerator In [nvidia-b200] | " +
			"eks.amazonaws.com/capacityType In [SPOT] & nvidia.com/gpu.product In [NVIDIA-B200 NVIDIA-B200-SHARED] | " +
			"eks.amazonaws.com/capacityType In [SPOT] & k8s.amazonaws.com/accelerator In [nvidia-b200] | " +
			"kubernetes.azure.com/scalesetpriority In [spot] & nvidia.com/gpu.product In [NVIDIA-B200 NVIDIA-B200-SHARED]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			selector := node.NewSelector(c.need, node.NewAnyNode(cluster), placement.ListModels(c.need.Resources.GPU))
			if got := formatSelector(selector); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Every label that selects a GPU is read as the same GPU on a node that has it, so that any node and known nodes agree. No
// requirement is without values, which the API refuses.
func TestNewSelector_AgreesWithOffers(t *testing.T) {
	one := 1
	for _, name := range gpu.Names() {
		model, _ := gpu.Find(name)
		if model.Maker != gpu.Nvidia && model.Maker != gpu.AMD {
			continue
		}
		want := spec.GPU{Name: []string{name}, Count: spec.Range[int]{Min: &one, Max: &one}}
		need := dstack.Requirements{Resources: spec.Resources{GPU: &want}}
		for _, term := range node.NewSelector(need, node.NewAnyNode(cluster), placement.ListModels(&want)) {
			for _, r := range term {
				if len(r.Values) == 0 {
					t.Errorf("%s: %s has no values", name, r.Label)
				}
				for _, value := range r.Values {
					n := newNode()
					n.Labels[r.Label] = value
					n.Allocatable.Extended[model.Maker+".com/gpu"] = 1
					if o := offer(n, node.Amounts{}); r.Label != "karpenter.azure.com/sku-gpu-name" && r.Label != "amd.com/gpu.product-name" && !slices.Contains(gpu.ParseRequest(name).Names, o.Hardware.GPUs[0].Name) {
						t.Errorf("%s=%s is selected for %s, and offered as %s", r.Label, value, name, o.Hardware.GPUs[0].Name)
					}
				}
			}
		}
	}
}
