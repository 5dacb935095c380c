package server

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire/v022"
)

// clusterOffers returns two nodes, of which other pods use one partly and one is cordoned, and any node.
func clusterOffers() []dstack.Offer {
	node := func(name string, change func(*dstack.Offer)) dstack.Offer {
		o := dstack.Offer{Backend: "kubernetes", Key: "kubernetes", Region: "eu-west-1", Zone: "eu-west-1a", Type: name, InstanceType: "g5.12xlarge",
			OwnedInstance: dstack.InstanceID("node-" + name), IsRemote: true, IsManaged: true,
			Hardware: dstack.Hardware{CPUs: 48, MemoryMiB: 192 << 10, DiskMiB: 100 << 10, Arch: "x86", GPUs: []dstack.GPU{
				{ID: "nvidia.com/gpu#0", Maker: "nvidia", Name: "A10G", MemoryMiB: 23028}, {ID: "nvidia.com/gpu#1", Maker: "nvidia", Name: "A10G", MemoryMiB: 23028}}},
			Engine: dstack.EngineCapabilities{Name: "kubernetes", Containers: true, Mounts: true}}
		change(&o)
		return o
	}
	return []dstack.Offer{
		node("any node", func(o *dstack.Offer) { o.AnyNode, o.Hardware, o.InstanceType, o.Zone = true, dstack.Hardware{}, "", "" }),
		node("gpu-1", func(o *dstack.Offer) { o.IsDraining = true }),
		node("gpu-2", func(o *dstack.Offer) { o.Taken.GPUs = 1 }),
	}
}

const gpuService = "type: service\nport: 8000\nimage: python:3.12\ncommands: [true]\nresources: {gpu: 'A10G:%d', memory: 16GB..}\n"

// A plan on a cluster says what is free of each node and why the others do not suit, in our words and in those of both published
// clients. Any node has what the replicas ask for, and is no machine of the pool.
func TestPlan_Nodes(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.backend.offers = clusterOffers()
	describe := func(count string) (lines []string) {
		t.Helper()
		var preview api.Preview
		h.mustCall(api.ProjectPrefix+"/runs/preview", api.RunSpecRequest{RunSpec: h.newRunSpec("web", strings.ReplaceAll(gpuService, "%d", count))}, &preview)
		for _, p := range preview.Placements {
			lines = append(lines, strings.TrimSpace(p.Offer.Instance.Name+": "+p.Offer.Instance.Resources.Description+" "+p.Free))
		}
		for _, r := range preview.Rejections {
			lines = append(lines, r.Offer.Backend+" "+r.Offer.Instance.Name+": "+r.Reason+"; "+r.Help)
		}
		return lines
	}
	if diff := cmp.Diff([]string{
		"gpu-2: 48xCPU, 192GB, 2xA10G (22GB), 100.0GB (disk) 1 of 2 GPUs free",
		"any node: 0xCPU, 16GB, 1xA10G (24GB), 0.0GB (disk)",
		"kubernetes gpu-1: it is cordoned; run kubectl uncordon gpu-1",
	}, describe("1")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{
		"any node: 0xCPU, 16GB, 2xA10G (24GB), 0.0GB (disk)",
		"kubernetes gpu-2: 1 of 2 GPUs free, needs gpu: A10G:2; waits for other pods on the node",
		"kubernetes gpu-1: it is cordoned; run kubectl uncordon gpu-1",
	}, describe("2")); diff != "" {
		t.Error(diff)
	}

	rs := h.newRunSpec("web", strings.ReplaceAll(gpuService, "%d", "1"))
	var old api.RunPlan
	h.mustCall(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: rs}, &old)
	if offers := old.JobPlans[0].Offers; len(offers) != 2 || offers[0].Backend != "kubernetes" || offers[0].Instance.Name != "gpu-2" || offers[0].Region != "eu-west-1" ||
		len(offers[1].Instance.Resources.GPUs) != 1 {
		t.Errorf("0.18.10: %+v", offers)
	}
	var newest v022.RunPlan
	body := strings.Replace(newestSpec, `"port": 8000`, `"port": 8000, "image": "python:3.12", "resources": {"gpu": "A10G:1", "memory": "16GB.."}`, 1)
	h.callNewest(h.admin, api.ProjectPrefix+"/runs/get_plan", `{"run_spec": `+body+`}`, &newest)
	if offers := newest.JobPlans[0].Offers; len(offers) != 2 || offers[0].Backend != "kubernetes" || *offers[0].Instance.Resources.GPUs[0].Vendor != "nvidia" ||
		offers[1].Instance.Resources.MemoryMiB != 16<<10 || *offers[1].Instance.Resources.GPUs[0].Vendor != "nvidia" {
		t.Errorf("0.22.5: %+v", offers)
	}
	var pool api.PoolInstances
	h.mustCall(api.ProjectPrefix+"/pool/show", `{"name": null}`, &pool)
	if len(pool.Instances) != 2 || pool.Instances[0].Backend != "kubernetes" || pool.Instances[0].Name != "gpu-1" || pool.Instances[1].Name != "gpu-2" {
		t.Errorf("%+v", pool.Instances)
	}
}

// A replica that a cluster placed itself is shown on its node, once the node is known, and with what it asked for.
func TestRun_OnAnyNode(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.backend.offers = clusterOffers()[:1]
	rs := h.newRunSpec("web", strings.ReplaceAll(gpuService, "%d", "2"))
	var run api.Run
	h.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: rs}, &run)
	replica := h.startReplica(run.ID)
	found, err := h.store.RunDetails(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	details := found[0]
	details.Replicas[0].Claim = dstack.Claim{MemoryMiB: 16 << 10, GPUs: []dstack.GPU{{Maker: "nvidia", Name: "A10G", MemoryMiB: 24 << 10}}}
	for id, i := range details.Instances {
		i.Offer = clusterOffers()[0]
		details.Instances[id] = i
	}
	if v := buildReplicaView(details, details.Replicas[0]); v.Backend != "kubernetes" || v.Instance != "any node" || v.Resources != "16GB, 1×A10G 24GB" {
		t.Errorf("%+v", v)
	}
	details.Reports = map[dstack.AttemptID]dstack.Report{replica.Attempt: {Attempt: replica.Attempt, State: dstack.AttemptRunning, Node: "gpu-7"}}
	if v := buildReplicaView(details, details.Replicas[0]); v.Instance != "gpu-7" {
		t.Errorf("%+v", v)
	}
}
