package route

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
)

// Facts is what the targets of a route depend on.
type Facts struct {
	Status dstack.RunStatus
	Reason dstack.Reason // why the run has this status
	// IsStopping, IsSleeping and IsDisabled are states that package decide/status
	// decides. At most one is true.
	IsStopping, IsSleeping, IsDisabled bool
	Replicas                           []ReplicaFacts // unfinished ones, by number
}

// ReplicaFacts is what a route depends on of one replica.
type ReplicaFacts struct {
	ID     dstack.ReplicaID
	Num    int
	Status dstack.ReplicaStatus
	Reason dstack.Reason
	Report *dstack.Report // of the present attempt; nil: none yet
	IsAway bool           // its machine does not answer, or is being deleted: see dstack.InstanceAway
}

// Reasons for clients why a run without replicas has none.
const (
	sleepingReason dstack.Reason = "asleep: it had no recent requests; the next request starts a replica"
	disabledReason dstack.Reason = "it has no replicas: its configuration says replicas: 0"
)

// WithTargets returns the route with its targets, or with the reason why there
// are none. Unhealthy replicas are targets only where no replica is ready.
func (r Route) WithTargets(f Facts) Route {
	r.IsStopping, r.State = f.IsStopping, ""
	r.IsSleeping, r.NeverServes, r.PanicMode = false, false, false
	if r.Ready = findTargets(f.Replicas, dstack.ReplicaReady); len(r.Ready) > 0 {
		return r
	}
	r.Ready = findTargets(f.Replicas, dstack.ReplicaUnhealthy)
	if r.PanicMode = len(r.Ready) > 0; r.PanicMode {
		return r
	}
	r.IsSleeping, r.NeverServes = f.IsSleeping, f.IsDisabled
	switch {
	case f.IsSleeping:
		r.State = sleepingReason
	case f.IsDisabled:
		r.State = disabledReason
	default:
		r.State = describeReplicas(f)
	}
	return r
}

// findTargets returns the replicas of a status that have an endpoint.
func findTargets(replicas []ReplicaFacts, status dstack.ReplicaStatus) (targets []Target) {
	for _, r := range replicas {
		if r.Status != status {
			continue
		}
		if endpoint := r.endpoint(); endpoint.Address != "" {
			targets = append(targets, Target{Replica: r.ID, Num: r.Num, Endpoint: endpoint})
		}
	}
	return targets
}

// endpoint returns where a replica accepts connections; empty: it does not run,
// its port is closed, or its machine does not answer. The status of the replica includes its probes.
func (r ReplicaFacts) endpoint() dstack.Endpoint {
	if r.Report == nil || r.IsAway || !r.Report.Ready || r.Report.State != dstack.AttemptRunning {
		return dstack.Endpoint{}
	}
	return r.Report.Endpoint
}

// describeReplicas returns why a run has no target; never empty.
func describeReplicas(f Facts) dstack.Reason {
	if f.Status == dstack.RunTerminating || len(f.Replicas) == 0 {
		return dstack.Reason(joinReason(string(f.Status), f.Reason))
	}
	texts := make([]string, len(f.Replicas))
	for i, r := range f.Replicas {
		texts[i] = joinReason(string(r.Status), r.Reason)
	}
	return dstack.Reason(joinTexts(slices.Compact(texts)))
}

func joinReason(status string, reason dstack.Reason) string {
	if reason == "" {
		return status
	}
	return status + ": " + string(reason)
}

// joinTexts lists at most ten texts, and counts the rest.
func joinTexts(texts []string) string {
	const maxTexts = 10
	if len(texts) > maxTexts {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:maxTexts], ", "), len(texts)-maxTexts)
	}
	return strings.Join(texts, ", ")
}
