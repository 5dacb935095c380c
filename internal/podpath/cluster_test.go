package podpath

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/loop"
)

// clusterRig is a namespace of the real cluster with the mirror of its pods.
type clusterRig struct {
	t      *testing.T
	client *kubeclient.Client
	pods   *kubeclient.Mirror[corev1.Pod]
}

func newClusterRig(t *testing.T) *clusterRig {
	t.Helper()
	cluster := kubetest.Need(t)
	client, err := kubeclient.New(kubeclient.Options{KubeconfigFile: cluster.Kubeconfig, Namespace: cluster.NewNamespace(t)})
	if err != nil {
		t.Fatal(err)
	}
	r := &clusterRig{t: t, client: client}
	r.pods = kubeclient.NewMirror(client, kubeclient.Pods, kubeclient.MirrorOptions{IsOurs: true})
	r.run(append(client.Tasks(), r.pods.Tasks()...)...)
	return r
}

// run runs tasks until the test ends.
func (r *clusterRig) run(tasks ...loop.Task) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, tasks...) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

// startPod starts a pod, and waits until it runs and its condition Ready is true.
func (r *clusterRig) startPod(name string) *corev1.Pod {
	r.t.Helper()
	grace := int64(20)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"dstack.ai/attempt": name}},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: kubetest.Base, Command: []string{"python3", "-c", podProgram},
				StartupProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 60, ProbeHandler: corev1.ProbeHandler{
					TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(8080)}}}}}},
	}
	if _, err := kubeclient.Create(r.t.Context(), r.client, kubeclient.Pods, pod); err != nil {
		r.t.Fatal(err)
	}
	var found *corev1.Pod
	r.waitFor("the pod to be ready", func() bool {
		pod, ok := r.pods.Get(name)
		if !ok {
			return false
		}
		found = pod
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return pod.Status.PodIP != ""
			}
		}
		return false
	})
	return found
}

func (r *clusterRig) waitFor(what string, isThere func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for !isThere() {
		if loop.SleepUntil(ctx, 100*time.Millisecond, r.pods.Changed()) != nil {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (r *clusterRig) newPath(setting traffic.Way, place func() traffic.Place) *Path {
	p := New(Options{Cluster: "kubernetes", Setting: setting, Pods: r.pods, Forwarder: r.client, Place: place,
		ApplyService: func(ctx context.Context, s *corev1.Service) (*corev1.Service, error) {
			return kubeclient.Apply(ctx, r.client, kubeclient.Services, s)
		}})
	r.run(p.Tasks()...)
	return p
}

// get sends a request over a new connection.
func get(t *testing.T, p *Path, address string) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.Dial(ctx, address)
	}}}
	resp, err := client.Get("http://pod/")
	if err != nil {
		t.Errorf("%s: %v", p.Describe().Way, err)
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(text))
}

// All ways lead to the same pod, and what they say about a closed port is the same (rules 47 and 51).
func TestCluster_Ways(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	pod := r.startPod("web")
	ip := pod.Status.PodIP
	identity := ClusterIdentity{}
	// This machine has a route to the pods through their node.
	auto := r.newPath(traffic.Auto, func() traffic.Place { return ReadPlace(identity, discardLog) })
	for setting, p := range map[traffic.Way]*Path{
		traffic.Auto: auto, traffic.Direct: r.newPath(traffic.Direct, nil), traffic.PortForward: r.newPath(traffic.Auto, nil),
		traffic.NodePort: r.newPath(traffic.NodePort, nil), traffic.LoadBalancer: r.newPath(traffic.LoadBalancer, nil),
	} {
		for range 2 {
			if got := get(t, p, net.JoinHostPort(ip, "8080")); got != "hello" {
				t.Errorf("%s: %q", setting, got)
			}
		}
		if setting == traffic.NodePort || setting == traffic.LoadBalancer {
			continue
		}
		conn, err := p.Dial(t.Context(), net.JoinHostPort(ip, "81"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a closed port gives %v", setting, err)
		}
	}
	if s := auto.Describe(); s.Way != traffic.Direct || !strings.Contains(s.Reason, "through the node "+pod.Status.HostIP) {
		t.Errorf("%+v", s)
	}
	services, err := kubeclient.List(t.Context(), r.client, kubeclient.Services, kubeclient.Selection{Labels: "dstack.ai/attempt=web"})
	if err != nil || len(services) != 1 {
		t.Errorf("%d Services, %v", len(services), err)
	}
}

// podProgram answers with hello, or with a line every 100 ms at /stream, also for 2 s after SIGTERM.
const podProgram = `
import http.server, os, signal, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\n")
        while self.path == "/stream":
            time.sleep(0.1)
            self.wfile.write(b"line\n")
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(2, os._exit, [0]).start())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
`

// A deletion lets streams go on while the pod drains, and new connections too. Connections end with the pod, although a forwarder does
// not notice its end (rules 9, 10, 49 and 50).
func TestCluster_DeletedPod(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	pod := r.startPod("stream")
	address := net.JoinHostPort(pod.Status.PodIP, "8080")
	type open struct {
		path         *Path
		stream, idle net.Conn
		lines        *bufio.Reader
	}
	var all []open
	for _, way := range []traffic.Way{traffic.PortForward, traffic.Direct} {
		p := r.newPath(way, nil)
		o := open{path: p, stream: mustDial(t, p, address), idle: mustDial(t, p, address)}
		o.lines = bufio.NewReader(o.stream)
		if _, err := io.WriteString(o.stream, "GET /stream HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		readLines(t, o.lines, 6)
		all = append(all, o)
	}
	if err := kubeclient.Delete(t.Context(), r.client, kubeclient.Pods, "stream", kubeclient.DeleteOptions{UID: pod.UID}); err != nil {
		t.Fatal(err)
	}
	r.waitFor("the mark of the deletion", func() bool {
		pod, ok := r.pods.Get("stream")
		return ok && pod.DeletionTimestamp != nil
	})
	for _, o := range all {
		readLines(t, o.lines, 4)
		if got := get(t, o.path, address); got != "hello" {
			t.Errorf("%s, while the pod drains: %q", o.path.Describe().Way, got)
		}
	}
	r.waitFor("the end of the pod", func() bool { _, ok := r.pods.Get("stream"); return !ok })
	for _, o := range all {
		way := o.path.Describe().Way
		o.idle.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, o.idle); isDeadline(err) {
			t.Errorf("%s: an idle connection outlives its pod: %v", way, err)
		}
		r.waitFor("connections to be closed", func() bool { return o.path.Describe().Connections == 0 })
		if _, err := o.path.Dial(t.Context(), address); dstack.KindOf(err) != dstack.Unavailable {
			t.Errorf("%s: a connection to a pod that is gone gives %v", way, err)
		}
	}
}

func isDeadline(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func readLines(t *testing.T, r *bufio.Reader, count int) {
	t.Helper()
	for range count {
		if _, err := r.ReadString('\n'); err != nil {
			t.Errorf("the stream ended: %v", err)
			return
		}
	}
}
