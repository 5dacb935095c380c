package kubernetes

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/decide/traffic"
	"dstack/internal/kubeclient"
	"dstack/internal/netplace"
	"dstack/internal/podpath"
)

// newPath returns what connects to the pods of the cluster.
func (c *connection) newPath() *podpath.Path {
	s, log := c.b.Settings, c.b.Log
	identity := podpath.ClusterIdentity{IsOwn: s.InCluster, Authorities: c.authorities(), BootIDs: c.listBootIDs}
	return podpath.New(podpath.Options{
		Cluster: c.b.key, Setting: s.Network, Pods: c.pods.Pods(), Forwarder: c.client, Log: log,
		Place: func() traffic.Place { return podpath.ReadPlace(identity, log) },
		ApplyService: func(ctx context.Context, service *corev1.Service) (*corev1.Service, error) {
			return kubeclient.Apply(ctx, c.client, kubeclient.Services, service)
		},
	})
}

// authorities returns the fingerprints of the authorities that the kubeconfig has for the API server.
func (c *connection) authorities() []string {
	return netplace.FingerprintAuthorities(c.client.Authorities())
}

// Authorities returns the fingerprints of the authorities of the cluster, by which processes in its pods recognize it.
func (b *Backend) Authorities() []string {
	conn, err := b.current()
	if err != nil {
		return nil
	}
	return conn.authorities()
}

// DescribePath says how pods are reached from this process.
func (b *Backend) DescribePath() podpath.Summary {
	conn, err := b.current()
	if err != nil {
		return podpath.Summary{}
	}
	return conn.path.Describe()
}

// serviceRights are for the ways that need a Service for each replica.
var serviceRights = []kubeclient.Right{
	{Verb: "create", Resource: "services", Purpose: servicePurpose},
	{Verb: "patch", Resource: "services", Purpose: servicePurpose},
}

const servicePurpose = "publish replicas by Services, as `network` in config.yml asks for"

// rights returns what the account needs with these settings.
func (s Settings) rights() []kubeclient.Right {
	if s.Network == traffic.NodePort || s.Network == traffic.LoadBalancer {
		return slices.Concat(Rights(), serviceRights)
	}
	return Rights()
}

// describeWay describes for the start message how pods are reached.
func describeWay(way traffic.Way) string {
	switch way {
	case traffic.Direct:
		return "pods reached at their addresses"
	case traffic.NodePort:
		return "pods reached by ports of their nodes"
	case traffic.LoadBalancer:
		return "pods reached by load balancers"
	default:
		return "pods reached through its API server"
	}
}
