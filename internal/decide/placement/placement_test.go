package placement_test

import (
	"strings"
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func box(change func(*dstack.Offer)) dstack.Offer {
	o := dstack.Offer{
		Backend: "local", Region: "local", Type: "box", OwnedInstance: "this",
		Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 50 << 10},
		Engine:   dstack.EngineCapabilities{Name: "docker", Containers: true},
	}
	if change != nil {
		change(&o)
	}
	return o
}

func gpus(names ...string) []dstack.GPU {
	var gs []dstack.GPU
	for i, n := range names {
		gs = append(gs, dstack.GPU{ID: string(rune('a' + i)), Maker: "nvidia", Name: n, MemoryMiB: map[string]int64{"L4": 23034, "A100": 81920, "T4": 15360}[n], Capability: [2]int{8, 0}})
	}
	return gs
}

func least[T int | spec.GB](v T) spec.Range[T]   { return spec.Range[T]{Min: &v} }
func exactly[T int | spec.GB](v T) spec.Range[T] { return spec.Range[T]{Min: &v, Max: &v} }

func TestRank_OwnedMachine(t *testing.T) {
	defaults := spec.Resources{CPU: least(2), Memory: least(spec.GB(8)), Disk: &spec.Disk{Size: least(spec.GB(100))}}
	asked := func(change func(*spec.Resources)) dstack.Requirements {
		r := defaults
		change(&r)
		return dstack.Requirements{Resources: r, Port: 8000}
	}
	gpu := func(g spec.GPU) dstack.Requirements { return asked(func(r *spec.Resources) { r.GPU = &g }) }
	process := func(o *dstack.Offer) { o.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true} }
	with := func(names ...string) func(*dstack.Offer) {
		return func(o *dstack.Offer) { o.Hardware.GPUs = gpus(names...) }
	}
	x86 := func(o *dstack.Offer) { o.Hardware.Arch = "x86" }
	rented := func(o *dstack.Offer) { o.OwnedInstance = "" }
	mem80, cc := exactly(spec.GB(24)), [2]int{9, 0}
	no := false
	yes := true

	for _, c := range []struct {
		name string
		need dstack.Requirements
		box  func(*dstack.Offer)
		used dstack.Allocation
		why  string // empty: it suits
	}{
		{name: "defaults are not held against it", need: asked(func(*spec.Resources) {})},
		{name: "what was asked for is", need: asked(func(r *spec.Resources) { r.Explicit.Disk = true }), why: "needs disk: 100GB..; has 50GB: write disk: 50GB.."},
		{name: "CPUs", need: asked(func(r *spec.Resources) { r.CPU, r.Explicit.CPU = exactly(16), true }), why: "needs cpu: 16; has 8: write cpu: 8"},
		{name: "its processor type", need: asked(func(r *spec.Resources) { r.CPUArch = "x86" }), box: x86},
		{name: "another processor type", need: asked(func(r *spec.Resources) { r.CPUArch = "arm" }), box: x86, why: "needs cpu: arm; has x86: write cpu: x86:2.."},
		{name: "an unknown processor type suits", need: asked(func(r *spec.Resources) { r.CPUArch = "arm" })},
		{name: "upper bounds do not bind a shared machine", need: asked(func(r *spec.Resources) { r.CPU, r.Explicit.CPU = exactly(4), true })},
		{name: "what others hold is not free", need: asked(func(r *spec.Resources) { r.Memory, r.Explicit.Memory = least(spec.GB(16)), true }), used: dstack.Allocation{MemoryMiB: 20 << 10}, why: "12GB of its 32GB memory free, 16GB asked for; waits for another run"},
		{name: "the first reason, and all changes", need: asked(func(r *spec.Resources) {
			r.CPU, r.Explicit.CPU, r.GPU = exactly(16), true, &spec.GPU{Count: exactly(1)}
		}), why: "needs cpu: 16; has 8: write cpu: 8 and remove gpu"},

		{name: "no GPU", need: gpu(spec.GPU{Count: exactly(1)}), why: "needs gpu: 1; has no GPU: remove gpu"},
		{name: "TPUs", need: gpu(spec.GPU{Count: exactly(1), Vendor: "tpu"}), why: "needs gpu: tpu, and dstack does not support TPUs: remove gpu"},
		{name: "one of two GPUs", need: gpu(spec.GPU{Count: exactly(1)}), box: with("L4", "L4")},
		{name: "GPUs are handed out one by one", need: gpu(spec.GPU{Count: exactly(2)}), box: with("L4", "L4"), used: dstack.Allocation{GPUs: map[string]string{"a": "x"}}, why: "1 of 2 GPUs free, needs gpu: 2; waits for x"},
		{name: "a name counts without case", need: gpu(spec.GPU{Count: exactly(1), Name: []string{"l4"}}), box: with("L4")},
		{name: "its maker", need: gpu(spec.GPU{Count: exactly(1), Vendor: "NVIDIA"}), box: with("L4")},
		{name: "another maker", need: gpu(spec.GPU{Count: exactly(1), Vendor: "amd"}), box: with("L4"), why: "needs gpu: amd; has 1×L4 24GB: write gpu: nvidia"},
		{name: "another name", need: gpu(spec.GPU{Count: exactly(1), Name: []string{"H100"}}), box: with("L4"), why: "needs gpu: H100; has 1×L4 24GB: write gpu: L4"},
		{name: "an L4 is a card of 24GB", need: gpu(spec.GPU{Count: exactly(1), Memory: &mem80}), box: with("L4")},
		{name: "a T4 is not", need: gpu(spec.GPU{Count: exactly(1), Memory: &mem80}), box: with("T4"), why: "needs gpu: 24GB; has 1×T4 16GB: write gpu: 16GB"},
		{name: "capability is a minimum", need: gpu(spec.GPU{Count: exactly(1), ComputeCapability: &cc}), box: with("A100"), why: "needs gpu: {compute_capability: 9.0}; has 1×A100 80GB: write gpu: {compute_capability: 8.0}"},
		{name: "none wanted, none taken", need: gpu(spec.GPU{Count: exactly(0)}), box: with("L4")},

		{name: "a working directory of a container needs containers", need: dstack.Requirements{IsGlobalAdmin: true, OuterDir: "/app"}, box: process, why: "it runs plain processes, and the `working_dir` /app is a folder of a container"},
		{name: "a path outside of the folder needs containers", need: dstack.Requirements{IsGlobalAdmin: true, OuterPath: "/etc/app"}, box: process, why: "no files outside of their folder, and /etc/app is outside"},
		{name: "an image needs containers", need: dstack.Requirements{IsGlobalAdmin: true, NeedsImage: true}, box: process, why: "`image` needs containers"},
		{name: "a port is held once", need: dstack.Requirements{IsGlobalAdmin: true, Port: 8000}, box: process, used: dstack.Allocation{Ports: map[int]string{8000: "llama replica 0"}}, why: "port 8000 is taken by llama replica 0"},
		{name: "containers have ports of their own", need: dstack.Requirements{Port: 8000}, used: dstack.Allocation{Ports: map[int]string{8000: "llama replica 0"}}},

		{name: "backends", need: dstack.Requirements{Backends: []string{"aws", "gcp"}}, why: "its backend is local, and `backends` allows only aws, gcp"},
		{name: "regions", need: dstack.Requirements{Regions: []string{"eu-west-1"}}, why: "its region is local, and `regions` allows only eu-west-1"},
		{name: "instance types", need: dstack.Requirements{InstanceTypes: []string{"BOX"}}},
		{name: "the machine of a name", need: dstack.Requirements{InstanceName: "Box"}},
		{name: "another machine", need: dstack.Requirements{InstanceName: "attic"}, why: "its name is box, and `instance_name` allows only attic"},
		{name: "a name, and a machine to rent", need: dstack.Requirements{InstanceName: "box"}, box: rented, why: "allows only the existing machine box"},
		{name: "reuse", need: dstack.Requirements{OwnedOnly: true}},
		{name: "reuse, and a machine to rent", need: dstack.Requirements{OwnedOnly: true}, box: rented, why: "it would be rented, and `creation_policy` is reuse"},
		{name: "spot", need: dstack.Requirements{Spot: &yes}, why: "it is not a spot machine"},
		{name: "on-demand", need: dstack.Requirements{Spot: &no}},
	} {
		t.Run(c.name, func(t *testing.T) {
			places, rejections := placement.RankOffers(c.need, []dstack.Offer{box(c.box)}, map[dstack.InstanceID]dstack.Allocation{"this": c.used})
			switch {
			case c.why == "" && len(places) != 1:
				t.Errorf("does not suit: %v", rejections)
			case c.why != "" && (len(rejections) != 1 || !strings.Contains(rejections[0].String(), c.why)):
				t.Errorf("got places %+v, rejections %v", places, rejections)
			}
		})
	}
}

func TestRank_ClaimsWhatWasAsked(t *testing.T) {
	need := dstack.Requirements{Port: 8000, IsGlobalAdmin: true, Resources: spec.Resources{
		CPU: exactly(4), Memory: least(spec.GB(8)), Explicit: spec.Explicit{CPU: true},
		GPU: &spec.GPU{Count: spec.Range[int]{Min: ptr(1), Max: ptr(4)}},
	}}
	o := box(func(o *dstack.Offer) {
		o.Hardware.GPUs = gpus("L4", "L4", "L4")
		o.Engine = dstack.EngineCapabilities{SharesPorts: true}
	})
	used := map[dstack.InstanceID]dstack.Allocation{"this": {GPUs: map[string]string{"a": "x"}}}
	places, _ := placement.RankOffers(need, []dstack.Offer{o}, used)
	if len(places) != 1 {
		t.Fatal("does not suit")
	}
	claim := places[0].Claim
	if claim.CPUs != 4 || claim.MemoryMiB != 0 || len(claim.GPUs) != 1 || claim.GPUs[0].ID != "b" || len(claim.Ports) != 1 || places[0].Free != "2 of 3 GPUs free" {
		t.Errorf("got %+v, %q", claim, places[0].Free)
	}
}

func TestRank_OwnedFirstThenByPrice(t *testing.T) {
	rented := func(name string, price float64) dstack.Offer {
		return box(func(o *dstack.Offer) { o.Type, o.Price, o.OwnedInstance = name, price, "" })
	}
	places, _ := placement.RankOffers(dstack.Requirements{}, []dstack.Offer{rented("dear", 2), rented("cheap", 1), box(nil)}, nil)
	var got []string
	for _, p := range places {
		got = append(got, p.Offer.Type)
	}
	if strings.Join(got, " ") != "box cheap dear" {
		t.Errorf("got %v", got)
	}
}

func ptr[T any](v T) *T { return &v }
