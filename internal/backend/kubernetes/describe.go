package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"dstack/internal/decide/traffic"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/kubeclient"
)

// Describe describes the cluster in one line for the start message. Check has to be called before.
func (b *Backend) Describe() string {
	conn, err := b.current()
	if err != nil {
		return b.key + ": cannot be used: " + describeError(err)
	}
	where := fmt.Sprintf("%s: %s, namespace %s", b.key, conn.client.Address(), conn.client.Namespace())
	result := conn.result()
	if result.err != nil {
		return where + ": cannot be used: " + describeError(result.err)
	}
	parts := []string{where, "Kubernetes " + cmp.Or(result.version.Text, "of an unknown version")}
	switch {
	case result.hasNodes:
		parts = append(parts, human.Count(len(conn.listNodes()), "node"))
	case !result.canListNodes:
		parts = append(parts, "nodes chosen by its scheduler")
	}
	switch {
	case result.autoscaler != "":
		parts = append(parts, result.autoscaler+" adds nodes")
	case b.Settings.Autoscaler:
		parts = append(parts, "an autoscaler adds nodes")
	}
	parts = append(parts, describeWay(conn.path.Describe().Way))
	return strings.Join(parts, ", ")
}

// describeError returns an error and what to do in one line.
func describeError(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Hint != "" {
		return e.Message + " (" + e.Hint + ")"
	}
	return err.Error()
}

// Notice returns what the user should know about the configuration of the cluster; empty: nothing. Check has to be called before.
func (b *Backend) Notice() string {
	var lines []string
	if jump := b.Settings.ProxyJump; jump != "" {
		lines = append(lines, jump+" is not needed and not used: pods are reached at their addresses, or through the API server of the cluster.")
	}
	if isOpen := map[traffic.Way]string{traffic.NodePort: "the nodes", traffic.LoadBalancer: "the load balancers"}[b.Settings.Network]; isOpen != "" {
		lines = append(lines, fmt.Sprintf("With network: %s, replicas in the cluster %s answer everybody who reaches %s, without tokens: these are the gateway's. Restrict that with a firewall.",
			b.Settings.Network, b.key, isOpen))
	}
	conn, err := b.current()
	if err != nil {
		return strings.Join(lines, "\n ")
	}
	lines = append(lines, conn.client.Warnings()...)
	byPurpose := map[string][]string{}
	var purposes []string
	for _, right := range conn.result().missing {
		if len(byPurpose[right.Purpose]) == 0 {
			purposes = append(purposes, right.Purpose)
		}
		byPurpose[right.Purpose] = append(byPurpose[right.Purpose], right.String())
	}
	for _, purpose := range purposes {
		lines = append(lines, fmt.Sprintf("In the cluster %s, the server cannot %s: its account may not %s.",
			b.key, purpose, strings.Join(byPurpose[purpose], ", ")))
	}
	return strings.Join(lines, "\n ")
}

// Check checks the cluster once and reads its nodes, so that Describe and Notice know it, and the first calls need not wait.
func (b *Backend) Check(ctx context.Context) {
	conn, err := b.current()
	if err != nil {
		return
	}
	if conn.runCheck(ctx); !conn.result().canListNodes {
		return
	}
	if nodes, err := kubeclient.List(ctx, conn.client, kubeclient.Nodes, kubeclient.Selection{}); err == nil {
		conn.keepNodes(nodes)
	}
}
