package kubernetes

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/decide/node"
	"dstack/internal/kubeclient"
)

// scheduledPod is what the sum of requests on a node needs of a pod. A cluster may have a hundred thousand of them.
type scheduledPod struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		NodeName       string              `json:"nodeName,omitempty"`
		Containers     []podContainer      `json:"containers,omitempty"`
		InitContainers []podContainer      `json:"initContainers,omitempty"`
		Overhead       corev1.ResourceList `json:"overhead,omitempty"`
		Resources      *podResources       `json:"resources,omitempty"` // of the pod as a whole
	} `json:"spec"`
}

type podContainer struct {
	Resources     podResources `json:"resources,omitzero"`
	RestartPolicy string       `json:"restartPolicy,omitempty"` // of init containers: Always makes a sidecar
}

type podResources struct {
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// scheduledPods are the pods of all namespaces.
var scheduledPods = kubeclient.Resource[scheduledPod]{Version: "v1", Plural: "pods", Kind: "Pod", Word: "pod", IsClusterWide: true}

// unfinishedOnNodes selects the pods that hold something of a node.
const unfinishedOnNodes = "status.phase!=Succeeded,status.phase!=Failed,spec.nodeName!="

// readNode returns the facts about a node.
func readNode(n *corev1.Node) node.Facts {
	f := node.Facts{
		Name: n.Name, UID: string(n.UID), Labels: n.Labels, Arch: n.Status.NodeInfo.Architecture,
		IsCordoned: n.Spec.Unschedulable, IsBeingDeleted: n.DeletionTimestamp != nil, Allocatable: readAmounts(n.Status.Allocatable),
	}
	for _, t := range n.Spec.Taints {
		f.Taints = append(f.Taints, node.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)})
	}
	for _, c := range n.Status.Conditions {
		f.Conditions = append(f.Conditions, node.Condition{
			Type: string(c.Type), Status: string(c.Status), Reason: c.Reason, Message: c.Message, Since: c.LastTransitionTime.Time,
		})
	}
	return f
}

// readRequests returns what a pod holds of its node: what the sum of its containers requests, or one of its init containers if that is
// more, as the scheduler counts.
func readRequests(p *scheduledPod) node.Amounts {
	var running, starting node.Amounts // sidecars are in both
	for _, c := range p.Spec.InitContainers {
		requests := readAmounts(c.Resources.Requests)
		if c.RestartPolicy == string(corev1.ContainerRestartPolicyAlways) {
			running.Add(requests)
			starting = maxAmounts(starting, running)
			continue
		}
		requests.Add(running)
		starting = maxAmounts(starting, requests)
	}
	for _, c := range p.Spec.Containers {
		running.Add(readAmounts(c.Resources.Requests))
	}
	sum := maxAmounts(running, starting)
	if p.Spec.Resources != nil {
		whole := readAmounts(p.Spec.Resources.Requests)
		if whole.MilliCPUs > 0 {
			sum.MilliCPUs = whole.MilliCPUs
		}
		if whole.MemoryBytes > 0 {
			sum.MemoryBytes = whole.MemoryBytes
		}
	}
	sum.Add(readAmounts(p.Spec.Overhead))
	sum.Pods = 1
	return sum
}

func maxAmounts(a, b node.Amounts) node.Amounts {
	most := node.Amounts{
		MilliCPUs: max(a.MilliCPUs, b.MilliCPUs), MemoryBytes: max(a.MemoryBytes, b.MemoryBytes), DiskBytes: max(a.DiskBytes, b.DiskBytes),
	}
	for _, amounts := range []node.Amounts{a, b} {
		for name, n := range amounts.Extended {
			if most.Extended == nil {
				most.Extended = map[string]int64{}
			}
			most.Extended[name] = max(most.Extended[name], n)
		}
	}
	return most
}

func readAmounts(list corev1.ResourceList) node.Amounts {
	a := node.Amounts{}
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			a.MilliCPUs = readQuantity(q, resource.Milli)
		case corev1.ResourceMemory:
			a.MemoryBytes = readQuantity(q, 0)
		case corev1.ResourceEphemeralStorage:
			a.DiskBytes = readQuantity(q, 0)
		case corev1.ResourcePods:
			a.Pods = readQuantity(q, 0)
		default:
			if a.Extended == nil {
				a.Extended = map[string]int64{}
			}
			a.Extended[string(name)] = readQuantity(q, 0)
		}
	}
	return a
}

// readQuantity returns a quantity in units of a scale. Quantity.Value is 0 or negative for quantities that do not fit.
func readQuantity(q resource.Quantity, scale resource.Scale) int64 {
	if q.Sign() <= 0 {
		return 0
	}
	most := resource.NewScaledQuantity(math.MaxInt64/2, scale)
	if q.Cmp(*most) >= 0 {
		return math.MaxInt64 / 2
	}
	return q.ScaledValue(scale)
}
