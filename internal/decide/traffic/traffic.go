// Package traffic decides by which way connections reach the pods of a cluster.
package traffic

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Way is how connections reach a pod.
type Way string

// Every way. The configuration names one, or Auto.
const (
	Auto         Way = "auto"          // Direct where it is proven to reach the cluster, PortForward elsewhere
	Direct       Way = "direct"        // to the address of the pod
	PortForward  Way = "port-forward"  // through the API server of the cluster
	NodePort     Way = "node-port"     // to a port of the pod's node, by a Service of the pod
	LoadBalancer Way = "load-balancer" // to a load balancer of the cluster's cloud, by a Service of the pod
)

// Ways are what the configuration may name.
var Ways = []Way{Auto, Direct, PortForward, NodePort, LoadBalancer}

// Place is what a process knows about where it runs.
type Place struct {
	IsInCluster bool // in a pod of the cluster
	IsNode      bool // on a machine that is a node of the cluster
	Routes      []Route
}

// Route is an entry of the routing table.
type Route struct {
	To      netip.Prefix
	Gateway netip.Addr // zero: what To contains is on the link
	Metric  int
}

// Target is a pod that a connection is to reach.
type Target struct {
	Address        netip.Addr
	Node           netip.Addr // of the machine that the pod runs on; zero: not known
	DirectFailedAt time.Time  // when a connection to the address failed last while another way reached the pod; zero: never
}

// directRetry is how long the address of a pod is not tried again after it could not be reached.
const directRetry = time.Minute

// Choice is the way to a pod.
type Choice struct {
	Way Way
	// Other is the way to try while Way gives no answer; empty: there is none.
	Other  Way
	Reason string // for the user
}

// Choose decides the way to a pod. An address alone proves nothing: many clusters have pods at 10.244.0.5, and a connection from
// outside may reach the machine of somebody else there. So a pod is reached at its address only by a process in the
// cluster, on one of its nodes, or whose routing table leads to the pod's address through the pod's own node; or where the
// configuration says so.
func Choose(setting Way, place Place, target Target, now time.Time) Choice {
	if setting != Auto && setting != "" {
		return Choice{Way: setting, Reason: fmt.Sprintf("the server's config.yml has network: %s", setting)}
	}
	reason, isProven := proveDirect(place, target)
	if !isProven {
		return Choice{Way: PortForward, Reason: reason}
	}
	if !target.DirectFailedAt.IsZero() && now.Sub(target.DirectFailedAt) < directRetry {
		return Choice{Way: PortForward, Reason: "connections to the address of the pod get no answer: a NetworkPolicy or a firewall may drop them"}
	}
	return Choice{Way: Direct, Other: PortForward, Reason: reason}
}

// proveDirect reports whether the address of a pod means that pod to this process, and why.
func proveDirect(place Place, target Target) (reason string, isProven bool) {
	if place.IsInCluster {
		return "this process runs in the cluster", true
	}
	route, ok := findRoute(place.Routes, target.Address)
	isSpecific := ok && route.To.Bits() > 0
	switch {
	case isSpecific && place.IsNode:
		return "this machine is a node of the cluster", true
	case isSpecific && route.Gateway.IsValid() && route.Gateway == target.Node:
		return fmt.Sprintf("this machine has a route to %s through the node %s", route.To, target.Node), true
	}
	return "this process is outside of the cluster, and has no route to its pods", false
}

// findRoute returns the most specific route to an address.
func findRoute(routes []Route, address netip.Addr) (best Route, ok bool) {
	for _, r := range routes {
		if !r.To.Contains(address) {
			continue
		}
		if !ok || r.To.Bits() > best.To.Bits() || r.To.Bits() == best.To.Bits() && r.Metric < best.Metric {
			best, ok = r, true
		}
	}
	return best, ok
}

// IsSameCluster reports whether two bundles of authorities, by the fingerprints of their certificates, belong to one cluster:
// that of a kubeconfig, and that which every pod finds beside the token of its service account.
func IsSameCluster(kubeconfig, pod []string) bool {
	return slices.ContainsFunc(kubeconfig, func(fingerprint string) bool { return slices.Contains(pod, fingerprint) })
}
