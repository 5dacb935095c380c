package autoscale

import (
	"dstack/internal/dstack"
)

// BuildFacts derives the facts about a run from its replicas and its load.
func BuildFacts(run dstack.Run, replicas []dstack.Replica, load dstack.Load) Facts {
	conf := run.Spec.Configuration
	f := Facts{Replicas: conf.Replicas, Scaling: conf.Scaling, DesiredReplicas: run.DesiredReplicas,
		ScaledAt: run.ScaledAt, Load: load}
	for _, r := range replicas {
		if r.Status == dstack.ReplicaStarting && r.Crashes == 0 && r.ReadyAt.IsZero() {
			f.Starting++
		}
		if r.Status == dstack.ReplicaReady && r.ReadyAt.After(f.ReadyAt) {
			f.ReadyAt = r.ReadyAt
		}
	}
	return f
}
