package gcp

import (
	"slices"
	"strings"

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
