// Package kubeclient speaks to the API servers of Kubernetes clusters: it reads kubeconfig files, reads and writes
// objects of one namespace, keeps copies of objects that follow the API server, and opens streams to pods. It says in
// words of its users what an API server's refusal means.
package kubeclient

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"

	"dstack/internal/dstack"
)

// FieldManager is the name under which Apply owns fields.
const FieldManager = "dstack"

// defaultNamespace is used if neither the options nor the kubeconfig name one.
const defaultNamespace = "default"

// defaultTimeout limits a request whose context has no earlier deadline.
const defaultTimeout = 20 * time.Second

// dialTimeout limits the connection to an API server.
const dialTimeout = 5 * time.Second

// Options say how to reach a cluster. Exactly one of KubeconfigFile, KubeconfigData and InCluster is set.
type Options struct {
	Name           string // of the cluster, in messages; empty: kubernetes
	KubeconfigFile string // a file of this machine; it may name programs and files
	KubeconfigData string // the content of a file; it may name neither programs nor files
	InCluster      bool   // the service account of the pod that this process runs in
	Context        string // of the kubeconfig; empty: its current one
	Namespace      string // empty: that of the context or of the service account, or default
}

// Client speaks to the API server of one cluster, about one namespace of it and about objects outside of namespaces.
// Several goroutines may use it at once.
type Client struct {
	name      string
	namespace string
	config    *rest.Config // for streams, whose connections closeConnections leaves alone
	base      *url.URL
	dynamic   dynamic.Interface
	http      *http.Client // plain requests over the connections of dynamic
	warnings  []string
	conns     *connrotation.ConnectionTracker
	streams   *streamChoice
	health    *health
}

// silenceLibrary keeps client-go from writing to the standard error: what fails is in the errors that it returns.
var silenceLibrary = sync.OnceFunc(func() { klog.SetLogger(logr.Discard()) })

// New reads the kubeconfig and prepares a client; it sends nothing. The error is of kind Invalid, and names the place.
func New(o Options) (*Client, error) {
	silenceLibrary()
	o.Name = cmp.Or(o.Name, "kubernetes")
	loaded, err := loadConfig(o)
	if err != nil {
		return nil, err
	}
	config := loaded.config
	config.QPS = -1 // the API server itself limits what is too much, and the client waits as it says
	config.UserAgent = "dstack"
	config.WarningHandler = rest.NoWarnings{}
	c := &Client{name: o.Name, namespace: cmp.Or(o.Namespace, loaded.namespace, defaultNamespace), config: config,
		warnings: loaded.warnings, conns: connrotation.NewConnectionTracker(), health: newHealth(), streams: &streamChoice{}}
	tracked := rest.CopyConfig(config)
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	tracked.Dial = connrotation.NewDialerWithTracker(dialer.DialContext, c.conns).DialContext
	if c.http, err = rest.HTTPClientFor(tracked); err != nil {
		return nil, c.newConfigError(err)
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(tracked, c.http); err != nil {
		return nil, c.newConfigError(err)
	}
	if c.base, _, err = rest.DefaultServerUrlFor(tracked); err != nil {
		return nil, c.newConfigError(err)
	}
	return c, nil
}

func (c *Client) newConfigError(err error) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: "cannot use the kubeconfig of the cluster " + quote(c.name) + ": " + err.Error(),
		Hint: "check it with: kubectl --kubeconfig FILE get pods", Cause: err}
}

// Name returns the name of the cluster.
func (c *Client) Name() string { return c.name }

// Namespace returns the namespace of the client.
func (c *Client) Namespace() string { return c.namespace }

// Address returns the URL of the API server.
func (c *Client) Address() string { return c.base.String() }

// Warnings returns what of the kubeconfig is dangerous but allowed, one sentence each.
func (c *Client) Warnings() []string { return c.warnings }

// InNamespace returns a client for another namespace. It shares the connections of c.
func (c *Client) InNamespace(namespace string) *Client {
	other := *c
	other.namespace = namespace
	return &other
}

// closeConnections closes the connections to the API server, so that the next request opens a new one. Requests and
// watches that are in flight fail; streams to pods go on.
func (c *Client) closeConnections() { c.conns.CloseAll() }

// withTimeout limits a request to defaultTimeout.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, defaultTimeout)
}
