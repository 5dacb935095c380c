package gcp

import (
	"slices"
	"strings"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// gpuFamilies are the types whose GPUs are part of the type, by the quota that counts them.
var gpuFamilies = map[string][]string{
	"NVIDIA_L4_GPUS":           {"g2-*"},
	"NVIDIA_A100_GPUS":         {"a2-highgpu-*", "a2-megagpu-*"},
	"NVIDIA_A100_80GB_GPUS":    {"a2-ultragpu-*"},
	"NVIDIA_H100_GPUS":         {"a3-highgpu-*", "a3-edgegpu-*"},
	"NVIDIA_H100_MEGA_GPUS":    {"a3-megagpu-*"},
	"NVIDIA_H200_GPUS":         {"a3-ultragpu-*"},
	"NVIDIA_B200_GPUS":         {"a4-*"},
	"NVIDIA_GB200_GPUS":        {"a4x-*"},
	"NVIDIA_RTX_PRO_6000_GPUS": {"g4-*"},
}

// generalCPUs are the families whose CPUs the quota CPUS counts. Most others have a quota of their own.
var generalCPUs = []string{"n1-*", "e2-*", "f1-*", "g1-*"}

// normalizeMetric returns the name of a quota as regions list it: nvidia_l4_gpus and GPUS-ALL-REGIONS-per-project
// become NVIDIA_L4_GPUS and GPUS_ALL_REGIONS.
func normalizeMetric(name string) string {
	name = strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	name, _, _ = strings.Cut(name, "_PER_PROJECT")
	return name
}

// quotaTypes returns the types of machines that a quota limits, as patterns; nil: it limits no types in particular.
func quotaTypes(metric string) []string {
	metric, _ = strings.CutPrefix(normalizeMetric(metric), "PREEMPTIBLE_")
	if types := gpuFamilies[metric]; types != nil {
		return types
	}
	family, isCPUs := strings.CutSuffix(metric, "_CPUS")
	switch {
	case metric == "CPUS":
		return slices.Clone(generalCPUs)
	case isCPUs && !strings.Contains(family, "_"):
		return []string{strings.ToLower(family) + "-*"}
	}
	return nil
}

// quotaScope returns which offers would fail for a quota that a launch exceeded.
func quotaScope(e *apiError, l place) (dstack.FailureScope, []string) {
	metric := e.details.metric
	if m := exceededQuota.FindStringSubmatch(e.message); metric == "" && m != nil {
		metric = m[1]
	}
	metric = normalizeMetric(metric)
	switch types := quotaTypes(metric); {
	case types != nil:
		return dstack.ScopeTypes, types
	case metric == "GPUS_ALL_REGIONS" || strings.HasSuffix(metric, "_GPUS") || metric == "":
		return dstack.ScopeTypes, []string{l.Type}
	}
	return dstack.ScopePlace, nil // machines, addresses, sizes of disks
}

// newQuotas returns the quotas that limit machines, of those of a region and of the project.
func newQuotas(regional, global []quota) []cloud.Quota {
	limits := map[string]float64{}
	for _, q := range regional {
		limits[q.Metric] = q.Limit
	}
	var quotas []cloud.Quota
	for _, q := range regional {
		isCPUs, isGPUs := strings.HasSuffix(q.Metric, "CPUS"), strings.HasSuffix(q.Metric, "_GPUS") && !strings.Contains(q.Metric, "_VWS_")
		if !isCPUs && !isGPUs || strings.HasPrefix(q.Metric, "COMMITTED_") || strings.HasPrefix(q.Metric, "PREEMPTIBLE_") {
			continue
		}
		base := cloud.Quota{Name: q.Metric, Types: quotaTypes(q.Metric), CPUs: int(q.Limit), IsGPU: isGPUs}
		if gpu, ok := addedGPU(q.Metric); ok {
			base.Types, base.GPU = []string{"n1-*"}, gpu
		}
		if base.Types == nil {
			continue
		}
		spot := base
		spot.Spot = true
		preemptible := "PREEMPTIBLE_" + q.Metric
		if isCPUs {
			preemptible = "PREEMPTIBLE_CPUS"
		}
		if limit := limits[preemptible]; limit > 0 {
			spot.Name, spot.CPUs = preemptible, int(limit)
		}
		quotas = append(quotas, base, spot)
	}
	for _, q := range global {
		one := cloud.Quota{Name: q.Metric, Types: []string{"*"}, CPUs: int(q.Limit), IsGPU: q.Metric == "GPUS_ALL_REGIONS"}
		if one.IsGPU || q.Metric == "CPUS_ALL_REGIONS" {
			spot := one
			spot.Spot = true
			quotas = append(quotas, one, spot)
		}
	}
	return quotas
}

// addedGPU returns the GPU that a quota counts, if it is one that is added to machines.
func addedGPU(metric string) (gpu string, ok bool) {
	name, isGPUs := strings.CutSuffix(metric, "_GPUS")
	name, isNvidia := strings.CutPrefix(name, "NVIDIA_")
	return name, isGPUs && isNvidia && attachableGPUs[name] != nil
}
