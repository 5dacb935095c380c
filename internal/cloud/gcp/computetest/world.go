package computetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Region is a region of the project.
type Region struct {
	Zones []string // us-central1-a, …
	GPUs  map[string][]string
}

// Network is a VPC.
type Network struct {
	Project, Name string
	Subnets       map[string]string // names by region
	NAT           map[string]bool   // regions with a NAT gateway
}

// Type is a type of machine.
type Type struct {
	Name      string
	CPUs      int
	MemoryMiB int
	IsShared  bool
	IsARM     bool
	GPU       string // that is part of it: nvidia-l4; empty: none
	GPUs      int
	Zones     []string // that offer it; nil: all
}

// DefaultRegions are three regions. T4 and V100 can be added to machines of the first one.
var DefaultRegions = map[string]Region{
	"us-central1": {Zones: []string{"us-central1-a", "us-central1-b", "us-central1-c"}, GPUs: map[string][]string{
		"nvidia-tesla-t4": {"us-central1-a", "us-central1-b"}, "nvidia-tesla-v100": {"us-central1-a"}, "nvidia-l4": {"us-central1-a", "us-central1-b"},
	}},
	"us-east1":     {Zones: []string{"us-east1-b", "us-east1-c"}},
	"europe-west4": {Zones: []string{"europe-west4-a", "europe-west4-b"}},
}

// DefaultTypes are a few types of every kind.
var DefaultTypes = []Type{
	{Name: "e2-micro", CPUs: 2, MemoryMiB: 1 << 10, IsShared: true},
	{Name: "e2-standard-2", CPUs: 2, MemoryMiB: 8 << 10},
	{Name: "e2-standard-4", CPUs: 4, MemoryMiB: 16 << 10},
	{Name: "n2-standard-8", CPUs: 8, MemoryMiB: 32 << 10},
	{Name: "n1-standard-4", CPUs: 4, MemoryMiB: 15 << 10},
	{Name: "n1-standard-64", CPUs: 64, MemoryMiB: 240 << 10},
	{Name: "c4a-standard-4", CPUs: 4, MemoryMiB: 16 << 10, IsARM: true},
	{Name: "g2-standard-4", CPUs: 4, MemoryMiB: 16 << 10, GPU: "nvidia-l4", GPUs: 1, Zones: []string{"us-central1-a", "us-central1-b", "us-east1-b"}},
	{Name: "a2-highgpu-1g", CPUs: 12, MemoryMiB: 85 << 10, GPU: "nvidia-tesla-a100", GPUs: 1, Zones: []string{"us-central1-c"}},
	{Name: "a3-highgpu-8g", CPUs: 208, MemoryMiB: 1872 << 10, GPU: "nvidia-h100-80gb", GPUs: 8, Zones: []string{"us-central1-a"}},
	{Name: "ct5lp-hightpu-4t", CPUs: 112, MemoryMiB: 192 << 10, GPU: "ct5lp", GPUs: 4, Zones: []string{"us-central1-a"}},
}

// DefaultImages are those of Canonical and Google that machines boot from.
var DefaultImages = []string{
	"projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64",
	"projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64",
	"projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580",
	"projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-arm64-with-nvidia-580",
	"projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570",
}

// The prices of components, in dollars per hour on demand; spot costs a third.
var (
	familyPrices = map[string][2]float64{ // of a core and of a gigabyte
		"E2": {0.021811, 0.002923}, "N1 Predefined": {0.031611, 0.004237}, "N2": {0.031611, 0.004237}, "C4A Arm": {0.0294, 0.00342},
		"G2": {0.024988, 0.002927}, "A2": {0.031611, 0.004237}, "A3": {0.029388, 0.002560},
	}
	gpuPrices = map[string]float64{
		"Nvidia Tesla T4": 0.35, "Nvidia Tesla V100": 2.48, "Nvidia L4": 0.56004, "Nvidia Tesla A100": 2.933908, "Nvidia H100 80GB": 9.796552,
	}
)

func defaultQuotas() map[string]float64 {
	return map[string]float64{
		"CPUS": 200, "N2_CPUS": 200, "A2_CPUS": 96, "C2_CPUS": 24, "PREEMPTIBLE_CPUS": 0, "NVIDIA_T4_GPUS": 8, "NVIDIA_V100_GPUS": 0,
		"NVIDIA_L4_GPUS": 8, "PREEMPTIBLE_NVIDIA_L4_GPUS": 16, "NVIDIA_A100_GPUS": 8, "COMMITTED_NVIDIA_L4_GPUS": 0, "NVIDIA_T4_VWS_GPUS": 1,
		"SSD_TOTAL_GB": 10000, "IN_USE_ADDRESSES": 100,
	}
}

// Place is where capacity is limited.
type Place struct {
	Zone, Type string
	Spot       bool
}

// SetCapacity says how many more machines a place has.
func (s *Server) SetCapacity(p Place, machines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity[p] = machines
}

// SetQuota sets a quota of a region; with an empty region, one of the project.
func (s *Server) SetQuota(region, metric string, limit float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quotas[region][metric] = limit
}

func (s *Server) hasProject(name string) bool {
	return name == s.options.Project || slices.ContainsFunc(s.options.Networks, func(n Network) bool { return n.Project == name })
}

func (s *Server) hasZone(zone string) bool {
	return slices.Contains(s.options.Regions[regionOf(zone)].Zones, zone)
}

func regionOf(zone string) string { return zone[:max(0, strings.LastIndexByte(zone, '-'))] }

func lastPart(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func (s *Server) findType(name, zone string) *Type {
	for i, t := range s.options.Types {
		if t.Name == name && (t.Zones == nil || slices.Contains(t.Zones, zone)) {
			return &s.options.Types[i]
		}
	}
	return nil
}

func (s *Server) findNetwork(project, name string) *Network {
	for i, n := range s.options.Networks {
		if n.Project == project && n.Name == name {
			return &s.options.Networks[i]
		}
	}
	return nil
}

// item is an object of a list, with its place: zones/us-central1-a, regions/us-central1 or global.
type item struct {
	scope string
	body  map[string]any
}

// link returns the URL of an object, as answers have it.
func link(path string) string { return "https://www.googleapis.com/compute/v1/" + path }

func (s *Server) zoneItems() (items []item) {
	for _, name := range slices.Sorted(maps.Keys(s.options.Regions)) {
		for _, zone := range s.options.Regions[name].Zones {
			items = append(items, item{"", map[string]any{"name": zone, "status": "UP", "region": link("projects/" + s.options.Project + "/regions/" + name)}})
		}
	}
	return items
}

func (s *Server) typeItems(zone string) (items []item) {
	for _, t := range s.options.Types {
		if t.Zones != nil && !slices.Contains(t.Zones, zone) {
			continue
		}
		body := map[string]any{"name": t.Name, "guestCpus": t.CPUs, "memoryMb": t.MemoryMiB, "isSharedCpu": t.IsShared, "architecture": "X86_64", "zone": zone}
		if t.IsARM {
			body["architecture"] = "ARM64"
		}
		if t.GPU != "" {
			body["accelerators"] = []any{map[string]any{"guestAcceleratorType": t.GPU, "guestAcceleratorCount": t.GPUs}}
		}
		items = append(items, item{"", body})
	}
	return items
}

func (s *Server) acceleratorItems(zone string) (items []item) {
	gpus := s.options.Regions[regionOf(zone)].GPUs
	for _, name := range slices.Sorted(maps.Keys(gpus)) {
		if slices.Contains(gpus[name], zone) {
			items = append(items, item{"", map[string]any{"name": name, "maximumCardsPerInstance": 4}})
		}
	}
	return items
}

func (s *Server) quotaItems(region string) (items []any) {
	for _, metric := range slices.Sorted(maps.Keys(s.quotas[region])) {
		items = append(items, map[string]any{"metric": metric, "limit": s.quotas[region][metric], "usage": s.usage(region, metric)})
	}
	return items
}

func (s *Server) subnetItems(project string) (items []item) {
	for _, n := range s.options.Networks {
		for _, region := range slices.Sorted(maps.Keys(n.Subnets)) {
			if n.Project == project {
				items = append(items, item{"regions/" + region, map[string]any{"name": n.Subnets[region], "purpose": "PRIVATE",
					"network": link("projects/" + n.Project + "/global/networks/" + n.Name), "region": link("projects/" + n.Project + "/regions/" + region)}})
			}
		}
	}
	return items
}

func (s *Server) routerItems(project string) (items []item) {
	for _, n := range s.options.Networks {
		for _, region := range slices.Sorted(maps.Keys(n.NAT)) {
			if n.Project == project && n.NAT[region] {
				items = append(items, item{"regions/" + region, map[string]any{"name": "router", "nats": []any{map[string]any{"name": "nat"}},
					"network": link("projects/" + n.Project + "/global/networks/" + n.Name), "region": link("projects/" + n.Project + "/regions/" + region)}})
			}
		}
	}
	return items
}

func (s *Server) getImage(r *request) (any, error) {
	path := "projects/" + r.project + "/global/images/" + r.params["image"]
	if family := r.params["family"]; family != "" {
		path = "projects/" + r.project + "/global/images/family/" + family
	}
	if !slices.Contains(s.options.Images, path) {
		return nil, notFound(path)
	}
	return map[string]any{"name": lastPart(path)}, nil
}

// skuItems are the entries of the price list.
func (s *Server) skuItems() (items []item) {
	regions := []any{}
	for _, name := range slices.Sorted(maps.Keys(s.options.Regions)) {
		regions = append(regions, name)
	}
	add := func(description, usage, unit string, price float64) {
		units := int64(price)
		rate := map[string]any{"startUsageAmount": 0, "unitPrice": map[string]any{"currencyCode": "USD", "units": fmt.Sprint(units), "nanos": int64((price - float64(units)) * 1e9)}}
		items = append(items, item{"", map[string]any{
			"description": description, "category": map[string]any{"resourceFamily": "Compute", "usageType": usage}, "serviceRegions": regions,
			"pricingInfo": []any{map[string]any{"pricingExpression": map[string]any{"usageUnit": unit, "tieredRates": []any{rate}}}},
		}})
	}
	for _, market := range []struct {
		start, usage string
		part         float64
	}{{"", "OnDemand", 1}, {"Spot Preemptible ", "Preemptible", 0.33}, {"Commitment v1: ", "Commit1Yr", 0.6}} {
		for _, family := range slices.Sorted(maps.Keys(familyPrices)) {
			add(market.start+family+" Instance Core running in Americas", market.usage, "h", familyPrices[family][0]*market.part)
			add(market.start+family+" Instance Ram running in Americas", market.usage, "GiBy.h", familyPrices[family][1]*market.part)
		}
		for _, gpu := range slices.Sorted(maps.Keys(gpuPrices)) {
			add(market.start+gpu+" GPU running in Americas", market.usage, "h", gpuPrices[gpu]*market.part)
		}
	}
	return items
}
