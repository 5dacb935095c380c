package placement_test

import (
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestAdvise(t *testing.T) {
	laptop := dstack.Offer{Backend: "local", Region: "local", Type: "laptop", OwnedInstance: "i1",
		Hardware: dstack.Hardware{CPUs: 4, MemoryMiB: 8 << 10}, Engine: dstack.EngineCapabilities{SharesPorts: true}}
	docker := laptop
	docker.OwnedInstance, docker.Engine = "i2", dstack.EngineCapabilities{Containers: true}
	withGPU := docker
	withGPU.Hardware.GPUs = []dstack.GPU{{ID: "0", Maker: "nvidia", Name: "L4", MemoryMiB: 24 << 10}}
	cpus := func(n int) spec.Resources {
		r := spec.Resources{}
		r.CPU.Min, r.Explicit.CPU = &n, true
		return r
	}
	yes, cent := true, 0.01
	containers := dstack.EngineCapabilities{Containers: true}
	for _, c := range []struct {
		name   string
		need   dstack.Requirements
		offers []dstack.Offer
		used   map[dstack.InstanceID]dstack.Allocation
		want   string
	}{
		{"a backend that the server does not have", dstack.Requirements{Backends: []string{"aws", "gcp"}}, []dstack.Offer{laptop, docker}, nil,
			"this server has the backends: local"},
		{"a region and a type", dstack.Requirements{Regions: []string{"eu"}, InstanceTypes: []string{"p5"}}, []dstack.Offer{laptop}, nil,
			"this server has the regions: local\nthis server has the instance types: laptop"},
		{"spot machines only", dstack.Requirements{Spot: &yes}, []dstack.Offer{laptop, docker}, nil,
			"this server has no spot machines: write `spot_policy: auto`"},
		{"a lower price than that of any machine", dstack.Requirements{MaxPrice: &cent},
			[]dstack.Offer{{Price: 2, Engine: containers}, {Price: 0.71, Engine: containers}, {Price: 0.02}}, nil,
			"the cheapest is 0.71 $/h; raise max_price to 0.71"},
		{"a price with many digits", dstack.Requirements{MaxPrice: &cent}, []dstack.Offer{{Price: 0.712301, Engine: containers}}, nil,
			"the cheapest is 0.71231 $/h; raise max_price to 0.71231"},
		{"a machine that does not exist", dstack.Requirements{InstanceName: "box"}, []dstack.Offer{laptop}, nil,
			"this server has the machines: laptop"},
		{"an image without Docker", dstack.Requirements{IsGlobalAdmin: true, NeedsImage: true}, []dstack.Offer{laptop}, nil,
			"install Docker on the server's machine, or remove `image` to run plain processes"},
		{"a working directory of a container without Docker", dstack.Requirements{IsGlobalAdmin: true, OuterDir: "/app"}, []dstack.Offer{laptop}, nil,
			"write a `working_dir` relative to the folder that you apply from, or install Docker on the server's machine"},
		{"a path of a container without Docker", dstack.Requirements{IsGlobalAdmin: true, OuterPath: "/data"}, []dstack.Offer{laptop}, nil,
			"write a path inside of the working directory for /data, such as /workflow/data, or install Docker on the server's machine"},
		{"more than the machine has: waiting cannot help", dstack.Requirements{Resources: cpus(64)}, []dstack.Offer{docker}, nil,
			"to use laptop: write cpu: 4.."},
		{"others hold the CPUs: waiting can help", dstack.Requirements{Resources: cpus(4)}, []dstack.Offer{docker},
			map[dstack.InstanceID]dstack.Allocation{"i2": {CPUs: 2}},
			"ask for less: see `resources` in the configuration\nor let it wait until the machine is free: --retry"},
		{"another service has the port", dstack.Requirements{IsGlobalAdmin: true, Port: 8000}, []dstack.Offer{laptop},
			map[dstack.InstanceID]dstack.Allocation{"i1": {Ports: map[int]string{8000: "web replica 0", 8001: "api replica 0"}}},
			"use another port, such as 8002, or let dstack choose one: port: auto\nor let it wait until the machine is free: --retry"},
		{"plain processes for another user than an admin", dstack.Requirements{NeedsImage: true}, []dstack.Offer{laptop}, nil,
			"install Docker on the server's machine, or ask a global admin to apply the service"},
		{"no machine", dstack.Requirements{}, nil, nil, ""},
		{"a GPU that no machine has", dstack.Requirements{Resources: spec.Resources{GPU: &spec.GPU{}}}, []dstack.Offer{docker}, nil,
			"no machine of this server has a GPU: remove `gpu` from `resources`, or add a machine that has one: a host of a fleet, or a node of a cluster"},
		{"another GPU than a machine has", dstack.Requirements{Resources: spec.Resources{GPU: &spec.GPU{Name: []string{"A100"}}}},
			[]dstack.Offer{withGPU}, nil, "to use laptop: write gpu: L4:1.."},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := placement.Advise(c.need, c.offers, c.used); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
