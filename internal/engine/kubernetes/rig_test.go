package kubernetes_test

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/loop"
)

// newClient returns a client of a namespace of its own, as its administrator.
func newClient(t testing.TB, c *kubetest.Cluster, namespace string) *kubeclient.Client {
	t.Helper()
	client, err := kubeclient.New(kubeclient.Options{KubeconfigFile: c.Kubeconfig, Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// runningCluster is a Cluster whose tasks run until it is closed.
type runningCluster struct {
	*kubernetes.Cluster
	end context.CancelFunc
	ran sync.WaitGroup
}

func startCluster(t testing.TB, o kubernetes.Options) *runningCluster {
	t.Helper()
	if o.Code == nil {
		o.Code, o.Files = enginetest.Code, enginetest.Files
	}
	if o.Key == "" {
		o.Key = "kubernetes"
	}
	ctx, end := context.WithCancel(context.Background())
	c := &runningCluster{Cluster: kubernetes.New(o), end: end}
	c.ran.Go(func() {
		if err := loop.Run(ctx, append(c.Tasks(), o.Client.Tasks()...)...); err != nil {
			t.Errorf("the tasks of the cluster ended: %v", err)
		}
	})
	return c
}

func (c *runningCluster) Close() error {
	err := c.Cluster.Close()
	c.end()
	c.ran.Wait()
	return err
}

// testEngine is the engine of one instance, with a cluster of its own.
type testEngine struct {
	*kubernetes.Engine
	cluster *runningCluster
}

func (e testEngine) Close() error { return e.cluster.Close() }

// Remove tries again while the node has not confirmed the end of a pod, or the API server has not answered in time, as the server does.
func (e testEngine) Remove(ctx context.Context, id dstack.AttemptID) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := e.Engine.Remove(ctx, id)
		if kind := dstack.KindOf(err); kind != dstack.Unavailable && kind != dstack.Timeout || time.Now().After(end) {
			return err
		}
	}
}

func openEngine(t testing.TB, o kubernetes.Options, node string) testEngine {
	t.Helper()
	c := startCluster(t, o)
	return testEngine{c.Engine("instance-of-"+dstack.InstanceID(node), node), c}
}

// newDialer returns a dialer that reaches pods at their addresses, which this machine has routes to.
func newDialer() *dial.Dialer {
	d := &dial.Dialer{}
	d.AddHost("kubernetes", directDial)
	return d
}

const node = "k1"

func newFixture(cluster *kubetest.Cluster, namespace string) enginetest.Fixture {
	o := kubernetes.Options{Installation: dstack.Installation(uuid.NewString()), Dialer: newDialer()}
	return enginetest.Fixture{
		Open: func(t *testing.T) enginetest.Engine {
			o := o
			o.Client = newClient(t, cluster, namespace)
			return openEngine(t, o, node)
		},
		Capabilities:   kubernetes.Capabilities(),
		Image:          kubetest.Busybox,
		Serve:          "exec httpd -f -p $PORT",
		ServeLocally:   "exec httpd -f -p 127.0.0.1:$PORT",
		ReadsListeners: true,
		Dialer:         newDialer(),
		IsParallel:     true,
		KeepsNoVolumes: true,
		Patience:       4,
		ListLeftovers: func(t *testing.T, id dstack.AttemptID) []string {
			return listObjects(t, cluster, namespace, id)
		},
	}
}

// listObjects names the pods and secrets of an attempt. What is being deleted in the background has a few seconds.
func listObjects(t testing.TB, c *kubetest.Cluster, namespace string, id dstack.AttemptID) []string {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if names := readObjects(t, c, namespace, id); len(names) == 0 || time.Now().After(end) {
			return names
		}
	}
}

// readObjects names the pods and secrets that an attempt has now.
func readObjects(t testing.TB, c *kubetest.Cluster, namespace string, id dstack.AttemptID) (names []string) {
	t.Helper()
	for _, kind := range []string{"pods", "secrets"} {
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		_, text, err := c.Call(context.Background(), http.MethodGet, "/api/v1/namespaces/"+namespace+"/"+kind+"?labelSelector="+
			kubernetes.LabelAttempt+"="+kubeclient.LabelValue(string(id)), nil)
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			names = append(names, strings.TrimSuffix(kind, "s")+" "+item.Metadata.Name)
		}
	}
	return names
}

// TestMain runs more tests beside each other than there are processors: they wait for pods.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestEngine(t *testing.T) {
	cluster := kubetest.Need(t)
	namespace := cluster.NewNamespace(t)
	enginetest.Run(t, func(*testing.T) enginetest.Fixture { return newFixture(cluster, namespace) })
}
