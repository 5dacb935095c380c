package autoscale

import (
	"dstack/internal/dstack"
)

// Of gathers the facts about a run from its replicas and its load.
func Of(run dstack.Run, replicas []dstack.Replica, load dstack.Load) Facts {
	conf := run.Spec.Configuration
	f := Facts{Replicas: conf.Replicas, Scaling: conf.Scaling, Wanted: run.Wanted, ScaledAt: run.ScaledAt, Load: load}
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
