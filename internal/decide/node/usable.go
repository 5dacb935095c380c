package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// The effects of a taint that keep pods from a node.
const (
	noSchedule = "NoSchedule"
	noExecute  = "NoExecute"
)

// cordonTaint is on every cordoned node. It is removed a moment after the cordon itself.
const cordonTaint = "node.kubernetes.io/unschedulable"

// leavingTaints are on nodes that an autoscaler is about to remove.
var leavingTaints = []string{"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"}

// conditionTaints are those that Kubernetes derives from the conditions of a node.
var conditionTaints = map[string]string{
	"node.kubernetes.io/not-ready":                   "it is not ready",
	"node.kubernetes.io/unreachable":                 "it does not answer",
	"node.kubernetes.io/memory-pressure":             "it is short of memory",
	"node.kubernetes.io/disk-pressure":               "it is short of disk",
	"node.kubernetes.io/pid-pressure":                "it has too many processes",
	"node.kubernetes.io/network-unavailable":         "its network is not set up",
	"node.kubernetes.io/out-of-service":              "its operator took it out of service",
	"node.cloudprovider.kubernetes.io/uninitialized": "its cloud provider has not set it up",
	"node.cloudprovider.kubernetes.io/shutdown":      "its cloud provider shut it down",
}

// Toleration is a taint that pods of replicas tolerate, whatever its value.
type Toleration struct{ Key, Effect string }

// Tolerations returns what the pod of a replica tolerates: taints of spot nodes, because placement respects spot_policy, and those
// of nodes with GPUs if it has some.
func Tolerations(hasGPUs bool) []Toleration {
	tolerated := []Toleration{
		{"kubernetes.azure.com/scalesetpriority", noSchedule},
		{"cloud.google.com/gke-spot", noSchedule},
		{"cloud.google.com/gke-preemptible", noSchedule},
	}
	if hasGPUs {
		tolerated = append(tolerated, Toleration{nvidiaResource, noSchedule}, Toleration{amdResource, noSchedule}, Toleration{intelResource, noSchedule})
	}
	return tolerated
}

// IsDraining reports whether a node gets no new pods, because its operator or an autoscaler is about to remove it.
func IsDraining(n Facts) bool {
	return n.IsCordoned || n.IsBeingDeleted || slices.ContainsFunc(n.Taints, func(t Taint) bool {
		return t.Key == cordonTaint || slices.Contains(leavingTaints, t.Key)
	})
}

// ExplainUnusable returns why no replica can be placed on a node now, and what to do; empty: one can.
func ExplainUnusable(n Facts) (reason, help string) {
	if c, ok := findCondition(n, "Ready"); !ok {
		return "it has not reported whether it is ready", ""
	} else if c.Status != "True" {
		return explainNotReady(c), "look at it with: kubectl describe node " + n.Name
	}
	for _, t := range n.Taints {
		if why, ok := conditionTaints[t.Key]; ok && t.Effect != "PreferNoSchedule" {
			return why, "look at it with: kubectl describe node " + n.Name
		}
	}
	return "", ""
}

func explainNotReady(c Condition) string {
	if c.Status == "Unknown" {
		return "it does not answer its cluster"
	}
	if message := firstLine(c.Message); message != "" {
		return "it is not ready: " + message
	}
	return "it is not ready"
}

// maxMessage limits the words of a cluster, in bytes.
const maxMessage = 300

func firstLine(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// SilentSince returns since when a node has not answered its cluster, and why; zero: it answers. A node that answers that it is
// not ready has lost its pods, too: its cluster takes them out of Services.
func SilentSince(n Facts) (since time.Time, reason string) {
	c, ok := findCondition(n, "Ready")
	if !ok || c.Status == "True" {
		return time.Time{}, ""
	}
	since = c.Since
	if c.Status == "Unknown" {
		since = since.Add(-unknownAfter)
	}
	return since, explainNotReady(c)
}

// unknownAfter is how long a cluster waits at least for a node before it says that it knows nothing of it: usually 40 to 50 seconds. So
// nobody has to wait again.
const unknownAfter = 15 * time.Second

// cutOffSpread is how far apart the times may be at which a cluster says of its nodes that it knows nothing of them, if all of
// them stopped answering at once: each node reports in its own rhythm.
const cutOffSpread = time.Minute

// ListCutOff returns the names of the nodes that stopped answering together, if no node of the cluster answers. That is the
// network or the clock of the control plane rather than so many nodes, which may well serve; the cluster evicts nothing then.
// One node alone may well be lost, and so is one that has not answered for longer.
func ListCutOff(all []Facts) map[string]bool {
	var newest time.Time
	since := map[string]time.Time{}
	for _, n := range all {
		c, ok := findCondition(n, "Ready")
		if !ok || c.Status != "Unknown" {
			return nil
		}
		since[n.Name] = c.Since
		if c.Since.After(newest) {
			newest = c.Since
		}
	}
	cutOff := map[string]bool{}
	for name, at := range since {
		if newest.Sub(at) <= cutOffSpread {
			cutOff[name] = true
		}
	}
	if len(cutOff) < 2 {
		return nil
	}
	return cutOff
}

func findCondition(n Facts, kind string) (Condition, bool) {
	i := slices.IndexFunc(n.Conditions, func(c Condition) bool { return c.Type == kind })
	if i < 0 {
		return Condition{}, false
	}
	return n.Conditions[i], true
}

// explainTaint returns which taint of a node keeps a replica away; empty: none does.
func explainTaint(taints []Taint, need dstack.Requirements) string {
	tolerated := Tolerations(wantsGPUs(need))
	for _, t := range taints {
		_, isCondition := conditionTaints[t.Key]
		if isCondition || t.Key == cordonTaint || slices.Contains(leavingTaints, t.Key) || t.Effect != noSchedule && t.Effect != noExecute ||
			slices.Contains(tolerated, Toleration{t.Key, t.Effect}) {
			continue
		}
		if slices.Contains(Tolerations(true), Toleration{t.Key, t.Effect}) {
			return fmt.Sprintf("its taint %s keeps it for services with `gpu`", formatTaint(t))
		}
		return fmt.Sprintf("its taint %s keeps replicas away", formatTaint(t))
	}
	return ""
}

// formatTaint formats a taint as kubectl does: dedicated=web:NoSchedule.
func formatTaint(t Taint) string {
	if t.Value == "" {
		return t.Key + ":" + t.Effect
	}
	return t.Key + "=" + t.Value + ":" + t.Effect
}

// wantsGPUs reports whether a replica needs a GPU.
func wantsGPUs(need dstack.Requirements) bool {
	g := need.Resources.GPU
	return g != nil && (g.Count.Min == nil || *g.Count.Min > 0)
}
