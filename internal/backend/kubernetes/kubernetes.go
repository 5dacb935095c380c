// Package kubernetes is the backend for one Kubernetes cluster. Each node of the cluster is a machine that replicas share, and
// the pods on it are its engine's. Where a cluster adds nodes by itself, or does not show them, there is one machine more: any node.
package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/decide/node"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// Options configure a Backend. Settings and Installation are required.
type Options struct {
	Settings     Settings
	Installation dstack.Installation
	MayStart     engine.StartCheck // asked before a pod is created; nil: always
	Code         engine.CodeOpener
	Files        engine.FileOpener
	Dialer       *dial.Dialer // gets an entry for the cluster, by its key
	Changed      func()       // called after nodes or pods have changed; nil: nothing
	Log          *slog.Logger // nil: no log
}

// Backend is the backend for one cluster.
type Backend struct {
	Options
	key string

	mu       sync.Mutex
	conn     *connection // nil: the kubeconfig cannot be used
	failure  error       // why conn is nil
	failures loop.RepeatFilter
}

var (
	_ backend.Backend   = (*Backend)(nil)
	_ backend.Unusables = (*Backend)(nil)
)

// New returns the backend of a cluster. It sends nothing; its tasks do. A kubeconfig that cannot be used is no error: it may be mended
// while the server runs. Close the backend after the tasks have ended.
func New(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dialer == nil {
		o.Dialer = &dial.Dialer{}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	b := &Backend{Options: o, key: o.Settings.Key()}
	b.connect()
	o.Dialer.AddHost(b.key, b.dialPod)
	return b
}

// Key returns the key of the backend in a backend.Set.
func (b *Backend) Key() string { return b.key }

// Close ends what is being started. Pods keep running.
func (b *Backend) Close() error {
	b.Dialer.RemoveHost(b.key)
	b.mu.Lock()
	conn := b.conn
	b.conn, b.failure = nil, &dstack.Error{Kind: dstack.Unavailable, Message: "the server stops"}
	b.mu.Unlock()
	return conn.close()
}

// current returns the connection to the cluster, or why there is none.
func (b *Backend) current() (*connection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn, b.failure
}

// Client returns the client of the cluster, or why there is none.
func (b *Backend) Client() (*kubeclient.Client, error) {
	conn, err := b.current()
	if err != nil {
		return nil, err
	}
	return conn.client, nil
}

// usable returns the connection once the cluster was checked and its nodes were read, or why it cannot be used.
func (b *Backend) usable(ctx context.Context) (*connection, error) {
	conn, err := b.current()
	if err != nil {
		return nil, err
	}
	if err := conn.waitUntilRead(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}

// Offers returns the nodes on which pods can be started, and any node where the cluster has more than it shows.
func (b *Backend) Offers(ctx context.Context, need dstack.Requirements) ([]dstack.Offer, error) {
	conn, err := b.usable(ctx)
	if err != nil {
		return nil, err
	}
	if err := conn.staleness(); err != nil {
		return nil, err
	}
	var offers []dstack.Offer
	taken := conn.takenByNode()
	for _, n := range conn.listNodes() {
		if why, _ := node.ExplainUnusable(n); why == "" {
			offers = append(offers, node.NewOffer(conn.cluster, n, taken[n.Name], need))
		}
	}
	if conn.hasAnyNode() {
		offers = append(offers, node.NewAnyNode(conn.cluster))
	}
	return offers, nil
}

// ListUnusable returns the nodes on which no pod can be started now, and why.
func (b *Backend) ListUnusable(ctx context.Context, _ dstack.ProjectID) ([]dstack.Rejection, error) {
	conn, err := b.usable(ctx)
	if err != nil {
		return nil, err
	}
	var rejections []dstack.Rejection
	taken := conn.takenByNode()
	for _, n := range conn.listNodes() {
		if why, help := node.ExplainUnusable(n); why != "" {
			rejections = append(rejections, dstack.Rejection{
				Offer:      node.NewOffer(conn.cluster, n, taken[n.Name], dstack.Requirements{}),
				Constraint: dstack.ConstraintUsable, Has: why, Reason: why, Help: help,
			})
		}
	}
	return rejections, nil
}

// Create does nothing, because nodes exist, or their cluster adds them.
func (b *Backend) Create(context.Context, backend.CreateRequest) error { return nil }

// Delete does nothing: nodes are not dstack's.
func (b *Backend) Delete(context.Context, dstack.InstanceID) error { return nil }

// Machines returns all nodes, and any node. It fails while the API server is away, and if the account may not list nodes any more on which
// replicas are: nobody knows then which nodes there are.
func (b *Backend) Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	conn, err := b.usable(ctx)
	if err != nil {
		return nil, err
	}
	if err := conn.staleness(); err != nil {
		return nil, err
	}
	if err := conn.explainHidden(); err != nil {
		return nil, err
	}
	machines := map[dstack.InstanceID]dstack.Machine{
		node.AnyNodeID(b.key): {Ref: node.AnyNode, State: dstack.MachineRunning},
	}
	for _, n := range conn.listNodes() {
		m := dstack.Machine{
			Ref: n.Name, State: dstack.MachineRunning, IsDraining: node.IsDraining(n),
			Hardware: node.NewOffer(conn.cluster, n, node.Amounts{}, dstack.Requirements{}).Hardware,
		}
		if !conn.isCutOff(n.Name) {
			m.SilentSince, m.SilentReason = node.SilentSince(n)
		}
		machines[node.InstanceID(b.key, n.UID)] = m
	}
	return machines, nil
}

// Engine returns the engine of the pods on a node. While the API server is away, the engine's calls fail.
func (b *Backend) Engine(ctx context.Context, id dstack.InstanceID) (engine.Engine, error) {
	conn, err := b.current()
	if err != nil {
		return nil, err
	}
	if id == node.AnyNodeID(b.key) {
		return conn.pods.Engine(id, ""), nil
	}
	err = conn.waitUntilRead(ctx)
	for _, n := range conn.listNodes() {
		if node.InstanceID(b.key, n.UID) == id {
			return conn.pods.Engine(id, n.Name), nil
		}
	}
	if err != nil {
		return nil, err
	}
	if name := conn.findHidden(id); name != "" {
		return conn.pods.Engine(id, name), nil
	}
	return nil, &dstack.Error{
		Kind: dstack.NotFound, Message: fmt.Sprintf("the cluster %s has no node %s any more", b.key, id),
		Hint: "look at its nodes with: kubectl get nodes",
	}
}

// Tasks returns what has to run while the server runs.
func (b *Backend) Tasks() []loop.Task {
	return []loop.Task{{Name: "cluster " + b.key, Run: b.follow}}
}

// reconnectPause is the pause before the tasks of a connection are started again.
const reconnectPause = 2 * time.Second

// follow runs the tasks of the connection, and begins anew with each kubeconfig that differs from the one before.
func (b *Backend) follow(ctx context.Context) error {
	for {
		conn, _ := b.current()
		if err := b.followOne(ctx, conn); err != nil && ctx.Err() == nil {
			b.Log.Error("a task of a cluster failed, and is started again", "cluster", b.key, "err", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !b.reconnect() && loop.Sleep(ctx, reconnectPause) != nil {
			return ctx.Err()
		}
	}
}
