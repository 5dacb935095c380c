package kubernetes

import (
	"slices"

	"dstack/internal/engine/kubegateway"
	enginekube "dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
)

// Rights returns what the account of a server needs in a cluster. The role in the documentation and in the chart is written from it.
func Rights() []kubeclient.Right {
	return slices.Concat(enginekube.Rights(), pathRights, kubegateway.Rights(), nodeRights, claimRights)
}

const (
	reachPurpose  = "reach replicas from outside of the cluster"
	nodePurpose   = "choose nodes and say why one does not suit"
	takenPurpose  = "know what the pods of others hold of each node"
	devicePurpose = "offer the GPUs of drivers for dynamic resource allocation"
)

// pathRights are for the ways to pods that are not their addresses.
var pathRights = []kubeclient.Right{
	{Verb: "get", Resource: "pods", Subresource: "portforward", IsOptional: true, Purpose: reachPurpose},
	{Verb: "create", Resource: "pods", Subresource: "portforward", IsOptional: true, Purpose: reachPurpose},
}

// nodeRights are the rights outside of the namespace. Without them, the cluster's scheduler alone chooses nodes.
var nodeRights = []kubeclient.Right{
	{Verb: "list", Resource: "nodes", IsClusterWide: true, IsOptional: true, Purpose: nodePurpose},
	{Verb: "watch", Resource: "nodes", IsClusterWide: true, IsOptional: true, Purpose: nodePurpose},
	{Verb: "list", Resource: "pods", IsClusterWide: true, IsOptional: true, Purpose: takenPurpose},
	{Verb: "watch", Resource: "pods", IsClusterWide: true, IsOptional: true, Purpose: takenPurpose},
}

// deviceRights are for the GPUs that no device plugin counts.
var deviceRights = []kubeclient.Right{
	{Verb: "create", Group: "resource.k8s.io", Resource: "resourceclaims", IsOptional: true, Purpose: devicePurpose},
	{Verb: "delete", Group: "resource.k8s.io", Resource: "resourceclaims", IsOptional: true, Purpose: devicePurpose},
	{Verb: "list", Group: "resource.k8s.io", Resource: "resourceslices", IsClusterWide: true, IsOptional: true, Purpose: devicePurpose},
	{Verb: "watch", Group: "resource.k8s.io", Resource: "resourceslices", IsClusterWide: true, IsOptional: true, Purpose: devicePurpose},
	{Verb: "list", Group: "resource.k8s.io", Resource: "deviceclasses", IsClusterWide: true, IsOptional: true, Purpose: devicePurpose},
	{Verb: "watch", Group: "resource.k8s.io", Resource: "deviceclasses", IsClusterWide: true, IsOptional: true, Purpose: devicePurpose},
	{Verb: "list", Group: "resource.k8s.io", Resource: "resourceclaims", IsClusterWide: true, IsOptional: true, Purpose: devicePurpose},
	{Verb: "watch", Group: "resource.k8s.io", Resource: "resourceclaims", IsClusterWide: true, IsOptional: true, Purpose: devicePurpose},
}
