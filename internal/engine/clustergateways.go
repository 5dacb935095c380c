package engine

import (
	"context"

	"dstack/internal/dstack"
)

// ClusterGateways is implemented by backends of clusters that run the processes of gateways; ask with a type assertion on the
// Backend. All calls may be repeated, and by several servers at once.
type ClusterGateways interface {
	// ApplyGateway makes the objects of a gateway those of a launch, and returns at once; FindGateway tells the progress. Pods of
	// an earlier launch serve until new ones do, and then finish their requests.
	ApplyGateway(ctx context.Context, launch ClusterGatewayLaunch) error

	// FindGateway returns what there is of a gateway. Absence is the zero value, and no error.
	FindGateway(ctx context.Context, id dstack.GatewayID) (dstack.ClusterGateway, error)

	// DeleteGateway begins to delete all objects of a gateway; its pods finish their requests first. FindGateway tells when they
	// are gone. It is no error if there is nothing.
	DeleteGateway(ctx context.Context, id dstack.GatewayID) error

	// GatewayImage returns the image of dstack that the cluster is configured with; empty: none.
	GatewayImage() string
}

// ClusterGatewayLaunch is how the processes of a gateway run in a cluster.
type ClusterGatewayLaunch struct {
	ID       dstack.GatewayID
	Gateway  string // its name, for people
	Project  string
	Domain   string // for the route of a Gateway; empty: all names
	Replicas int
	Image    string // of dstack
	// PullSecret is a secret of the namespace with which the image is pulled; empty: none is needed.
	PullSecret string
	Env        map[string]string
	HasTLS     bool // it has certificates
	IsPublic   bool // it is to be reached from outside of the cluster
	// UsesNodePorts says that there will be no load balancer: every node leads to the pods.
	UsesNodePorts bool
	ParentRef     string // NAMESPACE/NAME of a Gateway of the Gateway API; empty: none
	Digest        string // of all the above; it becomes ClusterGateway.Applied
	// Token returns a new token with which any number of processes join. It is called if the cluster has none.
	Token func(ctx context.Context) (string, error)
}
