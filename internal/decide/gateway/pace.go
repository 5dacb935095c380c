package gateway

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

const (
	quietDelay  = 2 * time.Second // the next look at a gateway whose processes all serve
	activeDelay = time.Second     // and at any other
	// clusterDelay is the next look at a gateway of a cluster that serves: each look asks the API server.
	clusterDelay = 15 * time.Second
)

// CountPlacements returns how many processes on hosts a gateway is to have.
func CountPlacements(g dstack.Gateway) int {
	switch {
	case g.IsDeleting || g.Configuration.Backend != spec.BackendSSH:
		return 0
	case g.Configuration.Replicas != nil:
		return *g.Configuration.Replicas
	}
	return 1
}

// NextLook returns when a gateway is looked at again: soon while something is to happen. before are the placements that
// the plan was made for.
func (p PlacementPlan) NextLook(before []dstack.GatewayPlacement, now time.Time) time.Time {
	if len(p.New) > 0 {
		return now
	}
	for i, s := range p.Steps {
		switch {
		case s.Program.Digest != before[i].Program.Digest, s.Phase == dstack.GatewayLeaving && before[i].Phase != s.Phase:
			return now // what follows from the intent
		case s.Phase != dstack.GatewayServing, s.Action != NoPlacementAction, s.Reason != "":
			return now.Add(activeDelay)
		}
	}
	isInClusters := len(p.Steps) > 0
	for _, s := range p.Steps {
		isInClusters = isInClusters && dstack.ClusterOf(s.Host) != ""
	}
	if isInClusters {
		return now.Add(clusterDelay)
	}
	return now.Add(quietDelay)
}
