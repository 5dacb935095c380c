// Package podpath connects to the pods of a cluster: at their addresses, through the API server, or through a port of their node.
// It finds out which of these ways works from here, and closes what leads to a pod that is gone.
package podpath

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/decide/traffic"
	"dstack/internal/loop"
)

// Pods are the pods of this installation in the cluster, as a kubeclient.Mirror copies them. Callers do not change what List
// returns. FreshAt is zero until the pods were listed once. Nothing is to be closed.
type Pods interface {
	List() []*corev1.Pod
	Changed() <-chan struct{}
	FreshAt() time.Time
}

// Forwarder opens connections to pods through the API server, as kubeclient.Client does. Each call opens one, which the caller closes.
type Forwarder interface {
	DialPod(ctx context.Context, pod string, port int) (net.Conn, error)
}

// ApplyService creates or changes a Service of the cluster, and returns it as the API server has it. It may be called again.
type ApplyService func(ctx context.Context, service *corev1.Service) (*corev1.Service, error)

// Options configure a Path. Cluster, Pods and Forwarder are required.
type Options struct {
	Cluster string      // the key of the backend
	Setting traffic.Way // of the configuration; empty: traffic.Auto
	Pods    Pods
	// Forwarder is for traffic.PortForward.
	Forwarder Forwarder
	// ApplyService is for traffic.NodePort and traffic.LoadBalancer; nil: these cannot be chosen.
	ApplyService ApplyService
	// Place returns where this process is; nil: nothing is known, and no address is dialed unless the Setting says so. See ReadPlace.
	Place func() traffic.Place
	Log   *slog.Logger
}

// Path connects to the pods of one cluster. Dial is the dial.HostDialer of the cluster. It is safe for concurrent use.
type Path struct {
	options  Options
	log      *slog.Logger
	services *podServices

	mu          sync.Mutex
	index       podIndex
	place       traffic.Place
	placeReadAt time.Time
	failures    map[types.UID]time.Time // when the address of a pod could not be reached
	conns       map[*podConn]struct{}
	goneSince   map[*podConn]time.Time // connections whose pod is gone, and since when
	last        traffic.Choice         // the latest, for the log
}

// New returns a path. Its tasks have to run while it is used.
func New(o Options) *Path {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Path{options: o, log: o.Log, services: newPodServices(o.ApplyService), failures: map[types.UID]time.Time{},
		conns: map[*podConn]struct{}{}, goneSince: map[*podConn]time.Time{}}
}

// Tasks returns the task that closes the connections to pods that are gone.
func (p *Path) Tasks() []loop.Task {
	return []loop.Task{{Name: "connections to the pods of " + p.options.Cluster, Run: p.closeGone}}
}

// Summary says how the pods of the cluster are reached from here.
type Summary struct {
	Way         traffic.Way
	Reason      string // for the user
	Connections int    // that are open
}

// Describe returns the way to the pods that exist, or to those that will.
func (p *Path) Describe() Summary {
	var target traffic.Target
	for _, pod := range p.options.Pods.List() {
		if found, ok := readPod(pod); ok {
			target = found.target(found.addresses[0])
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	choice := traffic.Choose(p.options.Setting, p.currentPlace(time.Now()), target, time.Now())
	return Summary{Way: choice.Way, Reason: choice.Reason, Connections: len(p.conns)}
}

// placeInterval is how long what was read about the place of this process is used.
const placeInterval = 10 * time.Second

// currentPlace returns where this process is. p.mu is held.
func (p *Path) currentPlace(now time.Time) traffic.Place {
	if p.options.Place != nil && now.Sub(p.placeReadAt).Abs() >= placeInterval {
		p.place, p.placeReadAt = p.options.Place(), now
	}
	return p.place
}

// choose decides the way to an address of a pod, and logs the first one and each change.
func (p *Path) choose(pod *podFacts, address netip.Addr, now time.Time) traffic.Choice {
	target := traffic.Target{Address: address}
	if pod != nil {
		target = pod.target(address)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod != nil {
		target.DirectFailedAt = p.failures[pod.uid]
	}
	choice := traffic.Choose(p.options.Setting, p.currentPlace(now), target, now)
	if choice != p.last {
		p.log.Info("connections to pods", "cluster", p.options.Cluster, "way", choice.Way, "reason", choice.Reason)
		p.last = choice
	}
	return choice
}

// markDirectFailed remembers that the address of a pod could not be reached.
func (p *Path) markDirectFailed(pod *podFacts, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures[pod.uid] = now
}
