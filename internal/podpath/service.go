package podpath

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// labelPrefix begins the labels by which a pod's Service finds the pod.
const labelPrefix = "dstack.ai/"

const (
	// proxyDelay is how long nodes may take to open the port of a new Service.
	proxyDelay = 3 * time.Second
	// proxyRetry is the pause before a port that is not open yet is tried again.
	proxyRetry = 100 * time.Millisecond
	// balancerInterval is how often a Service is asked for the address of its load balancer.
	balancerInterval = 10 * time.Second
)

// podServices has a Service for each port of a pod that is reached through one. A Service belongs to its pod, and goes with it. It is
// safe for concurrent use.
type podServices struct {
	apply ApplyService

	mu    sync.Mutex
	known map[serviceKey]*podService
}

type serviceKey struct {
	pod  types.UID
	port int
}

// podService is where a Service publishes a port of a pod.
type podService struct {
	mu        sync.Mutex
	nodePort  int
	balancer  string    // address of the load balancer; empty: it has none yet
	readAt    time.Time // when the Service was last applied
	createdAt time.Time
}

func newPodServices(apply ApplyService) *podServices {
	return &podServices{apply: apply, known: map[serviceKey]*podService{}}
}

// keep forgets the Services of pods that are gone.
func (s *podServices) keep(live map[types.UID]*podFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.known {
		if live[key.pod] == nil {
			delete(s.known, key)
		}
	}
}

// dial connects to a port of a pod through its Service: through the load balancer where there is one, otherwise through the port of the
// pod's node.
func (s *podServices) dial(ctx context.Context, pod *podFacts, port int, way traffic.Way) (net.Conn, error) {
	if s.apply == nil {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: "this server makes no Services for pods"}
	}
	s.mu.Lock()
	service := s.known[serviceKey{pod.uid, port}]
	if service == nil {
		service = &podService{}
		s.known[serviceKey{pod.uid, port}] = service
	}
	s.mu.Unlock()
	published, err := service.publish(ctx, s.apply, pod, port, way)
	if err != nil {
		return nil, err
	}
	var balancerErr error
	if published.balancer != "" {
		conn, err := dialAddress(ctx, net.JoinHostPort(published.balancer, strconv.Itoa(port)))
		if err == nil {
			return conn, nil
		}
		balancerErr = fmt.Errorf("through the load balancer: %w", err)
	}
	conn, err := published.dialNode(ctx, pod.node)
	if err != nil {
		return nil, errors.Join(err, balancerErr)
	}
	return conn, nil
}

// publishedPort is a copy of what a podService knows.
type publishedPort struct {
	nodePort  int
	balancer  string
	createdAt time.Time
}

// dialNode connects to the port of the pod's node. The nodes open it a moment after the Service was made.
func (p publishedPort) dialNode(ctx context.Context, node netip.Addr) (net.Conn, error) {
	if !node.IsValid() {
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the address of the pod's node is not known yet"}
	}
	address := netip.AddrPortFrom(node, uint16(p.nodePort)).String()
	for {
		conn, err := dialAddress(ctx, address)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || time.Since(p.createdAt) > proxyDelay {
			return conn, err
		}
		if loop.Sleep(ctx, proxyRetry) != nil {
			return nil, err
		}
	}
}

// publish makes the Service of a port, unless it is known. While it waits for its load balancer, it is asked again.
func (s *podService) publish(ctx context.Context, apply ApplyService, pod *podFacts, port int, way traffic.Way) (publishedPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	isWaiting := way == traffic.LoadBalancer && s.balancer == "" && time.Since(s.readAt) >= balancerInterval
	if s.nodePort == 0 || isWaiting {
		applied, err := apply(ctx, newService(pod, port, way))
		if err != nil && s.nodePort == 0 {
			return publishedPort{}, err
		}
		s.readAt = time.Now()
		if err == nil {
			s.read(applied)
		}
	}
	if s.nodePort == 0 {
		return publishedPort{}, &dstack.Error{Kind: dstack.Unavailable,
			Message: "the cluster has given the Service of the pod no port of its nodes", Hint: "set network: port-forward in the server's config.yml"}
	}
	return publishedPort{s.nodePort, s.balancer, s.createdAt}, nil
}

// read takes over what the API server says of the Service. s.mu is held.
func (s *podService) read(applied *corev1.Service) {
	if s.nodePort == 0 {
		s.createdAt = time.Now()
	}
	if len(applied.Spec.Ports) > 0 {
		s.nodePort = int(applied.Spec.Ports[0].NodePort)
	}
	for _, ingress := range applied.Status.LoadBalancer.Ingress {
		if s.balancer = ingress.IP; s.balancer == "" {
			s.balancer = ingress.Hostname
		}
		if s.balancer != "" {
			return
		}
	}
}

// newService returns the Service of a port of a pod. It publishes the port before the pod is ready, for probes, and only on the pod's own
// node, so that no request takes a detour.
func newService(pod *podFacts, port int, way traffic.Way) *corev1.Service {
	digest := sha256.Sum256([]byte(string(pod.uid) + "/" + strconv.Itoa(port)))
	selector := map[string]string{}
	for name, value := range pod.labels {
		if strings.HasPrefix(name, labelPrefix) {
			selector[name] = value
		}
	}
	kind := corev1.ServiceTypeNodePort
	if way == traffic.LoadBalancer {
		kind = corev1.ServiceTypeLoadBalancer
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "dstack-" + hex.EncodeToString(digest[:12]), Labels: selector,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.name, UID: pod.uid}}},
		Spec: corev1.ServiceSpec{Type: kind, Selector: selector, PublishNotReadyAddresses: true, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			Ports: []corev1.ServicePort{{Name: "replica", Port: int32(port), TargetPort: intstr.FromInt(port), Protocol: corev1.ProtocolTCP}}},
	}
}
