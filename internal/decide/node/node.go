// Package node decides what a node of a Kubernetes cluster offers: its hardware, what others hold of it, and
// whether replicas may be placed there.
package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// Cluster is what all offers of one cluster have in common.
type Cluster struct {
	Key    string // in backend.Set
	Region string // of nodes without a label that says theirs
	Engine dstack.EngineCapabilities
}

// Facts are what a cluster says about one of its nodes.
type Facts struct {
	Name           string
	UID            string
	Labels         map[string]string
	Taints         []Taint
	Conditions     []Condition
	IsCordoned     bool
	IsBeingDeleted bool
	Arch           string // as Kubernetes names it: amd64
	Allocatable    Amounts
	Devices        []Device // that a driver for dynamic resource allocation publishes
}

// Taint keeps pods away that do not tolerate it.
type Taint struct{ Key, Value, Effect string }

// Condition is one of the conditions of a node.
type Condition struct {
	Type, Status, Reason, Message string
	Since                         time.Time // when Status last changed
}

// Amounts are quantities of what a node has, or a pod requests.
type Amounts struct {
	MilliCPUs   int64
	MemoryBytes int64
	DiskBytes   int64
	Pods        int64            // how many pods a node may have; a pod is one
	Extended    map[string]int64 // by resource: nvidia.com/gpu
}

// Add adds the amounts of a pod.
func (a *Amounts) Add(b Amounts) {
	a.MilliCPUs += b.MilliCPUs
	a.MemoryBytes += b.MemoryBytes
	a.DiskBytes += b.DiskBytes
	a.Pods += b.Pods
	for resource, n := range b.Extended {
		if a.Extended == nil {
			a.Extended = map[string]int64{}
		}
		a.Extended[resource] += n
	}
}

// InstanceID returns the ID of a node as a machine. It stays the same while the node exists, and a node that
// is created again under the same name is another machine.
func InstanceID(key, uid string) dstack.InstanceID {
	sum := sha256.Sum256([]byte(key + "\x00" + uid))
	return dstack.InstanceID("node-" + hex.EncodeToString(sum[:10]))
}

// NewOffer returns what a node offers. taken is what the pods on it request that are not dstack's replicas.
func NewOffer(c Cluster, n Facts, taken Amounts, need dstack.Requirements) dstack.Offer {
	o := dstack.Offer{
		Backend: "kubernetes", Key: c.Key, Type: n.Name, OwnedInstance: InstanceID(c.Key, n.UID), IsRemote: true, IsManaged: true,
		Region:       cmp.Or(firstLabel(n.Labels, regionLabels), c.Region),
		Zone:         firstLabel(n.Labels, zoneLabels),
		InstanceType: firstLabel(n.Labels, instanceTypeLabels),
		Spot:         isSpot(n.Labels),
		Hardware:     readHardware(n),
		Taken:        countTaken(n, taken),
		IsDraining:   IsDraining(n),
		Unusable:     explainTaint(n.Taints, need),
		Engine:       c.Engine,
	}
	if most := n.Allocatable.Pods; o.Unusable == "" && most > 0 && taken.Pods >= most {
		o.Unusable = "it has as many pods as it may have"
	}
	return o
}

const mib = 1 << 20

// readHardware returns what pods can request of a node.
func readHardware(n Facts) dstack.Hardware {
	return dstack.Hardware{
		CPUs: int(n.Allocatable.MilliCPUs / 1000), Arch: archs[n.Arch], MemoryMiB: n.Allocatable.MemoryBytes / mib,
		DiskMiB: n.Allocatable.DiskBytes / mib, GPUs: readGPUs(n),
	}
}

// archs maps the names that Kubernetes has for architectures to those of configurations.
var archs = map[string]string{"amd64": "x86", "386": "x86", "arm64": "arm", "arm": "arm"}

// countTaken returns what others hold of a node, in whole units of what is free: with 1930m of CPU allocatable
// and 100m requested, one CPU is left, as before.
func countTaken(n Facts, taken Amounts) dstack.Taken {
	t := dstack.Taken{
		CPUs:      int(missing(n.Allocatable.MilliCPUs, taken.MilliCPUs, 1000)),
		MemoryMiB: missing(n.Allocatable.MemoryBytes, taken.MemoryBytes, mib),
		DiskMiB:   missing(n.Allocatable.DiskBytes, taken.DiskBytes, mib),
	}
	for _, resource := range gpuResources(n) {
		t.GPUs += int(min(taken.Extended[resource], n.Allocatable.Extended[resource]))
	}
	for _, d := range n.Devices {
		if d.IsTaken {
			t.GPUs++
		}
	}
	return t
}

// missing returns how many whole units fewer there are after something was taken.
func missing(has, taken, unit int64) int64 { return has/unit - max(0, has-taken)/unit }

// The labels of nodes, the newest first.
var (
	regionLabels       = []string{"topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"}
	zoneLabels         = []string{"topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"}
	instanceTypeLabels = []string{"node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"}
)

// spotLabels are the labels by which providers mark spot machines: GKE (two generations), EKS, AKS and Karpenter.
var spotLabels = map[string]string{
	"cloud.google.com/gke-spot":             "true",
	"cloud.google.com/gke-preemptible":      "true",
	"eks.amazonaws.com/capacityType":        "SPOT",
	"kubernetes.azure.com/scalesetpriority": "spot",
	"karpenter.sh/capacity-type":            "spot",
}

func firstLabel(labels map[string]string, names []string) string {
	for _, name := range names {
		if labels[name] != "" {
			return labels[name]
		}
	}
	return ""
}

func isSpot(labels map[string]string) bool {
	for name, value := range spotLabels {
		if strings.EqualFold(labels[name], value) {
			return true
		}
	}
	return false
}

// AnyNode is the name of the machine that stands for the nodes of a cluster whose scheduler chooses one.
const AnyNode = "any node"

// AnyNodeID returns the ID of a cluster's AnyNode.
func AnyNodeID(key string) dstack.InstanceID { return InstanceID(key, AnyNode) }

// NewAnyNode returns what a cluster offers whose scheduler chooses the node, or waits for a new one.
func NewAnyNode(c Cluster) dstack.Offer {
	return dstack.Offer{
		Backend: "kubernetes", Key: c.Key, Region: c.Region, Type: AnyNode, OwnedInstance: AnyNodeID(c.Key), IsRemote: true, IsManaged: true,
		AnyNode: true, Engine: c.Engine,
	}
}
