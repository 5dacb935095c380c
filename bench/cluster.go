package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/kubeclient"
)

const (
	clusterImage     = "docker.io/local/bench:1"
	clusterNamespace = "default"
	podPort          = 8000
	podWait          = time.Minute
	podPoll          = 10 * time.Millisecond // of the API server, while a pod starts
	podResources     = "resources: {memory: 64MB..}"
)

// clusterBench measures replicas on a cluster of e2e/cluster/cluster.sh, which it starts. Its server reaches pods at their addresses, and
// the server named forwarded through the API server.
type clusterBench struct {
	*benchmark
	folder            string
	kubeconfig        string
	client            *kubeclient.Client
	server, forwarded *dstackServer
	counter           *requestCounter // of the API server's requests by server
	paths             []requestPath
}

// measureCluster measures the start of replicas on Kubernetes, requests to them, many of them, and what they cost at rest.
func (b *benchmark) measureCluster(rounds int) error {
	c, err := b.newClusterBench()
	if why, is := errors.AsType[notMeasured](err); is {
		fmt.Println("clusters are not measured:", why)
		return nil
	}
	if err != nil {
		return err
	}
	defer c.close()
	samples, err := c.runRounds([]benchmarkCase{{"cluster floor", c.measureKubectlRun}, {"cluster", c.measureClusterApply}}, rounds)
	if err != nil {
		return err
	}
	if err := c.startPaths(); err != nil {
		return err
	}
	traffic, err := (&chatService{paths: c.paths}).measureTraffic(rounds)
	if err != nil {
		return err
	}
	c.report(samples, traffic)
	rest, err := c.measureRest()
	if err != nil {
		return err
	}
	rest.report()
	return c.measureManyPods()
}

func (b *benchmark) newClusterBench() (*clusterBench, error) {
	if os.Getenv("DSTACK_TEST_CLUSTER") == "" || os.Getenv("KUBEBOX") == "" {
		return nil, notMeasured(strings.TrimSpace("there is no cluster: " + os.Getenv("DSTACK_TEST_WITHOUT_CLUSTER")))
	}
	c := &clusterBench{benchmark: b, folder: filepath.Join(b.dir, "cluster")}
	c.kubeconfig = filepath.Join(c.folder, "kubeconfig")
	err := c.start()
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *clusterBench) start() error {
	layer, err := c.packImage()
	if err != nil {
		return err
	}
	file := filepath.Join(c.dir, "layer.tar")
	if err := os.WriteFile(file, layer, 0o600); err != nil {
		return err
	}
	if err := c.control("up", "1", "2"); err != nil {
		return err
	}
	if err := c.control("load", clusterImage, file); err != nil {
		return err
	}
	if c.client, err = kubeclient.New(kubeclient.Options{KubeconfigFile: c.kubeconfig, Namespace: clusterNamespace}); err != nil {
		return err
	}
	if c.counter, err = startRequestCounter(c.kubeconfig, filepath.Join(c.dir, "counted-kubeconfig")); err != nil {
		return err
	}
	if c.server, err = c.startClusterServer("direct", "auto"); err != nil {
		return err
	}
	c.forwarded, err = c.startClusterServer("forwarded", "port-forward")
	return err
}

func (c *clusterBench) startClusterServer(name, network string) (*dstackServer, error) {
	return startServerWith(c.binary, filepath.Join(c.dir, "cluster-"+name), fmt.Sprintf("type: kubernetes\n    kubeconfig: {filename: %s}\n    namespace: %s\n    network: %s",
		c.counter.kubeconfig, clusterNamespace, network))
}

// control runs a command of cluster.sh.
func (c *clusterBench) control(args ...string) error {
	cmd := exec.Command("e2e/cluster/cluster.sh", args...)
	cmd.Env = append(os.Environ(), "CLUSTER_DIR="+c.folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cluster.sh %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (c *clusterBench) close() {
	for _, s := range []*dstackServer{c.server, c.forwarded} {
		if s != nil {
			s.stop()
		}
	}
	if c.counter != nil {
		c.counter.close()
	}
	if err := c.control("down"); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// measureKubectlRun is the floor: kubectl run, and requests to the pod's own address as soon as the API server has it.
func (c *clusterBench) measureKubectlRun() (float64, error) {
	c.runs++
	name := fmt.Sprintf("floor-%d", c.runs)
	began := time.Now()
	ip, err := c.runPod(name)
	if err == nil {
		err = waitUntilServed(fmt.Sprintf("http://%s/", net.JoinHostPort(ip, fmt.Sprint(podPort))), "", podWait)
	}
	took := time.Since(began)
	return toMilliseconds(took), errors.Join(err, c.removePod(name))
}

// runPod starts a pod as users do, with kubectl run, and waits for its address.
func (c *clusterBench) runPod(name string) (ip string, err error) {
	kubectl := []string{os.Getenv("KUBEBOX"), "kubectl"}
	if program, err := exec.LookPath("kubectl"); err == nil {
		kubectl = []string{program}
	}
	_, err = runCommand(kubectl[0], append(kubectl[1:], "--kubeconfig", c.kubeconfig, "-n", clusterNamespace, "run", name, "--image="+clusterImage,
		"--image-pull-policy=IfNotPresent", "--restart=Never", "--command", "--", "/workload", fmt.Sprint(podPort))...)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), podWait)
	defer cancel()
	for {
		pod, err := kubeclient.Get(ctx, c.client, kubeclient.Pods, name)
		if err != nil || pod.Status.PodIP != "" {
			return pod.Status.PodIP, err
		}
		time.Sleep(podPoll)
	}
}

func (c *clusterBench) removePod(name string) error {
	return kubeclient.Delete(context.Background(), c.client, kubeclient.Pods, name, kubeclient.DeleteOptions{Grace: time.Second})
}

// measureClusterApply measures from `dstack apply` to the first response through the gateway.
func (c *clusterBench) measureClusterApply() (float64, error) {
	c.runs++
	name := fmt.Sprintf("pod-%d", c.runs)
	dir, err := c.writeService(name, "image: "+clusterImage, "commands: [exec /workload 8000]", podResources)
	if err != nil {
		return 0, err
	}
	took, err := c.server.applyAndWait(name, dir)
	return toMilliseconds(took), errors.Join(err, c.server.removeService(name, dir))
}

// writeService writes the configuration of a service into a folder of its own.
func (c *clusterBench) writeService(name string, lines ...string) (dir string, err error) {
	dir = filepath.Join(c.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	config := fmt.Sprintf("type: service\nname: %s\nport: %d\n%s\n", name, podPort, strings.Join(lines, "\n"))
	return dir, os.WriteFile(filepath.Join(dir, "service.dstack.yml"), []byte(config), 0o600)
}

// startPaths starts what requests are sent to: a pod, and a replica of each server.
func (c *clusterBench) startPaths() error {
	ip, err := c.runPod("bench-pod")
	if err != nil {
		return err
	}
	address := net.JoinHostPort(ip, fmt.Sprint(podPort))
	if err := waitUntilServed("http://"+address+"/", "", podWait); err != nil {
		return err
	}
	for name, s := range map[string]*dstackServer{"pod-chat": c.server, "forwarded-chat": c.forwarded} {
		dir, err := c.writeService(name, "image: "+clusterImage, "commands: [exec /workload 8000]", podResources)
		if err != nil {
			return err
		}
		if _, err := s.applyAndWait(name, dir); err != nil {
			return err
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	here, err := startServer(c.binary, filepath.Join(c.dir, "cluster-here"), "process")
	if err != nil {
		return err
	}
	c.servers["cluster-here"] = here
	local := fmt.Sprintf("type: service\nname: here-chat\nport: %d\nenv: [HOST=127.0.0.1]\ncommands: [exec %s %d]\n", port, c.workload, port)
	dir := filepath.Join(c.dir, "here-chat-local")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "service.dstack.yml"), []byte(local), 0o600)); err != nil {
		return err
	}
	if _, err := here.applyAndWait("here-chat", dir); err != nil {
		return err
	}
	const path = "/v1/chat/completions"
	through := func(title, service string, s *dstackServer) requestPath {
		return requestPath{name: title, address: fmt.Sprintf("127.0.0.1:%d", s.port), path: "/proxy/services/main/" + service + path, pid: s.cmd.Process.Pid}
	}
	c.paths = []requestPath{
		{name: "pod", address: address, path: path},
		{name: "port-forward", address: address, path: path, dial: func() (net.Conn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), podWait)
			defer cancel()
			return c.client.DialPod(ctx, "bench-pod", podPort)
		}},
		through("gateway, pod", "pod-chat", c.server),
		through("gateway, forwarded", "forwarded-chat", c.forwarded),
		through("gateway, here", "here-chat", here),
	}
	return nil
}

func (c *clusterBench) report(samples map[string][]float64, traffic trafficResults) {
	fmt.Printf("%-36s %7.4g ms\n%-36s %7.4g ms\n", "cluster: kubectl run", median(samples["cluster floor"]), "cluster: dstack apply", median(samples["cluster"]))
	printRatios("cluster: dstack apply / kubectl run", samples["cluster"], samples["cluster floor"])
	fmt.Println()
	for _, t := range trafficPatterns {
		for _, w := range c.paths {
			traffic[t.title][w.name].print(t.title, w)
		}
	}
	fmt.Println()
	for _, t := range trafficPatterns {
		of := traffic[t.title]
		printRatios(t.title+": calls/s, port-forward / pod", of["port-forward"].rate, of["pod"].rate)
		printRatios(t.title+": calls/s, gateway to pod / to here", of["gateway, pod"].rate, of["gateway, here"].rate)
		printRatios(t.title+": calls/s, gateway to pod / pod", of["gateway, pod"].rate, of["pod"].rate)
		printRatios(t.title+": calls/s, gateway forwarded / to pod", of["gateway, forwarded"].rate, of["gateway, pod"].rate)
	}
	fmt.Println()
	printMaximumGoal("cluster: apply: 1.3 times kubectl run and 100 ms", median(samples["cluster"]), 1.3*median(samples["cluster floor"])+100, "ms")
	for _, t := range trafficPatterns {
		of := traffic[t.title]
		printMinimumGoal(t.title+": calls/s to a pod: 0.9 of its own address", median(divideByFloors(of["gateway, pod"].rate, of["pod"].rate)), 0.9, "times")
	}
}

// newPodTemplate returns what the pods of the Deployment are.
func newPodTemplate(labels map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "main", Image: clusterImage, Resources: corev1.ResourceRequirements{Requests: manyPodResources(), Limits: manyPodResources()}}}}}
}
