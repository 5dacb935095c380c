package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

const (
	// healthLabel is in the selector of the server's questions whether the API server lives.
	healthLabel = "dstack.ai/health"

	restReplicas = 20
	restSettle   = 10 * time.Second
	restWatch    = time.Minute

	manyPods      = 1000
	manyNodes     = 100
	manyPodsLimit = 10 * time.Minute
)

// requestCounter passes requests on to an API server, and counts those that are no questions for its health.
type requestCounter struct {
	kubeconfig string // that leads through the counter
	server     *httptest.Server
	count      atomic.Int64
}

func startRequestCounter(kubeconfig, counted string) (*requestCounter, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.NextProtos = []string{"http/1.1"} // HTTP/2 upgrades nothing
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	c := &requestCounter{kubeconfig: counted}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, proxy.FlushInterval, proxy.ErrorLog = transport, -1, log.New(io.Discard, "", 0) // the servers' own errors tell what fails
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Query().Get("labelSelector"), healthLabel) {
			c.count.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: bench\nclusters: [{name: bench, cluster: {server: %q}}]\n"+
		"contexts: [{name: bench, context: {cluster: bench, user: bench}}]\nusers: [{name: bench, user: {}}]\n", c.server.URL)
	return c, os.WriteFile(counted, []byte(text), 0o600)
}

func (c *requestCounter) close() {
	c.server.CloseClientConnections()
	c.server.Close()
}

// restCost is what replicas cost the API server while nothing happens.
type restCost struct {
	replicas int
	perHour  float64 // requests per replica
}

// measureRest counts the requests of a server with ready replicas.
func (c *clusterBench) measureRest() (restCost, error) {
	c.forwarded.stop()
	dir, err := c.writeService("rest", "image: "+clusterImage, "commands: [exec /workload 8000]", fmt.Sprintf("replicas: %d", restReplicas),
		"resources: {memory: 16MB..}")
	if err != nil {
		return restCost{}, err
	}
	if err := c.server.runCLI(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "5m"); err != nil {
		return restCost{}, err
	}
	time.Sleep(restSettle)
	before := c.counter.count.Load()
	time.Sleep(restWatch)
	count := c.counter.count.Load() - before
	return restCost{restReplicas, float64(count) * float64(time.Hour/restWatch) / restReplicas}, c.server.removeService("rest", dir)
}

func (r restCost) report() {
	fmt.Println()
	printMaximumGoal(fmt.Sprintf("cluster: requests a replica a minute at rest, %d replicas", r.replicas), r.perHour/60, 0.1, "requests")
}

func manyPodResources() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
}

// measureManyPods measures 1000 pods on nodes that kwok plays: a service from apply until all its pods run, and a Deployment.
func (c *clusterBench) measureManyPods() error {
	if os.Getenv("KWOK") == "" {
		fmt.Println("1000 pods are not measured: KWOK is not set; scripts/test.sh bench sets it")
		return nil
	}
	if err := c.control("fake-nodes", "1", fmt.Sprint(manyNodes)); err != nil {
		return err
	}
	for _, node := range []string{"k1", "k2"} { // real nodes would start real containers
		if _, err := kubeclient.Patch(context.Background(), c.client, kubeclient.Nodes, node, map[string]any{"spec": map[string]any{"unschedulable": true}}); err != nil {
			return err
		}
	}
	deployment, err := c.measureDeployment()
	if err != nil {
		return err
	}
	service, err := c.measureManyReplicas()
	if err != nil {
		return err
	}
	fmt.Printf("\n%-36s %7.1f s\n%-36s %7.1f s\n", "1000 pods: a Deployment", deployment.Seconds(), "1000 pods: a service", service.Seconds())
	printMaximumGoal("1000 pods: not slower than a Deployment", service.Seconds()/deployment.Seconds(), 1, "times")
	return nil
}

// measureDeployment returns how long the pods of a Deployment take until all run.
func (c *clusterBench) measureDeployment() (time.Duration, error) {
	labels, replicas := map[string]string{"app": "many"}, int32(manyPods)
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: newPodTemplate(labels)}}
	took, err := c.measureUntilRunning("app=many", func() error {
		_, err := kubeclient.Create(context.Background(), c.client, kubeclient.Deployments, deployment)
		return err
	})
	err = errors.Join(err, kubeclient.Delete(context.Background(), c.client, kubeclient.Deployments, "many", kubeclient.DeleteOptions{}))
	return took, errors.Join(err, c.waitForPods("app=many", func(pods []*corev1.Pod) bool { return len(pods) == 0 }))
}

// measureManyReplicas returns how long the replicas of a service take from apply until all run.
func (c *clusterBench) measureManyReplicas() (time.Duration, error) {
	dir, err := c.writeService("many", "image: "+clusterImage, fmt.Sprintf("replicas: %d", manyPods), "resources: {cpu: 1.., memory: 1GB..}")
	if err != nil {
		return 0, err
	}
	took, err := c.measureUntilRunning("dstack.ai/run=many", func() error {
		return c.server.runCLI(dir, "apply", "-f", "service.dstack.yml", "-y", "-d")
	})
	return took, errors.Join(err, c.server.removeService("many", dir))
}

func (c *clusterBench) measureUntilRunning(selector string, create func() error) (time.Duration, error) {
	began := time.Now()
	if err := create(); err != nil {
		return 0, err
	}
	err := c.waitForPods(selector, func(pods []*corev1.Pod) bool {
		running := 0
		for _, p := range pods {
			if p.Status.Phase == corev1.PodRunning {
				running++
			}
		}
		return running >= manyPods
	})
	return time.Since(began), err
}

// waitForPods follows the pods of a selector until they are as wanted.
func (c *clusterBench) waitForPods(selector string, isWanted func([]*corev1.Pod) bool) error {
	pods := kubeclient.NewMirror(c.client, kubeclient.Pods, kubeclient.MirrorOptions{Selection: kubeclient.Selection{Labels: selector}})
	ctx, cancel := context.WithTimeout(context.Background(), manyPodsLimit)
	followed := make(chan error, 1)
	go func() { followed <- loop.Run(ctx, pods.Tasks()...) }()
	defer func() {
		cancel()
		<-followed
	}()
	for {
		changed := pods.Changed()
		if !pods.FreshAt().IsZero() && isWanted(pods.List()) {
			return nil
		}
		if loop.SleepUntil(ctx, time.Second, changed) != nil {
			return fmt.Errorf("the pods %s are not as they should be after %s", selector, manyPodsLimit)
		}
	}
}
