package podpath

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/decide/traffic"
	"dstack/internal/loop"
)

// fakePods is a list of pods that tests change.
type fakePods struct {
	mu      sync.Mutex
	pods    []*corev1.Pod
	freshAt time.Time
	changed loop.Broadcast
}

func (f *fakePods) List() []*corev1.Pod {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pods
}

func (f *fakePods) Changed() <-chan struct{} { return f.changed.Changed() }

func (f *fakePods) FreshAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freshAt
}

func (f *fakePods) set(pods ...*corev1.Pod) {
	f.mu.Lock()
	f.pods, f.freshAt = pods, time.Now()
	f.mu.Unlock()
	f.changed.Notify()
}

// newPod returns a running pod on the node 127.0.0.1.
func newPod(name, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name), Labels: map[string]string{"dstack.ai/attempt": name, "team": "x"}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "127.0.0.1",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}},
	}
}

// fakeForwarder connects to one address for all pods, and counts.
type fakeForwarder struct {
	address string
	err     error
	mu      sync.Mutex
	pods    []string
}

func (f *fakeForwarder) DialPod(ctx context.Context, pod string, _ int) (net.Conn, error) {
	f.mu.Lock()
	f.pods = append(f.pods, pod)
	f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", f.address)
}

func (f *fakeForwarder) dialed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pods)
}

// startServer starts a server on loopback that says a text to every connection and then keeps it open. It returns its address.
func startServer(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				io.WriteString(conn, text)
				io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// startSilentServer returns an address on loopback that neither accepts nor refuses connections.
func startSilentServer(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port)).String()
	for range 10 { // until the queue of the listener is full
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue of a listener is never full")
	return ""
}

var discardLog = slog.New(slog.DiscardHandler)

var inCluster = traffic.Place{IsInCluster: true}

func newPath(pods Pods, forwarder Forwarder, place traffic.Place, setting traffic.Way) *Path {
	return New(Options{Cluster: "kubernetes", Setting: setting, Pods: pods, Forwarder: forwarder, Place: func() traffic.Place { return place }})
}

// readText reads the first piece that a connection has.
func readText(t *testing.T, conn net.Conn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	piece := make([]byte, 100)
	n, err := conn.Read(piece)
	if err != nil {
		t.Fatal(err)
	}
	return string(piece[:n])
}

func mustDial(t *testing.T, p *Path, address string) net.Conn {
	t.Helper()
	conn, err := p.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
