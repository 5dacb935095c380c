package ec2test

import (
	"maps"
	"slices"
	"time"
)

// Region is a region of the account.
type Region struct {
	Zones  []string       // us-east-1a, …
	VPCs   []VPC          // nil: one default VPC with a public subnet in each zone
	Quotas map[string]int // vCPUs by quota code; nil: DefaultQuotas
}

// VPC is a network.
type VPC struct {
	ID        string // empty: a new one
	Name      string // its tag Name
	IsDefault bool
	Subnets   []Subnet
}

// Subnet is a part of a network in one zone.
type Subnet struct {
	ID       string // empty: a new one
	Zone     string
	IsPublic bool // it has a route to an internet gateway
	HasNAT   bool // it has a route to a NAT gateway
	Free     int  // addresses that are left; 0: 4091; negative: none
}

// Image is a machine image.
type Image struct {
	Name         string
	Owner, Alias string // the number of its owner, and amazon for Amazon's own
	Arch         string // x86_64, arm64
	CreatedAt    string // 2026-11-01T08:00:00.000Z
	SizeGB       int    // of its root volume
	Regions      []string
}

// Type is a type of machine.
type Type struct {
	Name         string
	VCPUs        int
	MemoryMiB    int
	Arch         string // x86_64, arm64
	StorageGB    int    // of its own disks
	GPUs         int    // whole ones
	GPUPartition float64
	GPUMaker     string
	GPUName      string
	GPUMemoryMiB int // of each, or of the part
	NeuronCount  int
	NeuronName   string
	Quota        string // code of the quota on demand; empty: standard
	Price        float64
	SpotPrice    float64             // 0: not available as spot
	Zones        map[string][]string // by region; nil: all zones of all regions
}

// DefaultRegions are three regions.
var DefaultRegions = map[string]Region{
	"us-east-1": {Zones: []string{"us-east-1a", "us-east-1b", "us-east-1c"}},
	"us-west-2": {Zones: []string{"us-west-2a", "us-west-2b"}},
	"eu-west-1": {Zones: []string{"eu-west-1a", "eu-west-1b"}},
}

// DefaultQuotas are the limits of running machines, in vCPUs.
var DefaultQuotas = map[string]int{
	"L-1216C47A": 256, "L-DB2E81BA": 192, "L-417A185B": 192, "L-7295265B": 128, "L-74FC7D96": 64, "L-1945791B": 64,
	"L-2C3B7624": 64, "L-F7808C92": 192, "L-6E869C2A": 96,
	"L-34B43A08": 256, "L-3819A6DF": 192, "L-7212CCBC": 192, "L-E3A00192": 128, "L-88CF9481": 64, "L-B5D1601B": 64,
	"L-6B0D517C": 64, "L-85EED4F7": 96,
}

// quotaNames are the quotas as the console shows them, and spotQuotas those of spot machines by that on demand.
var (
	quotaNames = map[string]string{
		"L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", "L-DB2E81BA": "Running On-Demand G and VT instances",
		"L-417A185B": "Running On-Demand P instances", "L-7295265B": "Running On-Demand X instances", "L-74FC7D96": "Running On-Demand F instances",
		"L-1945791B": "Running On-Demand Inf instances", "L-2C3B7624": "Running On-Demand Trn instances", "L-F7808C92": "Running On-Demand HPC instances",
		"L-6E869C2A": "Running On-Demand DL instances", "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
		"L-3819A6DF": "All G and VT Spot Instance Requests", "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
		"L-E3A00192": "All X Spot Instance Requests", "L-88CF9481": "All F Spot Instance Requests", "L-B5D1601B": "All Inf Spot Instance Requests",
		"L-6B0D517C": "All Trn Spot Instance Requests", "L-85EED4F7": "All DL Spot Instance Requests",
	}
	spotQuotas = map[string]string{
		"L-1216C47A": "L-34B43A08", "L-DB2E81BA": "L-3819A6DF", "L-417A185B": "L-7212CCBC", "L-7295265B": "L-E3A00192",
		"L-74FC7D96": "L-88CF9481", "L-1945791B": "L-B5D1601B", "L-2C3B7624": "L-6B0D517C", "L-6E869C2A": "L-85EED4F7",
	}
)

// quotaCode returns the quota that counts a machine of the type.
func (t *Type) quotaCode(spot bool) string {
	code := t.Quota
	if code == "" {
		code = "L-1216C47A"
	}
	if spot {
		code = spotQuotas[code]
	}
	return code
}

// onlyNorthVirginia is where a rare type is offered.
var onlyNorthVirginia = map[string][]string{"us-east-1": {"us-east-1c"}}

// DefaultTypes are a few types of every kind.
var DefaultTypes = []Type{
	{Name: "t3.micro", VCPUs: 2, MemoryMiB: 1 << 10, Arch: "x86_64", Price: 0.0104, SpotPrice: 0.0035},
	{Name: "m7i.large", VCPUs: 2, MemoryMiB: 8 << 10, Arch: "x86_64", Price: 0.1008, SpotPrice: 0.0391},
	{Name: "m7i.xlarge", VCPUs: 4, MemoryMiB: 16 << 10, Arch: "x86_64", Price: 0.2016, SpotPrice: 0.0805},
	{Name: "m7i.4xlarge", VCPUs: 16, MemoryMiB: 64 << 10, Arch: "x86_64", Price: 0.8064, SpotPrice: 0.3105},
	{Name: "c7g.xlarge", VCPUs: 4, MemoryMiB: 8 << 10, Arch: "arm64", Price: 0.145, SpotPrice: 0.0602},
	{
		Name: "g6.xlarge", VCPUs: 4, MemoryMiB: 16 << 10, Arch: "x86_64", StorageGB: 250, Quota: "L-DB2E81BA", Price: 0.8048, SpotPrice: 0.3321,
		GPUs: 1, GPUMaker: "NVIDIA", GPUName: "L4", GPUMemoryMiB: 22888,
		Zones: map[string][]string{"us-east-1": {"us-east-1a", "us-east-1b"}, "us-west-2": {"us-west-2a", "us-west-2b"}},
	},
	{
		Name: "g6f.large", VCPUs: 2, MemoryMiB: 8 << 10, Arch: "x86_64", Quota: "L-DB2E81BA", Price: 0.202, SpotPrice: 0.081,
		GPUPartition: 0.125, GPUMaker: "NVIDIA", GPUName: "L4", GPUMemoryMiB: 2861, Zones: onlyNorthVirginia,
	},
	{
		Name: "p5.48xlarge", VCPUs: 192, MemoryMiB: 2 << 20, Arch: "x86_64", StorageGB: 30400, Quota: "L-417A185B", Price: 55.04,
		GPUs: 8, GPUMaker: "NVIDIA", GPUName: "H100", GPUMemoryMiB: 81920, Zones: onlyNorthVirginia,
	},
	{
		Name: "inf2.xlarge", VCPUs: 4, MemoryMiB: 16 << 10, Arch: "x86_64", Quota: "L-1945791B", Price: 0.7582, SpotPrice: 0.2274,
		NeuronCount: 1, NeuronName: "Inferentia2", Zones: onlyNorthVirginia,
	},
}

// DefaultImages are Ubuntu and NVIDIA's driver on it, for both architectures, with an older one and a foreign one of a
// similar name.
var DefaultImages = []Image{
	{Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101", Owner: "099720109477", Arch: "x86_64", CreatedAt: "2026-11-01T08:00:00.000Z", SizeGB: 8},
	{Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260902", Owner: "099720109477", Arch: "x86_64", CreatedAt: "2026-09-02T08:00:00.000Z", SizeGB: 8},
	{Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261115", Owner: "666666666666", Arch: "x86_64", CreatedAt: "2026-11-15T08:00:00.000Z", SizeGB: 8},
	{Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261101", Owner: "099720109477", Arch: "arm64", CreatedAt: "2026-11-01T08:10:00.000Z", SizeGB: 8},
	{Name: "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20261101", Owner: "898082745236", Alias: "amazon", Arch: "x86_64", CreatedAt: "2026-11-01T12:00:00.000Z", SizeGB: 75},
	{Name: "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20261101", Owner: "898082745236", Alias: "amazon", Arch: "arm64", CreatedAt: "2026-11-01T12:30:00.000Z", SizeGB: 75},
}

// rootDevice is the device of the root volume of every image.
const rootDevice = "/dev/sda1"

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

// SetQuota sets a quota of a region, in vCPUs.
func (s *Server) SetQuota(regionName, code string, vcpus int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.regions[regionName]; r != nil {
		r.quotas[code] = vcpus
	}
}

// region is a region with everything in it.
type region struct {
	name      string
	zones     []string
	quotas    map[string]int
	vpcs      []*vpc
	images    []*image
	instances map[string]*instance
	tokens    map[string]*tokenUse
	volumes   map[string]*volume
	groups    map[string]*securityGroup
	placement map[string]*placementGroup
}

type vpc struct {
	VPC
	subnets []*subnet
}

type subnet struct {
	Subnet
	vpc  *vpc
	next int // host number of the next address
}

type image struct {
	Image
	id string
}

// tokenUse is what a client token was used for.
type tokenUse struct {
	fingerprint string
	ids         []string
}

func (s *Server) newRegion(name string, r Region) *region {
	made := &region{
		name: name, zones: r.Zones, quotas: maps.Clone(DefaultQuotas), instances: map[string]*instance{}, tokens: map[string]*tokenUse{},
		volumes: map[string]*volume{}, groups: map[string]*securityGroup{}, placement: map[string]*placementGroup{},
	}
	if r.Quotas != nil {
		made.quotas = maps.Clone(r.Quotas)
	}
	vpcs := r.VPCs
	if vpcs == nil {
		network := VPC{IsDefault: true}
		for _, zone := range r.Zones {
			network.Subnets = append(network.Subnets, Subnet{Zone: zone, IsPublic: true})
		}
		vpcs = []VPC{network}
	}
	for _, v := range vpcs {
		network := &vpc{VPC: v}
		if network.ID == "" {
			network.ID = s.newID("vpc")
		}
		for _, sub := range v.Subnets {
			if sub.ID == "" {
				sub.ID = s.newID("subnet")
			}
			if sub.Free == 0 {
				sub.Free = 4091
			}
			network.subnets = append(network.subnets, &subnet{Subnet: sub, vpc: network, next: 4})
		}
		made.vpcs = append(made.vpcs, network)
		group := &securityGroup{id: s.newID("sg"), name: "default", description: "default VPC security group", vpc: network}
		made.groups[group.id] = group
	}
	for _, i := range s.options.Images {
		if len(i.Regions) == 0 || slices.Contains(i.Regions, name) {
			made.images = append(made.images, &image{Image: i, id: s.newID("ami")})
		}
	}
	return made
}

func (r *region) findSubnet(id string) *subnet {
	for _, v := range r.vpcs {
		for _, sub := range v.subnets {
			if sub.ID == id {
				return sub
			}
		}
	}
	return nil
}

func (r *region) findImage(id string) *image {
	for _, i := range r.images {
		if i.id == id {
			return i
		}
	}
	return nil
}

func (s *Server) findType(name string) *Type {
	for i := range s.options.Types {
		if s.options.Types[i].Name == name {
			return &s.options.Types[i]
		}
	}
	return nil
}

// zonesOf returns the zones of a region that offer a type.
func (r *region) zonesOf(t *Type) []string {
	if t.Zones == nil {
		return r.zones
	}
	return t.Zones[r.name]
}

// advance moves everything to the state that it has by now. The caller holds the lock.
func (s *Server) advance() {
	now := s.now()
	for _, r := range s.regions {
		for _, v := range r.volumes {
			s.advanceVolume(r, v, now)
		}
		for _, i := range r.instances {
			s.advanceInstance(r, i, now)
		}
	}
}

func isAfter(now, since time.Time, d time.Duration) bool { return now.Sub(since) >= d }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
