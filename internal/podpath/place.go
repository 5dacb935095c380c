package podpath

import (
	"log/slog"
	"slices"

	"dstack/internal/decide/traffic"
	"dstack/internal/netplace"
)

// ClusterIdentity is how a process recognizes that it is inside of a cluster.
type ClusterIdentity struct {
	// IsOwn says that the service account of this process' own pod reaches the cluster.
	IsOwn bool
	// Authorities are the fingerprints of the authorities that the kubeconfig has for the API server.
	Authorities []string
	// BootIDs returns the boot IDs of the nodes, of status.nodeInfo; nil: they are not known.
	BootIDs func() []string
}

// ReadPlace returns where this process is, as seen from a cluster.
func ReadPlace(c ClusterIdentity, log *slog.Logger) traffic.Place {
	place := traffic.Place{IsInCluster: c.IsOwn || traffic.IsSameCluster(c.Authorities, netplace.PodAuthorities())}
	if id := netplace.BootID(); c.BootIDs != nil && id != "" {
		place.IsNode = slices.Contains(c.BootIDs(), id)
	}
	var err error
	if place.Routes, err = netplace.Routes(); err != nil {
		log.Warn("cannot read the routing table; pods outside of the own cluster are reached through its API server", "err", err)
	}
	return place
}
