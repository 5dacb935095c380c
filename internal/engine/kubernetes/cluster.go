// Package kubernetes runs attempts as pods of a Kubernetes cluster. A Cluster follows all pods of an installation in one
// namespace; the Engine of an instance is a view of those on one node, or of those whose node the scheduler chooses.
// Labels and annotations of each pod hold what the engine has to know about it, so that a restarted server finds it again.
package kubernetes

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// Options configure a Cluster. Client, Key and Installation are required.
type Options struct {
	Client       *kubeclient.Client
	Key          string // of the backend: the host of the endpoints of pods
	Installation dstack.Installation
	MayStart     engine.StartCheck // nil: always
	Code         engine.CodeOpener // nil: attempts have no code
	Files        engine.FileOpener // nil: attempts have no files
	Dialer       *dial.Dialer      // opens the connections of port checks; nil: only the kubelet checks ports
	InitImage    string            // has sh and tar, for the code of images that have none; empty: the attempt's own image
	NodeWait     time.Duration     // how long a pod may wait for any node; 0: defaultNodeWait
	// IsCutOff reports whether the cluster has lost a node together with all others: what it says then of the readiness of
	// the node's pods is not an observation. It must not block. Nil: never.
	IsCutOff func(node string) bool
	Log      *slog.Logger // nil: no log
}

// defaultNodeWait is how long a pod may wait for a node that a cluster adds.
const defaultNodeWait = 15 * time.Minute

// Cluster follows the pods of an installation in one namespace of a cluster. Its tasks have to run.
type Cluster struct {
	opts   Options
	client *kubeclient.Client
	pods   *kubeclient.Mirror[corev1.Pod]
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // startups, and readers of output

	mu       sync.Mutex
	startups map[dstack.AttemptID]*startup
	ended    map[dstack.AttemptID]endedAttempt // attempts that ended and have no pod
	tracked  map[types.UID]*trackedPod
	removed  map[types.UID]bool       // pods that Remove has asked to delete
	warnings map[types.UID]podWarning // the newest events of pods that do not start
	commands map[dstack.AttemptID][]*context.CancelCauseFunc
	current  *podIndex // the latest; it may be older than the pods

	budgetMu      sync.Mutex // guards what follows, and is held while the budget is made
	budgetAt      time.Time  // when it was looked at
	budgetProblem string     // the last that was logged; empty: there is a budget

	leftOver chan struct{} // receives a value when secrets may be left over

	sweeping sync.Mutex
	podless  map[types.UID]time.Time // secrets without a pod, and since when; guarded by sweeping
}

// New returns a Cluster. It sends nothing; the tasks do.
func New(o Options) *Cluster {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.IsCutOff == nil {
		o.IsCutOff = func(string) bool { return false }
	}
	o.NodeWait = cmp.Or(o.NodeWait, defaultNodeWait)
	c := &Cluster{
		opts: o, client: o.Client, startups: map[dstack.AttemptID]*startup{}, ended: map[dstack.AttemptID]endedAttempt{},
		tracked: map[types.UID]*trackedPod{}, removed: map[types.UID]bool{}, warnings: map[types.UID]podWarning{},
		commands: map[dstack.AttemptID][]*context.CancelCauseFunc{}, leftOver: make(chan struct{}, 1),
	}
	c.pods = kubeclient.NewMirror(o.Client, kubeclient.Pods, kubeclient.MirrorOptions{
		Selection: kubeclient.Selection{Labels: LabelInstallation + "=" + InstallationLabel(o.Installation)}, IsOurs: true,
	})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Tasks returns the tasks that follow the cluster. They have to run as long as its engines are used, and those of the client beside them.
func (c *Cluster) Tasks() []loop.Task {
	return append(c.pods.Tasks(),
		loop.Task{Name: "pods of " + c.opts.Key, Run: c.followPods},
		loop.Task{Name: "events of pods of " + c.opts.Key, Run: c.followEvents},
		loop.Task{Name: "leftovers in " + c.opts.Key, Run: c.sweepLeftovers})
}

// Pods returns the copy of the installation's pods. Callers do not change what it returns.
func (c *Cluster) Pods() *kubeclient.Mirror[corev1.Pod] { return c.pods }

// Changed returns a channel that is closed when pods have changed.
func (c *Cluster) Changed() <-chan struct{} { return c.pods.Changed() }

// Engine returns the engine of an instance: of the node with a name, or of any node if the name is empty. Several engines of
// one instance are the same.
func (c *Cluster) Engine(instance dstack.InstanceID, node string) *Engine {
	return &Engine{Cluster: c, instance: instance, node: node}
}

// Close ends startups and commands, and waits for them. Pods keep running.
func (c *Cluster) Close() error {
	c.cancel()
	c.work.Wait()
	return nil
}

// Capabilities returns what engines of pods can do.
func Capabilities() dstack.EngineCapabilities {
	return dstack.EngineCapabilities{Name: "kubernetes", Containers: true, Mounts: true}
}

// Engine runs the attempts of one instance.
type Engine struct {
	*Cluster
	instance dstack.InstanceID
	node     string // empty: any
}

var (
	_ engine.Engine   = (*Engine)(nil)
	_ engine.Executor = (*Engine)(nil)
)

// Rights returns what an account needs in the namespace for the pods of this package.
func Rights() []kubeclient.Right {
	start, reach := "start and stop replicas", "run commands in replicas and send them code"
	return []kubeclient.Right{
		{Verb: "create", Resource: "pods", Purpose: start}, {Verb: "get", Resource: "pods", Purpose: start},
		{Verb: "list", Resource: "pods", Purpose: start}, {Verb: "watch", Resource: "pods", Purpose: start},
		{Verb: "patch", Resource: "pods", Purpose: start}, {Verb: "delete", Resource: "pods", Purpose: start},
		{Verb: "create", Resource: "secrets", Purpose: start}, {Verb: "get", Resource: "secrets", Purpose: start},
		{Verb: "list", Resource: "secrets", Purpose: start}, {Verb: "delete", Resource: "secrets", Purpose: start},
		{Verb: "get", Resource: "pods", Subresource: "log", Purpose: "read the output of replicas"},
		{Verb: "get", Resource: "pods", Subresource: "exec", Purpose: reach},
		{Verb: "create", Resource: "pods", Subresource: "exec", Purpose: reach},
		{Verb: "list", Resource: "events", Purpose: "say why a replica does not start", IsOptional: true},
		{Verb: "create", Group: "resource.k8s.io", Resource: "resourceclaims", Purpose: "give replicas GPUs of device classes", IsOptional: true},
		{Verb: "get", Group: "resource.k8s.io", Resource: "resourceclaims", Purpose: "give replicas GPUs of device classes", IsOptional: true},
		{Verb: "list", Group: "policy", Resource: "poddisruptionbudgets", Purpose: drainPurpose, IsOptional: true},
		{Verb: "create", Group: "policy", Resource: "poddisruptionbudgets", Purpose: drainPurpose, IsOptional: true},
		{Verb: "patch", Group: "policy", Resource: "poddisruptionbudgets", Purpose: drainPurpose, IsOptional: true},
	}
}

const drainPurpose = "replace replicas before a drained node ends them"
