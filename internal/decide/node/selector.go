package node

import (
	"cmp"
	"slices"
	"strconv"

	"dstack/internal/dstack"
	"dstack/internal/gpu"
	"dstack/internal/spec"
)

// alternative is a term that only nodes of one provider satisfy.
type alternative struct {
	provider string // empty: of any
	term     dstack.NodeTerm
}

// The providers whose labels differ.
const (
	providerGKE       = "GKE"
	providerEKS       = "EKS"
	providerAKS       = "AKS"
	providerKarpenter = "Karpenter"
)

// NewSelector returns the nodes that suit a replica, where the cluster chooses the node: what placement checks of nodes that it
// knows, and the scheduler does not know from the requests of a pod. o is the offer of any node, and models are the known models
// of GPUs that suit: see placement.ListModels.
func NewSelector(need dstack.Requirements, o dstack.Offer, models []dstack.GPU) dstack.NodeSelector {
	all := []alternative{{}}
	for _, choices := range [][]alternative{
		selectArch(need.Resources.CPUArch), selectTypes(need.InstanceTypes), selectRegions(need.Regions, o.Region), selectRegions(need.Zones, ""), selectSpot(need.Spot),
		selectGPUs(need.Resources.GPU, models),
	} {
		if len(choices) > 0 {
			all = combine(all, choices)
		}
	}
	if len(all) == 1 && len(all[0].term) == 0 {
		return nil
	}
	selector := make(dstack.NodeSelector, 0, len(all))
	for _, one := range all {
		selector = append(selector, one.term)
	}
	return selector
}

// combine returns every combination of two alternatives of one provider.
func combine(all, choices []alternative) (combined []alternative) {
	for _, a := range all {
		for _, b := range choices {
			if a.provider == "" || b.provider == "" || a.provider == b.provider {
				combined = append(combined, alternative{cmp.Or(a.provider, b.provider), slices.Concat(a.term, b.term)})
			}
		}
	}
	return combined
}

func isIn(label string, values ...string) dstack.NodeRequirement {
	return dstack.NodeRequirement{Label: label, Operator: dstack.NodeIn, Values: values}
}

// nodeArchs are the names that Kubernetes has for the architectures of configurations.
var nodeArchs = map[spec.Text]string{"x86": "amd64", "arm": "arm64"}

func selectArch(arch spec.Text) []alternative {
	if arch == "" {
		return nil
	}
	return []alternative{{term: dstack.NodeTerm{isIn("kubernetes.io/arch", nodeArchs[arch])}}}
}

// selectTypes selects nodes by their instance type, or by their own name.
func selectTypes(types []string) []alternative {
	if len(types) == 0 {
		return nil
	}
	return []alternative{{term: dstack.NodeTerm{isIn(instanceTypeLabels[0], types...)}}, {term: dstack.NodeTerm{isIn("kubernetes.io/hostname", types...)}}}
}

// selectRegions selects nodes by their region or zone. Nodes without a region are in that of the cluster.
func selectRegions(regions []string, ofCluster string) (choices []alternative) {
	if len(regions) == 0 {
		return nil
	}
	choices = []alternative{{term: dstack.NodeTerm{isIn(regionLabels[0], regions...)}}, {term: dstack.NodeTerm{isIn(zoneLabels[0], regions...)}}}
	if slices.Contains(regions, ofCluster) {
		choices = append(choices, alternative{term: dstack.NodeTerm{{Label: regionLabels[0], Operator: dstack.NodeLacks}}})
	}
	return choices
}

// spotProviders are the providers of spotLabels.
var spotProviders = []struct{ provider, label string }{
	{providerKarpenter, "karpenter.sh/capacity-type"},
	{providerGKE, "cloud.google.com/gke-spot"},
	{providerGKE, "cloud.google.com/gke-preemptible"},
	{providerEKS, "eks.amazonaws.com/capacityType"},
	{providerAKS, "kubernetes.azure.com/scalesetpriority"},
}

// selectSpot selects spot nodes of any provider, or nodes that no provider marks as spot.
func selectSpot(spot *bool) (choices []alternative) {
	if spot == nil {
		return nil
	}
	var unmarked dstack.NodeTerm
	for _, p := range spotProviders {
		value := spotLabels[p.label]
		choices = append(choices, alternative{p.provider, dstack.NodeTerm{isIn(p.label, value)}})
		unmarked = append(unmarked, dstack.NodeRequirement{Label: p.label, Operator: dstack.NodeNotIn, Values: []string{value}})
	}
	if *spot {
		return choices
	}
	return []alternative{{term: unmarked}}
}

// Cards have less memory than they are sold with, and some a little more: see gpu.SizeOf.
const (
	leastMemoryShare = 0.9
	mostMemoryShare  = 1.03
)

// selectGPUs selects nodes by the GPUs that suit: by what feature discovery found on nodes, and by the labels that
// clouds give to nodes that do not exist yet.
func selectGPUs(want *spec.GPU, models []dstack.GPU) (choices []alternative) {
	if want == nil || want.Count.Max != nil && *want.Count.Max == 0 || len(want.Name) == 0 && want.Memory == nil && want.ComputeCapability == nil {
		return nil
	}
	for _, found := range selectFound(want, models) {
		choices = append(choices, alternative{term: found})
	}
	for _, cloud := range cloudModels {
		if values := listValues(cloud.models, models); len(values) > 0 {
			choices = append(choices, alternative{cloud.provider, dstack.NodeTerm{isIn(cloud.label, values...)}})
		}
	}
	return choices
}

// selectFound returns what feature discovery finds on nodes with GPUs that suit.
func selectFound(want *spec.GPU, models []dstack.GPU) []dstack.NodeTerm {
	switch isAMD := want.Maker() == gpu.AMD || slices.ContainsFunc(models, func(g dstack.GPU) bool { return g.Maker == gpu.AMD }); {
	case isAMD:
		return selectAMD(models, want.Name)
	case len(want.Name) > 0:
		return []dstack.NodeTerm{{isIn(nvidiaResource+".product", listProducts(models, want.Name)...)}}
	}
	var term dstack.NodeTerm
	if r := want.Memory; r != nil && r.Min != nil {
		term = append(term, compare(nvidiaResource+".memory", dstack.NodeGreaterThan, int(float64(*r.Min)*1024*leastMemoryShare)-1))
	}
	if r := want.Memory; r != nil && r.Max != nil {
		term = append(term, compare(nvidiaResource+".memory", dstack.NodeLessThan, int(float64(*r.Max)*1024*mostMemoryShare)+1))
	}
	const major, minor = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
	if c := want.ComputeCapability; c != nil {
		return []dstack.NodeTerm{append(slices.Clone(term), compare(major, dstack.NodeGreaterThan, c[0])),
			append(slices.Clone(term), isIn(major, strconv.Itoa(c[0])), compare(minor, dstack.NodeGreaterThan, c[1]-1))}
	}
	return []dstack.NodeTerm{term}
}

// selectAMD returns what AMD's node labeller finds on nodes with GPUs that suit.
func selectAMD(models []dstack.GPU, names []string) (terms []dstack.NodeTerm) {
	if ids := listAMDDevices(models); len(ids) > 0 {
		terms = append(terms, dstack.NodeTerm{isIn("amd.com/gpu.device-id", ids...)})
	}
	var values []string
	for _, name := range listNames(models, names) {
		values = append(values, "AMD_Instinct_"+name, "AMD_Instinct_"+name+"_OAM", "AMD_Radeon_PRO_"+name)
	}
	return append(terms, dstack.NodeTerm{isIn("amd.com/gpu.product-name", values...)})
}

func compare(label string, operator dstack.NodeOperator, than int) dstack.NodeRequirement {
	return dstack.NodeRequirement{Label: label, Operator: operator, Values: []string{strconv.Itoa(than)}}
}
