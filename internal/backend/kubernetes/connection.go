package kubernetes

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	enginekube "dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
	"dstack/internal/podpath"
)

// connection is what one kubeconfig leads to.
type connection struct {
	b          *Backend
	kubeconfig [sha256.Size]byte // of the content of the file
	client     *kubeclient.Client
	cluster    node.Cluster
	pods       *enginekube.Cluster
	path       *podpath.Path
	nodes      *kubeclient.Mirror[corev1.Node]
	scheduled  *kubeclient.Mirror[scheduledPod]
	devices    devices
	claims     *claims

	mu      sync.Mutex
	check   checkResult
	checked loop.Broadcast  // notified after each check, and when nodes were read
	facts   []node.Facts    // of the nodes, as read last
	cutOff  map[string]bool // names of the nodes that were lost at once
	taken   takenCache
}

// newConnection prepares a connection. It sends nothing.
func (b *Backend) newConnection(kubeconfig string, digest [sha256.Size]byte) (*connection, error) {
	s := b.Settings
	client, err := kubeclient.New(kubeclient.Options{
		Name: b.key, KubeconfigFile: kubeconfig, KubeconfigData: s.KubeconfigData, InCluster: s.InCluster, Context: s.Context, Namespace: s.Namespace,
	})
	if err != nil {
		return nil, err
	}
	region := s.Name
	if region == "" {
		region = "cluster"
	}
	c := &connection{
		b: b, kubeconfig: digest, client: client, check: checkResult{err: errNotChecked},
		cluster: node.Cluster{Key: b.key, Region: region, Engine: enginekube.Capabilities()},
		nodes:   kubeclient.NewMirror(client, kubeclient.Nodes, kubeclient.MirrorOptions{}),
		devices: newDevices(client),
		scheduled: kubeclient.NewMirror(client, scheduledPods, kubeclient.MirrorOptions{
			Selection: kubeclient.Selection{Fields: unfinishedOnNodes},
		}),
	}
	c.pods = enginekube.New(enginekube.Options{
		Client: client, Key: b.key, Installation: b.Installation, MayStart: b.MayStart, Code: b.Code, Files: b.Files, Dialer: b.Dialer,
		InitImage: s.InitImage, NodeWait: s.NodeWait, IsCutOff: c.isCutOff, Log: b.Log,
	})
	c.claims = c.newClaims()
	c.path = c.newPath()
	return c, nil
}

// close ends what is being started. It accepts nil.
func (c *connection) close() error {
	if c == nil {
		return nil
	}
	return c.pods.Close()
}

// connect reads the kubeconfig and prepares a connection.
func (b *Backend) connect() {
	file, content, err := b.readKubeconfig()
	var conn *connection
	if err == nil {
		conn, err = b.newConnection(file, sha256.Sum256(content))
	}
	b.mu.Lock()
	b.conn, b.failure = conn, err
	b.mu.Unlock()
}

// readKubeconfig returns the path of the configured file, and its content; nothing for other settings.
func (b *Backend) readKubeconfig() (file string, content []byte, err error) {
	file = b.Settings.KubeconfigFile
	if file == "" {
		return "", nil, nil
	}
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil, &dstack.Error{Kind: dstack.Invalid, Message: "the kubeconfig " + file + " is in a home directory, and the server has none",
				Hint: "write an absolute path into config.yml", Cause: err}
		}
		file = filepath.Join(home, rest)
	}
	content, err = os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil, &dstack.Error{Kind: dstack.Invalid, Message: "there is no kubeconfig " + file,
			Hint: "put it there, or correct `filename` in config.yml; the file is looked for every few seconds", Cause: err}
	}
	if err != nil {
		return "", nil, &dstack.Error{Kind: dstack.Invalid, Message: "cannot read the kubeconfig " + file, Cause: err,
			Hint: "make it readable for the user that the server runs as"}
	}
	return file, content, nil
}

// reconnect prepares a new connection if the kubeconfig changed, or there was none. It reports whether it did.
func (b *Backend) reconnect() bool {
	old, _ := b.current()
	if !b.isChanged(old) {
		return false
	}
	b.connect()
	if conn, err := b.current(); err != nil {
		if _, ok := b.failures.Admit(b.key, err.Error(), time.Now()); ok {
			b.Log.Warn("a cluster cannot be used", "cluster", b.key, "err", err)
		}
	} else {
		b.failures.Forget(b.key)
		b.Log.Info("the kubeconfig of a cluster was read", "cluster", b.key, "address", conn.client.Address())
	}
	if err := old.close(); err != nil {
		b.Log.Warn("a connection to a cluster was not closed", "cluster", b.key, "err", err)
	}
	return old != nil
}

// isChanged reports whether the kubeconfig differs from that of a connection. A file that is missing now, or cannot be read, does not.
func (b *Backend) isChanged(conn *connection) bool {
	if conn == nil {
		return true
	}
	_, content, err := b.readKubeconfig()
	return err == nil && sha256.Sum256(content) != conn.kubeconfig
}

// kubeconfigInterval is how often the file is read again: tools renew tokens in it.
const kubeconfigInterval = 5 * time.Second

// followOne runs the tasks of a connection until its kubeconfig changes. Without a connection, it returns at once.
func (b *Backend) followOne(ctx context.Context, conn *connection) error {
	if conn == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := loop.Repeat("kubeconfig of "+b.key, nil, func(context.Context) (time.Duration, error) {
		if b.Settings.KubeconfigFile != "" && b.isChanged(conn) {
			cancel()
		}
		return kubeconfigInterval, nil
	})
	err := loop.Run(ctx, append(conn.tasks(), watch)...)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tasks returns what has to run while the connection is used. The tasks that need more than the pods of the namespace start once the
// cluster was checked.
func (c *connection) tasks() []loop.Task {
	tasks := append(c.client.Tasks(), c.pods.Tasks()...)
	tasks = append(tasks, c.path.Tasks()...)
	return append(tasks,
		loop.Task{Name: "nodes of " + c.b.key, Run: c.followNodes},
		loop.Task{Name: "changes of pods of " + c.b.key, Run: func(ctx context.Context) error { return c.forwardChanges(ctx, c.pods.Changed) }},
	)
}

// changeDelay collects changes that come together.
const changeDelay = 20 * time.Millisecond

// forwardChanges calls Options.Changed after each change.
func (c *connection) forwardChanges(ctx context.Context, changed func() <-chan struct{}) error {
	for {
		next := changed()
		c.b.Changed()
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
		if loop.Sleep(ctx, changeDelay) != nil {
			return ctx.Err()
		}
	}
}

// followNodes checks the cluster until it can be used, and then keeps the facts about its nodes.
func (c *connection) followNodes(ctx context.Context) error {
	if err := c.checkUntilUsable(ctx); err != nil {
		return err
	}
	if !c.result().canListNodes {
		<-ctx.Done()
		return ctx.Err()
	}
	tasks := append(c.nodes.Tasks(), loop.Task{Name: "facts about nodes of " + c.b.key, Run: c.readNodes})
	if c.result().canListPods {
		tasks = append(tasks, c.scheduled.Tasks()...)
	}
	if c.result().canListDevices {
		tasks = append(tasks, c.devices.tasks()...)
	}
	return loop.Run(ctx, tasks...)
}

// readNodes reads the facts about nodes after each change.
func (c *connection) readNodes(ctx context.Context) error {
	for {
		nodes, published := c.nodes.Changed(), c.devices.published.Changed()
		classes, claims := c.devices.classes.Changed(), c.devices.claims.Changed()
		if !c.nodes.FreshAt().IsZero() && c.keepNodes(c.nodes.List()) {
			c.b.Changed()
		}
		select {
		case <-nodes:
		case <-published:
		case <-classes:
		case <-claims:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keepNodes keeps the facts about nodes. It reports whether they changed.
func (c *connection) keepNodes(objects []*corev1.Node) bool {
	facts := make([]node.Facts, 0, len(objects))
	devices := readDevices(c.devices.published.List(), c.devices.classes.List(), readTakenDevices(c.devices.claims.List(), c.isOurs))
	for _, n := range objects {
		f := readNode(n)
		f.Devices = devices[n.Name]
		facts = append(facts, f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	isFirst := !c.check.hasNodes
	c.check.hasNodes = true
	if !isFirst && reflect.DeepEqual(facts, c.facts) {
		return false
	}
	c.facts = facts
	wasCutOff := len(c.cutOff) > 0
	c.cutOff = node.ListCutOff(facts)
	switch isCutOff := len(c.cutOff) > 0; {
	case isCutOff && !wasCutOff:
		c.b.Log.Warn("no node of a cluster answers it; replicas keep their places and requests", "cluster", c.b.key)
	case !isCutOff && wasCutOff:
		c.b.Log.Info("nodes of a cluster answer it again", "cluster", c.b.key)
	}
	c.checked.Notify() // also the first time that there are none
	return true
}

// listNodes returns the nodes as read last, ordered by name. The caller does not change them.
func (c *connection) listNodes() []node.Facts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts
}

// isCutOff reports whether the cluster has lost a node together with all others.
func (c *connection) isCutOff(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cutOff[name]
}

// listBootIDs returns the boot IDs of the nodes.
func (c *connection) listBootIDs() []string {
	var ids []string
	for _, n := range c.nodes.List() {
		ids = append(ids, n.Status.NodeInfo.BootID)
	}
	return ids
}

// staleness returns why what is known about nodes may be old; nil: it is not.
func (c *connection) staleness() error {
	if !c.result().canListNodes {
		return c.pods.Pods().Err()
	}
	return c.nodes.Err()
}

// hasAnyNode reports whether the scheduler is to choose the node where no known node suits.
func (c *connection) hasAnyNode() bool {
	result := c.result()
	return c.b.Settings.Autoscaler || result.autoscaler != "" || !result.canListNodes
}

// takenCache is what the pods of others hold, by node.
type takenCache struct {
	changed <-chan struct{} // closed when it is out of date
	byNode  map[string]node.Amounts
}

// takenByNode returns what pods hold of each node that are not replicas of this installation: placement counts those itself. The caller
// does not change it.
func (c *connection) takenByNode() map[string]node.Amounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken.changed != nil {
		select {
		case <-c.taken.changed:
		default:
			return c.taken.byNode
		}
	}
	c.taken.changed = c.scheduled.Changed()
	byNode := map[string]node.Amounts{}
	for _, p := range c.scheduled.List() {
		if !c.isOurs(p.Labels) {
			sum := byNode[p.Spec.NodeName]
			sum.Add(readRequests(p))
			byNode[p.Spec.NodeName] = sum
		}
	}
	c.taken.byNode = byNode
	return byNode
}

// isOurs reports whether the labels are those of a replica of this installation.
func (c *connection) isOurs(labels map[string]string) bool {
	return labels[enginekube.LabelInstallation] == enginekube.InstallationLabel(c.b.Installation) && labels[enginekube.LabelAttempt] != ""
}

// dialPod connects to an address of a pod. It is the dial.HostDialer of the cluster.
func (b *Backend) dialPod(ctx context.Context, address string) (net.Conn, error) {
	conn, err := b.current()
	if err != nil {
		return nil, err
	}
	return conn.path.Dial(ctx, address)
}
