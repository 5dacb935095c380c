package lifecycle

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// ReviseFacts contains everything that Revise may use.
type ReviseFacts struct {
	Run dstack.Run
	// Stable is the revision Run.StableRevision; nil: there is none, or its
	// spec cannot be read. Only needed while Run.ReadyAt is zero.
	Stable *dstack.Revision
	// HasReadyReplica says that a replica of Run.TemplateRevision is ready; a run
	// pass may not have seen it yet. Only needed while Run.ReadyAt is zero.
	HasReadyReplica bool
}

// NewRevision is a new revision of a run.
type NewRevision struct {
	Present      int // the run's revision as its author saw it
	Spec         dstack.RunSpec
	User         string // who made it
	Author       string // who wrote its spec, whose rights decide where it may run; empty: User
	NeedsRollout bool   // it needs new containers
	Restores     int    // the revision whose spec it repeats; 0: none
	Cause        string // what made it, if its spec is the present one: secret A was changed
}

// Revise returns a run at a new revision, and the events to record. The number
// of the revision is one above the highest number assigned so far. A revision
// that needs a rollout begins a new template, and makes the present revision
// the stable one if it has served. The desired number of replicas stays,
// limited to the new range. Revise fails with Conflict if the run has ended, is
// being stopped, or is no longer at rev.Present.
func Revise(seen ReviseFacts, rev NewRevision, now time.Time) (dstack.Run, []dstack.Event, error) {
	run := seen.Run
	if err := checkRevisable(run, rev.Present); err != nil {
		return run, nil, err
	}
	num := run.LatestRevision + 1
	if rev.NeedsRollout {
		served := hasServed(seen)
		if served {
			run.StableRevision = run.Revision
		}
		if isStableAgain(seen, served, rev.Spec) {
			run.TemplateRevision, run.StableRevision, run.ReadyAt = seen.Stable.TemplateRevision, 0, now
		} else {
			run.TemplateRevision, run.ReadyAt = num, time.Time{}
		}
	}
	run.Revision, run.LatestRevision, run.User, run.Spec = num, num, cmp.Or(rev.Author, rev.User), rev.Spec
	run.DesiredReplicas = clampReplicas(rev.Spec.Configuration.Replicas, run.DesiredReplicas)
	if run.DesiredReplicas != seen.Run.DesiredReplicas {
		run.ScaledAt = now
	}
	return run, buildReviseEvents(seen.Run, run, rev), nil
}

func checkRevisable(run dstack.Run, present int) error {
	conflict := func(hint, why string) error {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("cannot change run %q: %s", run.Name, why), Hint: hint}
	}
	switch {
	case run.Status.IsFinished():
		return conflict("apply again to start a new run", "it has ended")
	case run.Revision != present:
		return conflict("apply again to see what changed", "another user changed it in the meantime")
	case run.Stop != dstack.StopNone, run.Status == dstack.RunTerminating:
		return conflict("wait until it has ended and apply again", "it is being stopped")
	}
	return nil
}

// hasServed reports whether the present template of a run has served. A replica
// may have become ready a moment ago, before the run's next decision.
func hasServed(seen ReviseFacts) bool {
	run := seen.Run
	if !run.ReadyAt.IsZero() || run.StableRevision > 0 {
		return !run.ReadyAt.IsZero()
	}
	return seen.HasReadyReplica
}

// isStableAgain reports whether a new spec needs the same containers as the
// stable revision while an update from it is under way: the replicas that still
// serve are then replicas of the new revision.
func isStableAgain(seen ReviseFacts, served bool, rs dstack.RunSpec) bool {
	return !served && seen.Run.StableRevision > 0 && seen.Stable != nil && !job.NeedsRollout(seen.Stable.Spec, rs)
}

// clampReplicas returns the number in a range that is nearest to n.
func clampReplicas(replicas spec.Replicas, n int) int {
	return max(replicas.Min, min(replicas.Max, n))
}

func buildReviseEvents(was, run dstack.Run, rev NewRevision) []dstack.Event {
	event := func(kind dstack.EventKind, message string) dstack.Event {
		return dstack.Event{Project: run.ProjectID, Run: run.ID, RunName: run.Name,
			Kind: kind, Revision: run.Revision, User: rev.User, Message: message}
	}
	how := "in place"
	if run.TemplateRevision != was.TemplateRevision {
		how = "rolling"
	}
	message := fmt.Sprintf("revision %d, %s", run.Revision, how)
	if rev.Restores > 0 {
		message += fmt.Sprintf(", brings back revision %d", rev.Restores)
	}
	if rev.Cause != "" {
		message += ": " + rev.Cause
	}
	all := []dstack.Event{event(dstack.EventApplied, message)}
	if run.DesiredReplicas != was.DesiredReplicas {
		e := event(dstack.EventScaled, "replicas: "+rev.Spec.Configuration.Replicas.String())
		e.From, e.To = strconv.Itoa(was.DesiredReplicas), strconv.Itoa(run.DesiredReplicas)
		all = append(all, e)
	}
	return all
}

// RollBack returns a run at an earlier revision that has served.
func RollBack(run dstack.Run, to dstack.Revision, now time.Time) dstack.Run {
	run.Spec, run.User = to.Spec, to.User
	run.Revision, run.TemplateRevision, run.StableRevision, run.ReadyAt = to.Num, to.TemplateRevision, 0, now
	run.DesiredReplicas = clampReplicas(to.Spec.Configuration.Replicas, run.DesiredReplicas)
	return run
}
