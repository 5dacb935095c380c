package kubernetes

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	enginekube "dstack/internal/engine/kubernetes"
	"dstack/internal/human"
	"dstack/internal/kubeclient"
)

// explainHidden returns an error if pods of replicas are on nodes that the account may not list: it could when they were placed. Nobody
// knows then whether these nodes still exist, so that the nodes must not be taken as removed. Nil: no node is missed.
func (c *connection) explainHidden() error {
	if c.result().canListNodes {
		return nil
	}
	if c.pods.Pods().FreshAt().IsZero() {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the pods of the cluster " + c.b.key + " are being read"}
	}
	anyNode, count := kubeclient.LabelValue(string(node.AnyNodeID(c.b.key))), 0
	for _, p := range c.pods.Pods().List() {
		if c.isOurs(p.Labels) && p.Labels[enginekube.LabelInstance] != anyNode {
			count++
		}
	}
	if count == 0 {
		return nil
	}
	return &dstack.Error{
		Kind: dstack.Forbidden,
		Message: fmt.Sprintf("the account may not list and watch the nodes of the cluster %s any more, and %s of it %s placed on nodes by name", c.b.key,
			human.Count(count, "replica"), map[bool]string{true: "was", false: "were"}[count == 1]),
		Hint: "give the account these rights again, or update or stop these services",
	}
}

// findHidden returns the node of the pods of an instance that the account may not list; empty: it has none.
func (c *connection) findHidden(id dstack.InstanceID) string {
	if c.result().canListNodes {
		return ""
	}
	for _, p := range c.pods.Pods().List() {
		if c.isOurs(p.Labels) && p.Labels[enginekube.LabelInstance] == kubeclient.LabelValue(string(id)) {
			if name := wantedNode(p); name != "" {
				return name
			}
		}
	}
	return ""
}

// wantedNode returns the node of a pod, or the one that it waits for.
func wantedNode(p *corev1.Pod) string {
	a := p.Spec.Affinity
	if p.Spec.NodeName != "" || a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return p.Spec.NodeName
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == "metadata.name" && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}
