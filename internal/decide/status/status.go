// Package status names the state of a run, from the run and its replicas. The
// API's views, the wire format of dstack 0.18.10 and the route table each
// translate the result with a table of their own.
package status

import (
	"slices"

	"dstack/internal/dstack"
)

// State is the state of a run as a whole.
type State string

// Every state of a run.
const (
	Submitted State = "submitted" // the run pass has not seen it yet
	Waiting   State = "waiting"   // its replicas wait for a machine
	Starting  State = "starting"  // no replica is ready yet
	Ready     State = "ready"     // as many replicas as desired are ready
	Updating  State = "updating"  // serves, while a new template revision replaces an older one
	Degraded  State = "degraded"  // serves with fewer replicas than desired
	Failing   State = "failing"   // served before or has failed replicas, and no replica is ready
	Sleeping  State = "sleeping"  // scaled to zero; a request starts a replica
	Disabled  State = "disabled"  // its configuration allows no replica
	Stopping  State = "stopping"  // its replicas are ending, or will be at the next pass
	Stopped   State = "stopped"   // ended because its user or max_duration ended it
	Failed    State = "failed"    // ended because it could not go on
	Unknown   State = "unknown"   // the stored status is none that this version knows
)

// Facts is what the state of a run depends on.
type Facts struct {
	Status           dstack.RunStatus
	Stop             dstack.StopRequest
	TemplateRevision int
	DesiredReplicas  int
	HasServed        bool // its template revision was ready once
	Scales           bool // its configuration gives a range of replicas
	CanSleep         bool // the range begins at zero
	Replicas         []Replica
	DesiredByGroup   map[string]int // the parts of DesiredReplicas; nil: the service has no groups
}

// Replica is what the state of a run depends on of one replica. Finished
// replicas count only where they failed.
type Replica struct {
	Status           dstack.ReplicaStatus
	TemplateRevision int
	Group            string
	HasRun           bool // it was ready, or crashed, before
}

// NewFacts collects the facts of a run and all of its replicas.
func NewFacts(run dstack.Run, replicas []dstack.Replica) Facts {
	bounds := run.Spec.Configuration.Replicas
	f := Facts{
		Status: run.Status, Stop: run.Stop, TemplateRevision: run.TemplateRevision, DesiredReplicas: run.DesiredReplicas,
		HasServed: !run.ReadyAt.IsZero(), Scales: bounds.Min != bounds.Max, CanSleep: bounds.Min == 0,
		Replicas: make([]Replica, len(replicas)),
	}
	for name, count := range run.Groups {
		if f.DesiredByGroup == nil {
			f.DesiredByGroup = map[string]int{}
		}
		f.DesiredByGroup[name] = count.Desired
	}
	for i, r := range replicas {
		f.Replicas[i] = Replica{Status: r.Status, TemplateRevision: r.TemplateRevision, Group: r.Group,
			HasRun: r.Crashes > 0 || !r.ReadyAt.IsZero()}
	}
	return f
}

// Summary is the state of a run, and what its replicas do.
type Summary struct {
	State State
	// Ready counts the ready replicas of the run's template revision, Serving
	// those of any.
	Ready, Serving int
	// Furthest is the most advanced status among the replicas that start, run
	// or wait: ready, unhealthy, starting, waiting, or empty where there is none.
	Furthest dstack.ReplicaStatus
}

// Summarize decides the state of a run.
func Summarize(f Facts) Summary {
	c := countReplicas(f)
	return Summary{State: decideState(f, c), Ready: c.ready, Serving: c.serving, Furthest: findFurthest(f.Replicas)}
}

func decideState(f Facts, c replicaCounts) State {
	switch f.Status {
	case dstack.RunSubmitted:
		if f.Stop != dstack.StopNone {
			return Stopping
		}
		return Submitted
	case dstack.RunActive:
		if f.Stop != dstack.StopNone {
			return Stopping
		}
		return decideActive(f, c)
	case dstack.RunTerminating:
		return Stopping
	case dstack.RunTerminated:
		return Stopped
	case dstack.RunFailed:
		return Failed
	default:
		return Unknown
	}
}

func decideActive(f Facts, c replicaCounts) State {
	switch {
	case f.DesiredReplicas == 0 && c.staying == 0 && f.Scales:
		return Sleeping
	case f.DesiredReplicas == 0 && c.staying == 0:
		return Disabled
	case c.outdated > 0 && c.serving > 0:
		return Updating
	case c.hasDesired(f) && c.ready > 0:
		return Ready
	case c.serving > 0:
		return Degraded
	case f.HasServed && !isWaking(f), c.failed > 0 && c.staying == 0:
		return Failing
	case c.staying == c.waiting && (c.staying > 0 || len(f.Replicas) == 0):
		return Waiting
	default:
		return Starting
	}
}

// isWaking reports whether a run that served has no ready replica only because
// it slept: the replicas that it has start for the first time.
func isWaking(f Facts) bool {
	return f.CanSleep && !slices.ContainsFunc(f.Replicas, func(r Replica) bool {
		return !r.Status.IsFinished() && r.HasRun
	})
}

// hasDesired reports whether every group has as many ready replicas as desired.
func (c replicaCounts) hasDesired(f Facts) bool {
	for name, desired := range f.DesiredByGroup {
		if c.readyByGroup[name] < desired {
			return false
		}
	}
	return c.ready >= f.DesiredReplicas
}

// replicaCounts sorts the replicas of a run.
type replicaCounts struct {
	staying  int // neither finished nor ending
	waiting  int // staying, without a machine
	serving  int // staying and ready
	ready    int // serving, of the run's template revision
	outdated int // staying, of another template revision
	failed   int // of the run's template revision

	readyByGroup map[string]int
}

func countReplicas(f Facts) (c replicaCounts) {
	c.readyByGroup = map[string]int{}
	for _, r := range f.Replicas {
		current := r.TemplateRevision == f.TemplateRevision
		if current && r.Status == dstack.ReplicaFailed {
			c.failed++
		}
		if r.Status.IsFinished() || r.Status == dstack.ReplicaDraining || r.Status == dstack.ReplicaTerminating {
			continue
		}
		c.staying++
		if !current {
			c.outdated++
		}
		switch r.Status {
		case dstack.ReplicaWaiting:
			c.waiting++
		case dstack.ReplicaReady:
			c.serving++
			if current {
				c.ready++
				c.readyByGroup[r.Group]++
			}
		case dstack.ReplicaStarting, dstack.ReplicaUnhealthy, dstack.ReplicaRestarting, dstack.ReplicaDraining,
			dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed:
		}
	}
	return c
}

// furthestFirst orders the statuses of Summary.Furthest, most advanced first.
var furthestFirst = []dstack.ReplicaStatus{
	dstack.ReplicaReady, dstack.ReplicaUnhealthy, dstack.ReplicaStarting, dstack.ReplicaWaiting,
}

func findFurthest(replicas []Replica) dstack.ReplicaStatus {
	for _, status := range furthestFirst {
		if slices.ContainsFunc(replicas, func(r Replica) bool { return r.Status == status }) {
			return status
		}
	}
	return ""
}
