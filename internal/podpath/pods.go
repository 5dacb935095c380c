package podpath

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// podFacts is what a connection needs to know about a pod.
type podFacts struct {
	uid       types.UID
	name      string
	addresses []netip.Addr
	node      netip.Addr // of its machine; zero: not known
	labels    map[string]string
	isLost    bool // its node does not answer the control plane
}

// target returns the facts of a pod for traffic.Choose.
func (f *podFacts) target(address netip.Addr) traffic.Target {
	return traffic.Target{Address: address, Node: f.node}
}

// readPod returns the facts of a pod that can be reached. A pod that has ended keeps its address in its status, and another pod may
// have it. A pod in the network of its node is none of ours.
func readPod(pod *corev1.Pod) (facts *podFacts, ok bool) {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.Spec.HostNetwork {
		return nil, false
	}
	facts = &podFacts{uid: pod.UID, name: pod.Name, labels: pod.Labels, isLost: isLost(pod)}
	facts.node, _ = netip.ParseAddr(pod.Status.HostIP) // empty, or not yet known
	for _, ip := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			facts.addresses = append(facts.addresses, address)
		}
	}
	if len(facts.addresses) == 0 {
		address, err := netip.ParseAddr(pod.Status.PodIP)
		if err != nil {
			return nil, false
		}
		facts.addresses = []netip.Addr{address}
	}
	return facts, true
}

// isLost reports whether the control plane does not hear of the pod's node. Only the condition Ready shows it: the containers
// stay ready in the status.
func isLost(pod *corev1.Pod) bool {
	isReady, areContainersReady := true, false
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			isReady = c.Status == corev1.ConditionTrue || c.Reason != ""
		}
		if c.Type == corev1.ContainersReady {
			areContainersReady = c.Status == corev1.ConditionTrue
		}
	}
	return !isReady && areContainersReady
}

// podIndex has the pods by address, as of one change of the list.
type podIndex struct {
	changed   <-chan struct{} // closed once the index is old; nil: there is none yet
	byAddress map[netip.Addr]*podFacts
}

// readIndex returns the pods by address. p.mu is held.
func (p *Path) readIndex() podIndex {
	if p.index.changed != nil {
		select {
		case <-p.index.changed:
		default:
			return p.index
		}
	}
	p.index = podIndex{changed: p.options.Pods.Changed(), byAddress: map[netip.Addr]*podFacts{}}
	for _, pod := range p.options.Pods.List() {
		facts, ok := readPod(pod)
		if !ok {
			continue
		}
		for _, address := range facts.addresses {
			p.index.byAddress[address] = facts
		}
	}
	return p.index
}

// maxPodWait is how long a connection waits for a pod that another server has seen earlier than this one.
const maxPodWait = time.Second

// findPod returns the pod that has an address now. It returns nil and no error if the pods were never listed.
func (p *Path) findPod(ctx context.Context, address netip.Addr) (*podFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, maxPodWait)
	defer cancel()
	for {
		p.mu.Lock()
		index := p.readIndex()
		p.mu.Unlock()
		if pod := index.byAddress[address]; pod != nil {
			return pod, nil
		}
		if p.options.Pods.FreshAt().IsZero() {
			return nil, nil
		}
		if loop.SleepUntil(ctx, maxPodWait, index.changed) != nil {
			return nil, &dstack.Error{Kind: dstack.Unavailable,
				Message: fmt.Sprintf("no pod of this server in the cluster %q has the address %s any more", p.options.Cluster, address)}
		}
	}
}
