package node_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var cluster = node.Cluster{Key: "kubernetes", Region: "cluster"}

const gib = 1 << 30

// newNode returns a ready node with 4 CPUs and 16 GiB, as a bare cluster has it.
func newNode() node.Facts {
	return node.Facts{
		Name: "k1", UID: "1c6f", Arch: "amd64", Labels: map[string]string{},
		Conditions:  []node.Condition{{Type: "MemoryPressure", Status: "False"}, {Type: "Ready", Status: "True"}},
		Allocatable: node.Amounts{MilliCPUs: 4000, MemoryBytes: 16 * gib, DiskBytes: 100 * gib, Pods: 110, Extended: map[string]int64{}},
	}
}

func offer(n node.Facts, taken node.Amounts) dstack.Offer {
	return node.NewOffer(cluster, n, taken, dstack.Requirements{})
}

// withGPU returns what a service with gpu: 1 needs.
func withGPU(count int) dstack.Requirements {
	return dstack.Requirements{Resources: spec.Resources{GPU: &spec.GPU{Count: spec.Range[int]{Min: &count}}}}
}

func TestNewOffer_BareNode(t *testing.T) {
	o := offer(newNode(), node.Amounts{})
	if o.Type != "k1" || o.Region != "cluster" || o.Zone != "" || o.InstanceType != "" || o.Spot || o.IsDraining || o.Unusable != "" {
		t.Errorf("offer %+v", o)
	}
	if !o.IsManaged || !o.IsRemote || o.AnyNode || o.OwnedInstance == "" || o.Host != "" {
		t.Errorf("offer %+v", o)
	}
	if h := o.Hardware; h.CPUs != 4 || h.Arch != "x86" || h.MemoryMiB != 16<<10 || h.DiskMiB != 100<<10 || len(h.GPUs) != 0 {
		t.Errorf("hardware %+v", h)
	}
}

func TestInstanceID(t *testing.T) {
	first := node.InstanceID("kubernetes", "1c6f")
	if first != node.InstanceID("kubernetes", "1c6f") {
		t.Error("the ID of a node changes")
	}
	if first == node.InstanceID("kubernetes-west", "1c6f") || first == node.InstanceID("kubernetes", "2d70") {
		t.Error("two nodes have one ID")
	}
}

func TestNewOffer_Labels(t *testing.T) {
	for name, c := range map[string]struct {
		labels map[string]string
		check  func(o dstack.Offer) bool
	}{
		"topology": {map[string]string{
			"topology.kubernetes.io/region": "eu-west-1", "topology.kubernetes.io/zone": "eu-west-1b", "node.kubernetes.io/instance-type": "g5.xlarge",
		}, func(o dstack.Offer) bool {
			return o.Region == "eu-west-1" && o.Zone == "eu-west-1b" && o.InstanceType == "g5.xlarge"
		}},
		"old topology": {map[string]string{
			"failure-domain.beta.kubernetes.io/region": "eu", "failure-domain.beta.kubernetes.io/zone": "eu-b", "beta.kubernetes.io/instance-type": "big",
		}, func(o dstack.Offer) bool { return o.Region == "eu" && o.Zone == "eu-b" && o.InstanceType == "big" }},
		"spot of GKE":       {map[string]string{"cloud.google.com/gke-spot": "true"}, func(o dstack.Offer) bool { return o.Spot }},
		"preemptible":       {map[string]string{"cloud.google.com/gke-preemptible": "true"}, func(o dstack.Offer) bool { return o.Spot }},
		"spot of EKS":       {map[string]string{"eks.amazonaws.com/capacityType": "SPOT"}, func(o dstack.Offer) bool { return o.Spot }},
		"spot of AKS":       {map[string]string{"kubernetes.azure.com/scalesetpriority": "spot"}, func(o dstack.Offer) bool { return o.Spot }},
		"spot of Karpenter": {map[string]string{"karpenter.sh/capacity-type": "spot"}, func(o dstack.Offer) bool { return o.Spot }},
		"on demand": {map[string]string{
			"eks.amazonaws.com/capacityType": "ON_DEMAND", "karpenter.sh/capacity-type": "on-demand", "cloud.google.com/gke-spot": "false",
		}, func(o dstack.Offer) bool { return !o.Spot }},
	} {
		n := newNode()
		n.Labels = c.labels
		if o := offer(n, node.Amounts{}); !c.check(o) {
			t.Errorf("%s: offer %+v", name, o)
		}
	}
}

// What is free is not overstated, and not understated either.
func TestNewOffer_Taken(t *testing.T) {
	for _, c := range []struct {
		milliCPUs, taken int64
		free             int
	}{{4000, 0, 4}, {4000, 100, 3}, {4000, 1000, 3}, {1930, 0, 1}, {1930, 930, 1}, {1930, 931, 0}, {1930, 5000, 0}} {
		n := newNode()
		n.Allocatable.MilliCPUs = c.milliCPUs
		o := offer(n, node.Amounts{MilliCPUs: c.taken})
		if free := o.Hardware.CPUs - o.Taken.CPUs; free != c.free {
			t.Errorf("%dm of %dm taken: %d CPUs free, want %d", c.taken, c.milliCPUs, free, c.free)
		}
	}
	o := offer(newNode(), node.Amounts{MemoryBytes: 1, DiskBytes: 5 * gib})
	if o.Taken.MemoryMiB != 1 || o.Taken.DiskMiB != 5<<10 {
		t.Errorf("taken %+v", o.Taken)
	}
}

func TestNewOffer_NoMorePods(t *testing.T) {
	if o := offer(newNode(), node.Amounts{Pods: 110}); !strings.Contains(o.Unusable, "as many pods") {
		t.Errorf("a full node is unusable because of %q", o.Unusable)
	}
}

func TestNewOffer_GPUs(t *testing.T) {
	for name, c := range map[string]struct {
		labels    map[string]string
		resource  string
		wantName  string
		wantMaker string
		wantMiB   int64
	}{
		"GPU feature discovery": {map[string]string{
			"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920", "nvidia.com/gpu.count": "2",
		}, "nvidia.com/gpu", "A100", "nvidia", 81920},
		"a card with a name of several words": {map[string]string{
			"nvidia.com/gpu.product": "NVIDIA-RTX-6000-Ada-Generation", "nvidia.com/gpu.memory": "49140",
		}, "nvidia.com/gpu", "RTX6000Ada", "nvidia", 49140},
		"an old driver's name": {map[string]string{"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "15360"},
			"nvidia.com/gpu", "T4", "nvidia", 15360},
		"shared in time": {map[string]string{"nvidia.com/gpu.product": "NVIDIA-L4-SHARED", "nvidia.com/gpu.memory": "23034"},
			"nvidia.com/gpu", "L4", "nvidia", 23034},
		"all cards split alike": {map[string]string{
			"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu.memory": "4864",
		}, "nvidia.com/gpu", "A100-MIG-1g.5gb", "nvidia", 4864},
		"parts beside whole cards": {map[string]string{
			"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/gpu.memory": "40960",
			"nvidia.com/mig-1g.5gb.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/mig-1g.5gb.memory": "4864",
		}, "nvidia.com/mig-1g.5gb", "A100-MIG-1g.5gb", "nvidia", 4864},
		"AMD": {map[string]string{"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM", "amd.com/gpu.vram": "192G"},
			"amd.com/gpu", "MI300X", "amd", 192 << 10},
		"AMD by device": {map[string]string{"beta.amd.com/gpu.device-id.74b5": "4"}, "amd.com/gpu", "MI300X", "amd", 192 << 10},
		"GKE":           {map[string]string{"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, "nvidia.com/gpu", "T4", "nvidia", 16 << 10},
		"EKS":           {map[string]string{"k8s.amazonaws.com/accelerator": "nvidia-l4"}, "nvidia.com/gpu", "L4", "nvidia", 24 << 10},
		"no labels":     {map[string]string{}, "nvidia.com/gpu", node.UnknownGPU, "nvidia", 0},
	} {
		n := newNode()
		n.Labels, n.Allocatable.Extended = c.labels, map[string]int64{c.resource: 2, "example.com/fpga": 1}
		o := offer(n, node.Amounts{Extended: map[string]int64{c.resource: 1}})
		gpus := o.Hardware.GPUs
		if len(gpus) != 2 || o.Taken.GPUs != 1 {
			t.Errorf("%s: GPUs %+v, taken %+v", name, gpus, o.Taken)
			continue
		}
		if g := gpus[0]; g.Name != c.wantName || g.Maker != c.wantMaker || g.MemoryMiB != c.wantMiB || g.ID == gpus[1].ID {
			t.Errorf("%s: GPU %+v", name, g)
		}
		if byResource, byClass := node.CountGPUs(gpus); byResource[c.resource] != 2 || len(byResource) != 1 || len(byClass) != 0 {
			t.Errorf("%s: %v, %v are requested", name, byResource, byClass)
		}
	}
}

func TestNewOffer_Devices(t *testing.T) {
	n := newNode()
	n.Devices = []node.Device{
		{Class: "gpu.nvidia.com", Name: "pool/gpu-0", Product: "NVIDIA A100-SXM4-40GB", MemoryMiB: 40960, Capability: [2]int{8, 0}},
		{Class: "gpu.nvidia.com", Name: "pool/gpu-1", Product: "NVIDIA A100-SXM4-40GB", MemoryMiB: 40960, IsTaken: true},
	}
	o := offer(n, node.Amounts{})
	if g := o.Hardware.GPUs; len(g) != 2 || g[0].Name != "A100" || g[0].Maker != "nvidia" || g[0].MemoryMiB != 40960 || o.Taken.GPUs != 1 {
		t.Errorf("GPUs %+v, taken %+v", g, o.Taken)
	}
	if byResource, byClass := node.CountGPUs(o.Hardware.GPUs); byClass["gpu.nvidia.com"] != 2 || len(byResource) != 0 {
		t.Errorf("%v, %v are requested", byResource, byClass)
	}
	n.Allocatable.Extended["nvidia.com/gpu"] = 2 // the same cards, offered by a device plugin, too
	if o := offer(n, node.Amounts{}); len(o.Hardware.GPUs) != 2 {
		t.Errorf("GPUs %+v", o.Hardware.GPUs)
	}
}

// The GPUs of any node have no ID: the cluster is asked for some of their maker.
func TestCountGPUs_AnyNode(t *testing.T) {
	byResource, _ := node.CountGPUs([]dstack.GPU{{Maker: "amd", Name: "MI300X"}, {Maker: "nvidia"}, {Name: "A100"}})
	if byResource["amd.com/gpu"] != 1 || byResource["nvidia.com/gpu"] != 2 || len(byResource) != 2 {
		t.Errorf("%v are requested", byResource)
	}
}

func TestIsDraining(t *testing.T) {
	for name, change := range map[string]func(n *node.Facts){
		"cordoned":                          func(n *node.Facts) { n.IsCordoned = true },
		"uncordoned, but still tainted":     func(n *node.Facts) { n.Taints = []node.Taint{{"node.kubernetes.io/unschedulable", "", "NoSchedule"}} },
		"being deleted":                     func(n *node.Facts) { n.IsBeingDeleted = true },
		"removed by the cluster autoscaler": func(n *node.Facts) { n.Taints = []node.Taint{{"ToBeDeletedByClusterAutoscaler", "1", "NoSchedule"}} },
		"removed by Karpenter":              func(n *node.Facts) { n.Taints = []node.Taint{{"karpenter.sh/disrupted", "", "NoSchedule"}} },
	} {
		n := newNode()
		change(&n)
		reason, _ := node.ExplainUnusable(n)
		if o := offer(n, node.Amounts{}); !o.IsDraining || o.Unusable != "" || reason != "" {
			t.Errorf("%s: draining %t, unusable %q %q", name, o.IsDraining, o.Unusable, reason)
		}
	}
}

// Whether a node can be used, for a service without and with GPUs.
func TestNewOffer_Taints(t *testing.T) {
	for _, c := range []struct {
		taint             node.Taint
		without, withGPUs string
	}{
		{node.Taint{Key: "dedicated", Value: "web", Effect: "NoSchedule"}, "its taint dedicated=web:NoSchedule", "its taint dedicated=web:NoSchedule"},
		{node.Taint{Key: "dedicated", Effect: "NoExecute"}, "its taint dedicated:NoExecute", "its taint dedicated:NoExecute"},
		{node.Taint{Key: "dedicated", Value: "web", Effect: "PreferNoSchedule"}, "", ""},
		{node.Taint{Key: "nvidia.com/gpu", Value: "present", Effect: "NoSchedule"}, "keeps it for services with `gpu`", ""},
		{node.Taint{Key: "kubernetes.azure.com/scalesetpriority", Value: "spot", Effect: "NoSchedule"}, "", ""},
	} {
		n := newNode()
		n.Taints = []node.Taint{c.taint}
		for need, want := range map[*dstack.Requirements]string{{}: c.without, new(withGPU(1)): c.withGPUs, new(withGPU(0)): c.without} {
			o := node.NewOffer(cluster, n, node.Amounts{}, *need)
			if want == "" && o.Unusable != "" || !strings.Contains(o.Unusable, want) {
				t.Errorf("%+v: unusable because of %q, want %q", c.taint, o.Unusable, want)
			}
		}
	}
}

// If no node answers its cluster, the cluster is at fault: Kubernetes evicts nothing then, either.
func TestListCutOff(t *testing.T) {
	lost := time.Date(2026, 11, 28, 14, 0, 0, 0, time.UTC)
	one := func(status string, ago time.Duration) node.Facts {
		n := newNode()
		n.Name = fmt.Sprint(status, ago)
		n.Conditions[1] = node.Condition{Type: "Ready", Status: status, Since: lost.Add(-ago)}
		return n
	}
	for name, c := range map[string]struct {
		nodes []node.Facts
		want  map[string]bool
	}{
		"no nodes":                      {nil, nil},
		"one of one":                    {[]node.Facts{one("Unknown", 0)}, nil},
		"one of two":                    {[]node.Facts{one("Unknown", 0), one("True", 0)}, nil},
		"two of two":                    {[]node.Facts{one("Unknown", 0), one("Unknown", 9*time.Second)}, map[string]bool{"Unknown0s": true, "Unknown9s": true}},
		"one says that it is not ready": {[]node.Facts{one("Unknown", 0), one("Unknown", 1), one("False", 0)}, nil},
		"the last of two":               {[]node.Facts{one("Unknown", 0), one("Unknown", time.Hour)}, nil},
		"two, and one long before":      {[]node.Facts{one("Unknown", time.Hour), one("Unknown", 0), one("Unknown", 1)}, map[string]bool{"Unknown0s": true, "Unknown1ns": true}},
		"one is new":                    {[]node.Facts{one("Unknown", 0), one("Unknown", 1), {Name: "new"}}, nil},
	} {
		if diff := cmp.Diff(c.want, node.ListCutOff(c.nodes)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Rule 34: the node tells that it is lost, by its condition Ready.
func TestExplainUnusable(t *testing.T) {
	lost := time.Date(2026, 11, 28, 14, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(n *node.Facts)
		want   string
		silent bool
	}{
		"ready": {func(*node.Facts) {}, "", false},
		"lost": {func(n *node.Facts) {
			n.Conditions[1] = node.Condition{Type: "Ready", Status: "Unknown", Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status.", Since: lost}
		}, "it does not answer its cluster", true},
		"not ready": {func(n *node.Facts) {
			n.Conditions[1] = node.Condition{Type: "Ready", Status: "False", Reason: "KubeletNotReady", Message: "container runtime is down\nmore", Since: lost}
		}, "it is not ready: container runtime is down", true},
		"new":           {func(n *node.Facts) { n.Conditions = nil }, "it has not reported", false},
		"disk pressure": {func(n *node.Facts) { n.Taints = []node.Taint{{"node.kubernetes.io/disk-pressure", "", "NoSchedule"}} }, "it is short of disk", false},
		"uninitialized": {func(n *node.Facts) {
			n.Taints = []node.Taint{{"node.cloudprovider.kubernetes.io/uninitialized", "true", "NoSchedule"}}
		}, "its cloud provider has not set it up", false},
	} {
		n := newNode()
		c.change(&n)
		reason, _ := node.ExplainUnusable(n)
		if c.want == "" && reason != "" || !strings.Contains(reason, c.want) {
			t.Errorf("%s: unusable because of %q, want %q", name, reason, c.want)
		}
		since, why := node.SilentSince(n)
		if name == "lost" { // its cluster has waited itself before it said so
			since = since.Add(15 * time.Second)
		}
		if c.silent != since.Equal(lost) || c.silent != (why != "") {
			t.Errorf("%s: silent since %s: %q", name, since, why)
		}
	}
}
