package dstack

import (
	"strings"
	"time"
)

// ClusterGateway is what a cluster has of a gateway: a deployment of pods, and what leads requests to them.
type ClusterGateway struct {
	Exists  bool   // there is at least one of its objects
	Applied string // the digest of the launch that was applied last and whole; empty: none was, or an object is missing
	Wanted  int    // pods, as the deployment says
	Updated int    // pods of the launch that was applied last
	Ready   int    // pods that serve
	Pods    []ClusterGatewayPod
	// Problem is why pods cannot be made, in the cluster's words; empty: they can.
	Problem       string
	HasBalancer   bool      // it asks for a load balancer
	Addresses     []string  // that the load balancer has; empty: none yet
	ServiceSince  time.Time // when the balancer was asked for
	HTTPSNodePort int       // of all nodes; 0: none
	HTTPNodePort  int
	NodeAddresses []string // of some nodes, for people
	RouteProblem  string   // why the Gateway of `parent_ref` does not lead to it; empty: it does, or there is none
}

// ClusterGatewayPod is a pod of a gateway.
type ClusterGatewayPod struct {
	Name    string
	IsReady bool
	Message string // why it does not run, for the user; empty: it does
}

// clusterHostPrefix begins the ID of what stands for the host of the processes in a cluster.
const clusterHostPrefix = "cluster/"

// NewClusterHost returns what stands for the host of a gateway's processes in a cluster: each gateway has one of its own, because
// pods do not share ports. cluster is the key of its backend.
func NewClusterHost(cluster string, g GatewayID) InstanceID {
	return InstanceID(clusterHostPrefix + cluster + "/" + string(g))
}

// ClusterOf returns the key of the cluster in an ID of NewClusterHost; empty: the ID is that of a host.
func ClusterOf(host InstanceID) string {
	rest, isCluster := strings.CutPrefix(string(host), clusterHostPrefix)
	if !isCluster {
		return ""
	}
	cluster, _, _ := strings.Cut(rest, "/")
	return cluster
}
