package podpath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
)

// fakeServices answers as an API server does: with a node port at once, and with a load balancer perhaps later.
type fakeServices struct {
	nodePort int
	balancer string
	err      error
	mu       sync.Mutex
	applied  []*corev1.Service
}

func (f *fakeServices) apply(_ context.Context, s *corev1.Service) (*corev1.Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.applied = append(f.applied, s)
	answer := s.DeepCopy()
	answer.Spec.Ports[0].NodePort = int32(f.nodePort)
	if f.balancer != "" {
		answer.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: f.balancer}}
	}
	return answer, nil
}

func portOf(address string) int { return int(netip.MustParseAddrPort(address).Port()) }

func newServicePath(services *fakeServices, way traffic.Way) (*Path, *fakePods) {
	pods := &fakePods{}
	pods.set(newPod("web", "10.244.1.5"))
	return New(Options{Cluster: "kubernetes", Setting: way, Pods: pods, Forwarder: &fakeForwarder{}, ApplyService: services.apply}), pods
}

func TestNodePort(t *testing.T) {
	services := &fakeServices{nodePort: portOf(startServer(t, "node"))}
	p, pods := newServicePath(services, traffic.NodePort)
	for range 2 {
		if got := readText(t, mustDial(t, p, "10.244.1.5:8000")); got != "node" {
			t.Errorf("%q", got)
		}
	}
	if len(services.applied) != 1 {
		t.Fatalf("%d Services were applied", len(services.applied))
	}
	s := services.applied[0]
	switch {
	case s.Spec.Type != corev1.ServiceTypeNodePort, !s.Spec.PublishNotReadyAddresses, s.Spec.Ports[0].Port != 8000,
		s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal:
		t.Errorf("%+v", s.Spec)
	case len(s.Spec.Selector) != 1 || s.Spec.Selector["dstack.ai/attempt"] != "web":
		t.Errorf("selector %v", s.Spec.Selector)
	case len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != "uid of web":
		t.Errorf("owners %v", s.OwnerReferences)
	}
	pods.set()
	p.closeConnsOfGone(time.Now())
	if len(p.services.known) != 0 {
		t.Error("the Service of a pod that is gone is kept")
	}
}

// kube-proxy opens the port of a new Service a moment later.
func TestNodePort_OpensLater(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	p, _ := newServicePath(&fakeServices{nodePort: portOf(address)}, traffic.NodePort)
	opened := make(chan net.Listener, 1)
	defer time.AfterFunc(150*time.Millisecond, func() {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(portOf(address)))
		if err != nil {
			t.Error(err)
		}
		opened <- l
	}).Stop()
	mustDial(t, p, "10.244.1.5:8000")
	(<-opened).Close()
}

func TestLoadBalancer(t *testing.T) {
	balancer := startServer(t, "balancer")
	services := &fakeServices{nodePort: portOf(startServer(t, "node"))}
	p, _ := newServicePath(services, traffic.LoadBalancer)
	address := "10.244.1.5:" + strconv.Itoa(portOf(balancer))
	if got := readText(t, mustDial(t, p, address)); got != "node" {
		t.Errorf("without a load balancer: %q", got)
	}
	services.balancer = "127.0.0.1"
	for _, s := range p.services.known {
		s.readAt = time.Time{}
	}
	if got := readText(t, mustDial(t, p, address)); got != "balancer" {
		t.Errorf("%q", got)
	}
	if got := services.applied[0].Spec.Type; got != corev1.ServiceTypeLoadBalancer {
		t.Error(got)
	}
}

// A load balancer that does not accept connections yet is passed over.
func TestLoadBalancer_NotOpenYet(t *testing.T) {
	services := &fakeServices{nodePort: portOf(startServer(t, "node")), balancer: "127.0.0.1"}
	p, _ := newServicePath(services, traffic.LoadBalancer)
	if got := readText(t, mustDial(t, p, "10.244.1.5:1")); got != "node" {
		t.Errorf("%q", got)
	}
}

func TestNodePort_Refused(t *testing.T) {
	refusal := &dstack.Error{Kind: dstack.Forbidden, Message: "the account may not create services"}
	p, _ := newServicePath(&fakeServices{err: refusal}, traffic.NodePort)
	if _, err := p.Dial(t.Context(), "10.244.1.5:80"); !errors.Is(err, refusal) {
		t.Error(err)
	}
	p, _ = newServicePath(&fakeServices{}, traffic.NodePort)
	if _, err := p.Dial(t.Context(), "10.244.1.5:80"); dstack.KindOf(err) != dstack.Unavailable {
		t.Error(err)
	}
	p.services.apply = nil
	if _, err := p.Dial(t.Context(), "10.244.1.5:80"); dstack.KindOf(err) != dstack.Unsupported {
		t.Error(err)
	}
}
