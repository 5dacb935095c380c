package podpath

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
)

func TestDial_DirectInTheCluster(t *testing.T) {
	pods, forwarder := &fakePods{}, &fakeForwarder{}
	address := startServer(t, "pod")
	pods.set(newPod("web", "127.0.0.1"))
	p := newPath(pods, forwarder, inCluster, traffic.Auto)
	if got := readText(t, mustDial(t, p, address)); got != "pod" || forwarder.dialed() != 0 {
		t.Errorf("%q, forwarded %d times", got, forwarder.dialed())
	}
	if s := p.Describe(); s.Way != traffic.Direct || s.Connections != 1 || !strings.Contains(s.Reason, "in the cluster") {
		t.Errorf("%+v", s)
	}
}

func TestDial_ForwardedFromOutside(t *testing.T) {
	pods, forwarder := &fakePods{}, &fakeForwarder{address: startServer(t, "forwarded")}
	pods.set(newPod("web", "10.244.1.5"))
	p := newPath(pods, forwarder, traffic.Place{Routes: []traffic.Route{{To: netip.MustParsePrefix("0.0.0.0/0")}}}, traffic.Auto)
	if got := readText(t, mustDial(t, p, "10.244.1.5:8000")); got != "forwarded" || forwarder.pods[0] != "web" {
		t.Errorf("%q by %q", got, forwarder.pods)
	}
	if s := p.Describe(); s.Way != traffic.PortForward || !strings.Contains(s.Reason, "outside of the cluster") {
		t.Errorf("%+v", s)
	}
}

// A NetworkPolicy or a firewall drops what comes to the address. The first connection loses a moment, the others nothing.
func TestDial_SilentAddressIsForwarded(t *testing.T) {
	t.Parallel()
	pods, forwarder := &fakePods{}, &fakeForwarder{address: startServer(t, "forwarded")}
	silent := startSilentServer(t)
	pods.set(newPod("web", "127.0.0.1"))
	p := newPath(pods, forwarder, inCluster, traffic.Auto)
	for i := range 3 {
		began := time.Now()
		if got := readText(t, mustDial(t, p, silent)); got != "forwarded" {
			t.Errorf("%q", got)
		}
		if took := time.Since(began); i == 0 && (took < otherDelay || took > directTimeout) || i > 0 && took > otherDelay/2 {
			t.Errorf("connection %d took %s", i, took)
		}
	}
	if s := p.Describe(); s.Way != traffic.Direct {
		t.Errorf("one pod that is not reached says nothing about the others: %+v", s)
	}
}

// A pod that is gone, on a network that drops what it is sent: the way that the configuration asks for fails soon, so that a
// request goes to another replica.
func TestDial_SilentAddressFailsSoon(t *testing.T) {
	t.Parallel()
	pods := &fakePods{}
	pods.set(newPod("web", "127.0.0.1"))
	p := newPath(pods, &fakeForwarder{}, inCluster, traffic.Direct)
	began := time.Now()
	_, err := p.Dial(t.Context(), startSilentServer(t))
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestDial_BothWaysFail(t *testing.T) {
	t.Parallel()
	pods := &fakePods{}
	pods.set(newPod("web", "127.0.0.1"))
	p := newPath(pods, &fakeForwarder{err: errors.New("the API server is away")}, inCluster, traffic.Auto)
	if _, err := p.Dial(t.Context(), startSilentServer(t)); err == nil || !strings.Contains(err.Error(), "i/o timeout") {
		t.Error(err)
	}
}

// A refused port is the pod's own answer, and must be recognized as such: see engine.CheckPort.
func TestDial_RefusedPort(t *testing.T) {
	pods, forwarder := &fakePods{}, &fakeForwarder{address: startServer(t, "forwarded")}
	pods.set(newPod("web", "127.0.0.1"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := newPath(pods, forwarder, inCluster, traffic.Auto)
	if _, err := p.Dial(t.Context(), l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) || forwarder.dialed() != 0 {
		t.Errorf("%v, forwarded %d times", err, forwarder.dialed())
	}
}

// The address of a pod that is gone may belong to somebody else's pod by now.
func TestDial_AddressOfNoPod(t *testing.T) {
	t.Parallel()
	pods := &fakePods{}
	address := startServer(t, "somebody else")
	ended := newPod("ended", "127.0.0.1")
	ended.Status.Phase = corev1.PodFailed
	onNode := newPod("on-node", "127.0.0.1")
	onNode.Spec.HostNetwork = true
	pods.set(newPod("web", "10.244.1.5"), ended, onNode)
	p := newPath(pods, &fakeForwarder{}, inCluster, traffic.Direct)
	if _, err := p.Dial(t.Context(), address); dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "no pod of this server") {
		t.Error(err)
	}
	for _, malformed := range []string{"web:80", "127.0.0.1", "127.0.0.1:http"} {
		if _, err := p.Dial(t.Context(), malformed); err == nil {
			t.Errorf("%s was dialed", malformed)
		}
	}
}

// Another server has seen the pod a moment earlier, and published its address.
func TestDial_WaitsForANewPod(t *testing.T) {
	pods := &fakePods{}
	pods.set()
	p := newPath(pods, &fakeForwarder{}, inCluster, traffic.Auto)
	address := startServer(t, "pod")
	appear := time.AfterFunc(50*time.Millisecond, func() { pods.set(newPod("web", "127.0.0.1")) })
	defer appear.Stop()
	if got := readText(t, mustDial(t, p, address)); got != "pod" {
		t.Errorf("%q", got)
	}
}

// The server starts while the API server is away: what the route table has is served, where the pods are reached directly.
func TestDial_PodsWereNeverListed(t *testing.T) {
	address := startServer(t, "pod")
	if got := readText(t, mustDial(t, newPath(&fakePods{}, &fakeForwarder{}, inCluster, traffic.Auto), address)); got != "pod" {
		t.Errorf("%q", got)
	}
	for _, way := range []traffic.Way{traffic.PortForward, traffic.NodePort} {
		_, err := newPath(&fakePods{}, &fakeForwarder{}, traffic.Place{}, way).Dial(t.Context(), address)
		if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "not known yet") {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// A pod keeps its address in its status after its end, and the next pod may have it.
func TestDial_AddressIsUsedAgain(t *testing.T) {
	pods, forwarder := &fakePods{}, &fakeForwarder{address: startServer(t, "forwarded")}
	ended := newPod("ended", "10.244.1.5")
	ended.Status.Phase = corev1.PodSucceeded
	pods.set(newPod("new", "10.244.1.5"), ended)
	mustDial(t, newPath(pods, forwarder, traffic.Place{}, traffic.Auto), "10.244.1.5:80")
	if forwarder.pods[0] != "new" {
		t.Errorf("%q", forwarder.pods)
	}
}

func TestDial_EndsWithItsContext(t *testing.T) {
	pods := &fakePods{}
	pods.set(newPod("web", "127.0.0.1"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	forwarder := &fakeForwarder{err: errors.New("no")}
	if _, err := newPath(pods, forwarder, inCluster, traffic.Auto).Dial(ctx, startSilentServer(t)); err == nil || time.Since(began) > time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// What has arrived before the pod's end can be read; then the connection ends, although nothing closes it at the other end.
func TestCloseGone(t *testing.T) {
	pods, forwarder := &fakePods{}, &fakeForwarder{address: startServer(t, "pod")}
	pods.set(newPod("goes", "10.244.1.5"), newPod("stays", "10.244.1.6"))
	p := newPath(pods, forwarder, traffic.Place{}, traffic.Auto)
	goes, stays := mustDial(t, p, "10.244.1.5:80"), mustDial(t, p, "10.244.1.6:80")
	now := time.Now()
	if wait := p.closeConnsOfGone(now); wait != goneInterval {
		t.Errorf("wait %s", wait)
	}
	pods.set(newPod("stays", "10.244.1.6"), newPod("other", "10.244.1.5"))
	if wait := p.closeConnsOfGone(now); wait != goneGrace {
		t.Errorf("wait %s", wait)
	}
	if got := readText(t, goes); got != "pod" {
		t.Errorf("%q", got)
	}
	p.closeConnsOfGone(now.Add(goneGrace))
	if _, err := goes.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if got := readText(t, stays); got != "pod" || p.Describe().Connections != 1 {
		t.Errorf("%q, %+v", got, p.Describe())
	}
	if _, err := io.WriteString(stays, "more"); err != nil {
		t.Error(err)
	}
}

func TestIsAlive(t *testing.T) {
	lost := newPod("web", "10.244.1.5")
	lost.Status.Conditions[0].Status = corev1.ConditionFalse
	notReady := newPod("web", "10.244.1.5")
	notReady.Status.Conditions[0] = corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady"}
	notReady.Status.Conditions[1].Status = corev1.ConditionFalse
	terminating := newPod("web", "10.244.1.5")
	terminating.DeletionTimestamp = &terminating.CreationTimestamp
	ended := newPod("web", "10.244.1.5")
	ended.Status.Phase = corev1.PodFailed
	moved := newPod("web", "10.244.1.9")
	for name, c := range map[string]struct {
		pod               *corev1.Pod
		direct, forwarded bool
	}{
		"running":                           {newPod("web", "10.244.1.5"), true, true},
		"not ready":                         {notReady, true, true},
		"terminating: streams go on":        {terminating, true, true},
		"ended":                             {ended, false, false},
		"back with its node, at an address": {moved, false, true},
		"its node is lost":                  {lost, true, false},
	} {
		pods := &fakePods{}
		pods.set(newPod("web", "10.244.1.5"))
		p := newPath(pods, &fakeForwarder{}, traffic.Place{}, traffic.Auto)
		ours, theirs := net.Pipe()
		defer theirs.Close()
		facts, _ := readPod(pods.List()[0])
		for way, want := range map[traffic.Way]bool{traffic.Direct: c.direct, traffic.PortForward: c.forwarded} {
			pods.set(newPod("web", "10.244.1.5"))
			conn := p.track(ours, podDial{path: p, pod: facts, address: facts.addresses[0]}, way)
			pods.set(c.pod)
			now := time.Now()
			p.closeConnsOfGone(now)
			p.closeConnsOfGone(now.Add(goneGrace))
			if got := p.Describe().Connections == 1; got != want {
				t.Errorf("%s, %s: open %v", name, way, got)
			}
			conn.Close()
		}
	}
}
