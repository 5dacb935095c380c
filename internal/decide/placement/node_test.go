package placement_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// node returns a node of a cluster.
func node(name string, change func(*dstack.Offer)) dstack.Offer {
	return box(func(o *dstack.Offer) {
		o.Backend, o.Region, o.Type, o.OwnedInstance, o.IsRemote, o.IsManaged = "kubernetes", "", name, dstack.InstanceID(name), true, true
		if change != nil {
			change(o)
		}
	})
}

// anyNode returns what a cluster offers that chooses the node itself.
func anyNode() dstack.Offer {
	return node("any node", func(o *dstack.Offer) { o.AnyNode, o.Hardware = true, dstack.Hardware{} })
}

func TestRank_Nodes(t *testing.T) {
	yes, no, cheap := true, false, 0.1
	resources := func(r spec.Resources) dstack.Requirements { return dstack.Requirements{Resources: r, Port: 8000} }
	cards := func(g spec.GPU) dstack.Requirements { return resources(spec.Resources{GPU: &g}) }
	memory := resources(spec.Resources{Memory: least(spec.GB(16)), Explicit: spec.Explicit{Memory: true}})
	filter := func(change func(*dstack.Requirements)) dstack.Requirements {
		need := dstack.Requirements{Port: 8000}
		change(&need)
		return need
	}
	two := func(o *dstack.Offer) { o.Hardware.GPUs = gpus("A100", "A100") }
	taken := func(taken dstack.Taken) func(*dstack.Offer) {
		return func(o *dstack.Offer) { two(o); o.Taken = taken }
	}
	labelled := func(o *dstack.Offer) {
		o.InstanceType, o.Region, o.Zone, o.Spot = "g5.xlarge", "eu-west-1", "eu-west-1a", true
	}
	for _, c := range []struct {
		name string
		need dstack.Requirements
		node func(*dstack.Offer)
		used dstack.Allocation
		why  string // empty: it suits
	}{
		{name: "other pods hold one of its two GPUs", need: cards(spec.GPU{Count: exactly(2)}), node: taken(dstack.Taken{GPUs: 1}),
			why: "1 of 2 GPUs free, needs gpu: 2; waits for other pods on the node"},
		{name: "the other one is free", need: cards(spec.GPU{Count: exactly(1)}), node: taken(dstack.Taken{GPUs: 1})},
		{name: "a replica and another pod hold both", need: cards(spec.GPU{Count: exactly(1)}), node: taken(dstack.Taken{GPUs: 1}),
			used: dstack.Allocation{GPUs: map[string]string{"b": "llama replica 0"}},
			why:  "0 of 2 GPUs free; waits for other pods on the node, llama replica 0"},
		{name: "the memory of other pods", need: memory, node: taken(dstack.Taken{MemoryMiB: 20 << 10}),
			why: "12GB of its 32GB memory free, 16GB asked for; waits for other pods on the node"},
		{name: "other pods and replicas add up", need: memory, node: taken(dstack.Taken{MemoryMiB: 10 << 10}), used: dstack.Allocation{MemoryMiB: 10 << 10,
			Runs: []dstack.RunShare{{Run: "r", Holder: "llama", HasSizes: true}}}, why: "12GB of its 32GB memory free, 16GB asked for; waits for llama"},
		{name: "they count only where sizes are asked for", need: cards(spec.GPU{Count: exactly(1)}), node: taken(dstack.Taken{CPUs: 8, MemoryMiB: 32 << 10})},

		{name: "its instance type", need: filter(func(n *dstack.Requirements) { n.InstanceTypes = []string{"g5.xlarge"} }), node: labelled},
		{name: "its name", need: filter(func(n *dstack.Requirements) { n.InstanceTypes = []string{"GPU-2"} }), node: labelled},
		{name: "another instance type", need: filter(func(n *dstack.Requirements) { n.InstanceTypes = []string{"p4d"} }), node: labelled,
			why: "its instance type is g5.xlarge, and `instance_types` allows only p4d: write instance_types: [p4d, g5.xlarge]"},
		{name: "a node without a type has its name", need: filter(func(n *dstack.Requirements) { n.InstanceTypes = []string{"p4d"} }),
			why: "its instance type is gpu-2, and `instance_types` allows only p4d: write instance_types: [p4d, gpu-2]"},
		{name: "its region", need: filter(func(n *dstack.Requirements) { n.Regions = []string{"eu-west-1"} }), node: labelled},
		{name: "its zone", need: filter(func(n *dstack.Requirements) { n.Regions = []string{"EU-WEST-1A"} }), node: labelled},
		{name: "another zone", need: filter(func(n *dstack.Requirements) { n.Regions = []string{"eu-west-1b"} }), node: labelled,
			why: "its region is eu-west-1, and `regions` allows only eu-west-1b: write regions: [eu-west-1b, eu-west-1]"},
		{name: "a bare node has no region", need: filter(func(n *dstack.Requirements) { n.Regions = []string{"eu-west-1"} }),
			why: "it has no region, and `regions` allows only eu-west-1: remove regions"},
		{name: "spot", need: filter(func(n *dstack.Requirements) { n.Spot = &yes }), node: labelled},
		{name: "no spot", need: filter(func(n *dstack.Requirements) { n.Spot = &no }), node: labelled, why: "it is a spot machine: write spot_policy: auto"},
		{name: "it has no price of dstack's", need: filter(func(n *dstack.Requirements) { n.MaxPrice = &cheap })},
		{name: "cordoned", node: func(o *dstack.Offer) { o.IsDraining = true }, why: "it is cordoned; run kubectl uncordon gpu-2"},
		{name: "not ready", node: func(o *dstack.Offer) { o.Unusable = "it is not ready: container runtime is down" }, why: "it is not ready: container runtime is down"},
		{name: "a folder of a node", need: filter(func(n *dstack.Requirements) { n.HostPath = "/data" }),
			why: "it is a node of a cluster that all projects share, of which only global admins may mount folders such as /data"},
		{name: "a global admin may", need: filter(func(n *dstack.Requirements) { n.HostPath, n.IsGlobalAdmin = "/data", true })},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := node("gpu-2", c.node)
			placements, rejections := placement.RankOffers(c.need, []dstack.Offer{o}, map[dstack.InstanceID]dstack.Allocation{"gpu-2": c.used})
			got := ""
			if len(rejections) > 0 {
				got = rejections[0].String()
			}
			if got != c.why || len(placements)+len(rejections) != 1 {
				t.Errorf("got %q, want %q", got, c.why)
			}
		})
	}
}

// Replicas of one node never get a GPU twice, whatever other pods hold, and the plan says what is free.
func TestRank_TakenGPUs(t *testing.T) {
	o := node("gpu-2", func(o *dstack.Offer) { o.Hardware.GPUs, o.Taken.GPUs = gpus("L4", "L4", "L4"), 1 })
	need := dstack.Requirements{Resources: spec.Resources{GPU: &spec.GPU{Count: exactly(1)}}}
	used := map[dstack.InstanceID]dstack.Allocation{}
	for _, free := range []string{"2 of 3 GPUs free", "1 of 3 GPUs free"} {
		placements, _ := placement.RankOffers(need, []dstack.Offer{o}, used)
		if len(placements) != 1 || placements[0].Free != free || len(placements[0].Claim.GPUs) != 1 {
			t.Fatalf("got %+v, want %s", placements, free)
		}
		if id := placements[0].Claim.GPUs[0].ID; used["gpu-2"].GPUs[id] != "" {
			t.Errorf("GPU %s is given twice", id)
		}
		placement.AddGrant(used, "p", placement.Grant{Instance: "gpu-2", Claim: placements[0].Claim})
	}
	if placements, _ := placement.RankOffers(need, []dstack.Offer{o}, used); len(placements) > 0 {
		t.Errorf("a third GPU is given: %+v", placements)
	}
}

// What cannot be placed together counts what other pods hold; any node is checked by the cluster.
func TestExceeded_Nodes(t *testing.T) {
	claim, total := dstack.Claim{CPUs: 4, MemoryMiB: 4 << 10, DiskMiB: 4 << 10}, dstack.Claim{CPUs: 6, MemoryMiB: 6 << 10, DiskMiB: 6 << 10}
	o := node("n", func(o *dstack.Offer) {
		o.Hardware = dstack.Hardware{CPUs: 8, MemoryMiB: 8 << 10, DiskMiB: 8 << 10}
		o.Taken = dstack.Taken{CPUs: 3, MemoryMiB: 3 << 10, DiskMiB: 3 << 10}
	})
	if diff := cmp.Diff([]string{"CPUs", "memory", "disk"}, placement.Exceeded(o, total, claim)); diff != "" {
		t.Error(diff)
	}
	if short := placement.Exceeded(anyNode(), total, claim); len(short) > 0 {
		t.Errorf("any node is short of %v", short)
	}
}

// Any node of a cluster comes after its nodes and other machines that exist, and takes what the
// scheduler can decide.
func TestRank_AnyNode(t *testing.T) {
	yes := true
	need := dstack.Requirements{Port: 8000, Run: "r", Regions: []string{"eu"}, InstanceTypes: []string{"p4d"}, Spot: &yes,
		Resources: spec.Resources{CPU: least(64), Memory: least(spec.GB(500)), CPUArch: "arm", Explicit: spec.Explicit{CPU: true, Memory: true}}}
	used := map[dstack.InstanceID]dstack.Allocation{"any node": {CPUs: 1000, Runs: []dstack.RunShare{{Run: "r", Replicas: 9}}}}
	placements, _ := placement.RankOffers(need, []dstack.Offer{anyNode()}, used)
	if len(placements) != 1 || placements[0].Claim.CPUs != 64 || placements[0].Claim.MemoryMiB != 500<<10 || placements[0].Free != "" {
		t.Fatalf("got %+v", placements)
	}

	rented := box(func(o *dstack.Offer) { o.OwnedInstance, o.Type = "", "rented" })
	busy := map[dstack.InstanceID]dstack.Allocation{"gpu-2": {Runs: []dstack.RunShare{{Run: "r", Replicas: 5}}}}
	placements, _ = placement.RankOffers(dstack.Requirements{Run: "r"}, []dstack.Offer{rented, anyNode(), node("gpu-2", nil)}, busy)
	var order []string
	for _, p := range placements {
		order = append(order, p.Offer.Type)
	}
	if diff := cmp.Diff([]string{"gpu-2", "any node", "rented"}, order); diff != "" {
		t.Error(diff)
	}

	_, rejections := placement.RankOffers(dstack.Requirements{InstanceName: "gpu-2"}, []dstack.Offer{anyNode()}, nil)
	if want := "the cluster chooses the node, and `instance_name` allows only gpu-2: remove instance_name"; len(rejections) != 1 || rejections[0].String() != want {
		t.Errorf("got %+v", rejections)
	}
}

// A cluster that chooses the node is asked for as few GPUs as suffice on each acceptable model.
func TestRank_AnyNodeGPUs(t *testing.T) {
	for _, c := range []struct {
		name string
		gpu  spec.GPU
		want []dstack.GPU
		why  string
	}{
		{"one of any kind", spec.GPU{Count: exactly(1)}, []dstack.GPU{{Maker: "nvidia"}}, ""},
		{"at least one", spec.GPU{}, []dstack.GPU{{Maker: "nvidia"}}, ""},
		{"none", spec.GPU{Count: exactly(0)}, nil, ""},
		{"of a maker", spec.GPU{Count: least(2), Vendor: "AMD"}, []dstack.GPU{{Maker: "amd"}, {Maker: "amd"}}, ""},
		{"of a model, which says its maker", spec.GPU{Count: exactly(1), Name: []string{"MI300X"}}, []dstack.GPU{{Maker: "amd", Name: "MI300X", MemoryMiB: 192 << 10}}, ""},
		{"of the size in the name", spec.GPU{Count: exactly(1), Name: []string{"A100-80"}}, []dstack.GPU{{Maker: "nvidia", Name: "A100", MemoryMiB: 80 << 10}}, ""},
		{"of the smallest size", spec.GPU{Count: exactly(1), Name: []string{"A100"}}, []dstack.GPU{{Maker: "nvidia", Name: "A100", MemoryMiB: 40 << 10}}, ""},
		{"of a size", spec.GPU{Count: exactly(1), Memory: new(least(spec.GB(24)))}, []dstack.GPU{{Maker: "nvidia", MemoryMiB: 24 << 10}}, ""},
		{"one of two models", spec.GPU{Count: exactly(1), Name: []string{"A100", "L4"}}, []dstack.GPU{{Maker: "nvidia", MemoryMiB: 24 << 10}}, ""},
		{"enough for the total", spec.GPU{Count: least(1), Memory: new(exactly(spec.GB(24))), TotalMemory: new(least(spec.GB(40)))},
			[]dstack.GPU{{Maker: "nvidia", MemoryMiB: 24 << 10}, {Maker: "nvidia", MemoryMiB: 24 << 10}}, ""},
		{"a total that says nothing", spec.GPU{Count: least(1), TotalMemory: new(least(spec.GB(40)))}, nil,
			"needs gpu: {count: 1.., total_memory: 40GB..}; total_memory says nothing about one GPU: add `name` or `memory` to `gpu`"},
		{"a total that no number gives", spec.GPU{Count: exactly(1), Memory: new(exactly(spec.GB(24))), TotalMemory: new(least(spec.GB(40)))}, nil,
			"needs gpu: {memory: 24GB, total_memory: 40GB..}; no number of GPUs of 24GB gives the total_memory"},
		{"a GPU that does not exist", spec.GPU{Count: exactly(1), Name: []string{"T4"}, Memory: new(least(spec.GB(80)))}, nil,
			"needs gpu: T4:80GB..; no GPU that dstack knows is like that"},
		{"a model that this version does not know", spec.GPU{Count: exactly(1), Name: []string{"R9000"}}, []dstack.GPU{{Maker: "nvidia", Name: "R9000"}}, ""},
		{"a maker whose GPUs clusters do not count", spec.GPU{Count: exactly(1), Vendor: "google"}, nil,
			"needs gpu: google; a cluster can be asked for GPUs of nvidia and amd, not of google"},
	} {
		t.Run(c.name, func(t *testing.T) {
			need := dstack.Requirements{Resources: spec.Resources{GPU: &c.gpu}}
			placements, rejections := placement.RankOffers(need, []dstack.Offer{anyNode()}, nil)
			if c.why != "" {
				if len(rejections) != 1 || rejections[0].String() != c.why {
					t.Fatalf("got %+v", rejections)
				}
				return
			}
			if len(placements) != 1 {
				t.Fatalf("got %+v", rejections)
			}
			claim := placements[0].Claim
			if diff := cmp.Diff(c.want, claim.GPUs); diff != "" {
				t.Error(diff)
			}
			held := dstack.Allocation{}
			placement.Allocate(&held, claim, "llama replica 0")
			if len(held.GPUs) > 0 || len(placement.ExclusiveKeys(claim)) > 0 {
				t.Errorf("the cluster assigns the devices, and dstack holds %v", held.GPUs)
			}
		})
	}
}
