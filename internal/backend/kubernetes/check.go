package kubernetes

import (
	"context"
	"slices"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// checkResult is what is known about a cluster.
type checkResult struct {
	err          error // why the cluster cannot be used; nil: it can
	version      kubeclient.Version
	missing      []kubeclient.Right // optional rights
	canListNodes bool
	canListPods  bool // of all namespaces
	// canListDevices says that the cluster has dynamic resource allocation, and that the account may see its devices.
	canListDevices bool
	autoscaler     string // which one adds nodes; empty: none was found
	hasNodes       bool   // the nodes were read
}

var errNotChecked = &dstack.Error{Kind: dstack.Unavailable, Message: "the cluster has not answered since the server started"}

func (c *connection) result() checkResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.check
}

// firstReadWait is how long calls wait for the first check of a cluster, and for its nodes, after the server started.
const firstReadWait = 3 * time.Second

// waitUntilRead waits until the cluster can be used and its nodes were read, for a while, and returns why not.
func (c *connection) waitUntilRead(ctx context.Context) error {
	deadline := time.NewTimer(firstReadWait)
	defer deadline.Stop()
	for {
		next := c.checked.Changed()
		result := c.result()
		err := result.err
		if err == nil && result.canListNodes && !result.hasNodes {
			if err = c.nodes.Err(); err == nil {
				err = &dstack.Error{Kind: dstack.Unavailable, Message: "the nodes of the cluster " + c.b.key + " are being read"}
			}
		}
		if err == nil || err != error(errNotChecked) && result.err != nil {
			return err
		}
		select {
		case <-next:
		case <-deadline.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// The pauses between two checks of a cluster that cannot be used.
const (
	minCheckPause = 2 * time.Second
	maxCheckPause = 15 * time.Second
)

// checkUntilUsable checks the cluster again and again until it can be used.
func (c *connection) checkUntilUsable(ctx context.Context) error {
	for pause := minCheckPause; ; pause = min(2*pause, maxCheckPause) {
		if c.result().err == nil {
			return nil
		}
		if c.runCheck(ctx); c.result().err == nil {
			return nil
		}
		if err := loop.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// checkTimeout limits one check.
const checkTimeout = 10 * time.Second

// runCheck checks the cluster, and keeps and logs the result.
func (c *connection) runCheck(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	result := c.askCluster(limited)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	c.check = result
	c.mu.Unlock()
	c.checked.Notify()
	log, key := c.b.Log, "check of "+c.b.key
	switch {
	case result.err == nil && c.b.failures.Forget(key):
		log.Info("a cluster can be used again", "cluster", c.b.key, "version", result.version.Text)
	case result.err != nil:
		if skipped, ok := c.b.failures.Admit(key, result.err.Error(), time.Now()); ok {
			log.Warn("a cluster cannot be used", "cluster", c.b.key, "err", result.err, "skipped", skipped)
		}
	}
}

// askCluster asks the cluster for its version, for the rights of the account and for what it has.
func (c *connection) askCluster(ctx context.Context) checkResult {
	var r checkResult
	if r.version, r.err = c.client.CheckVersion(ctx); r.err != nil {
		return r
	}
	if r.missing, r.err = c.client.CheckRights(ctx, c.b.Settings.rights()); r.err != nil {
		return r
	}
	if r.err = c.client.CheckNamespace(ctx); r.err != nil {
		return r
	}
	r.canListNodes = !isMissing(r.missing, "nodes")
	r.canListPods = r.canListNodes && !isMissing(r.missing, "pods")
	r.canListDevices = r.canListNodes && c.hasDeviceAPI(ctx, r.missing)
	r.autoscaler = c.findAutoscaler(ctx)
	return r
}

// isMissing reports whether a right to a resource of the whole cluster is missing.
func isMissing(missing []kubeclient.Right, resource string) bool {
	return slices.ContainsFunc(missing, func(m kubeclient.Right) bool { return m.Resource == resource && m.IsClusterWide })
}

// hasDeviceAPI reports whether the devices of drivers can be listed and claimed. Kubernetes has their API since 1.34.
func (c *connection) hasDeviceAPI(ctx context.Context, missing []kubeclient.Right) bool {
	if slices.ContainsFunc(missing, func(m kubeclient.Right) bool { return m.Purpose == devicePurpose }) {
		return false
	}
	_, err := kubeclient.List(ctx, c.client, kubeclient.ResourceSlices, kubeclient.Selection{})
	return err == nil
}

// findAutoscaler returns which autoscaler adds nodes to the cluster; empty: none is seen.
func (c *connection) findAutoscaler(ctx context.Context) string {
	if pools, err := kubeclient.List(ctx, c.client, kubeclient.NodePools, kubeclient.Selection{}); err == nil && len(pools) > 0 {
		return "Karpenter"
	}
	status, err := kubeclient.Get(ctx, c.client.InNamespace("kube-system"), kubeclient.ConfigMaps, "cluster-autoscaler-status")
	if err == nil && status != nil {
		return "the cluster autoscaler"
	}
	return ""
}
