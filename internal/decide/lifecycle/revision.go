package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	User         string   // who made it
	Author       string   // who wrote its spec, whose rights decide where it may run; empty: User
	NeedsRollout bool     // it needs new containers
	Kept         []string // with NeedsRollout: the groups whose replicas stay, because they are the same in it
	Restores     int      // the revision whose spec it repeats; 0: none
	Cause        string   // what made it, if its spec is the present one: secret A was changed
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
	served := false
	if rev.NeedsRollout {
		served = hasServed(seen)
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
	run = limitReplicas(run, now)
	if rev.NeedsRollout {
		for name, count := range run.Groups {
			count.Proven = slices.Contains(rev.Kept, name) && (served || seen.Run.Groups[name].Proven)
			run.Groups[name] = count
		}
	}
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

// limitReplicas returns a run whose desired numbers of replicas are within the ranges of its
// configuration. A group keeps its number; a new one begins with its minimum.
func limitReplicas(run dstack.Run, now time.Time) dstack.Run {
	conf := run.Spec.Configuration
	before := run.Groups
	if before == nil {
		before = map[string]dstack.GroupCount{spec.DefaultGroup: {Desired: run.DesiredReplicas, ScaledAt: run.ScaledAt}}
	}
	if len(conf.Groups) == 0 {
		if count, known := before[spec.DefaultGroup]; known {
			run.DesiredReplicas = count.Desired
		}
		run.Groups, run.DesiredReplicas = nil, clampReplicas(conf.Replicas, run.DesiredReplicas)
		return run
	}
	run.Groups, run.DesiredReplicas = map[string]dstack.GroupCount{}, 0
	for _, g := range conf.Groups {
		count, known := before[g.Name]
		if desired := clampReplicas(g.Replicas, count.Desired); !known || desired != count.Desired {
			count.Desired, count.ScaledAt = desired, now
		}
		run.Groups[g.Name] = count
		run.DesiredReplicas += count.Desired
	}
	return run
}

// NewGroupCounts returns the desired numbers with which the groups of a new run begin; nil:
// it has no groups.
func NewGroupCounts(conf spec.Service, now time.Time) map[string]dstack.GroupCount {
	run := dstack.Run{Groups: map[string]dstack.GroupCount{}}
	run.Spec.Configuration = conf
	return limitReplicas(run, now).Groups
}

// setGroupCounts sets desired numbers in a run's own map of them.
func setGroupCounts(run *dstack.Run, desired map[string]int, now time.Time) {
	if run.Groups == nil {
		run.Groups = map[string]dstack.GroupCount{}
	}
	for name, n := range desired {
		if count, known := run.Groups[name]; !known || count.Desired != n {
			count.Desired, count.ScaledAt = n, now
			run.Groups[name] = count
		}
	}
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

// maxNamedLinks is how many links that are left out an event names.
const maxNamedLinks = 20

// LeftOutEvents returns the event of a submitted revision whose code has links that
// replicas do not get, or none. by is who submitted it.
func LeftOutEvents(run dstack.Run, by string, links []string) []dstack.Event {
	if len(links) == 0 {
		return nil
	}
	message := "links out of the uploaded folder are left out: " + strings.Join(links[:min(len(links), maxNamedLinks)], ", ")
	if more := len(links) - maxNamedLinks; more > 0 {
		message += fmt.Sprintf(" and %d more", more)
	}
	return []dstack.Event{{Project: run.ProjectID, Run: run.ID, RunName: run.Name, Kind: dstack.EventUpload,
		Revision: run.Revision, User: by, Message: message}}
}

// RollBack returns a run at an earlier revision that has served.
func RollBack(run dstack.Run, to dstack.Revision, now time.Time) dstack.Run {
	run.Spec, run.User = to.Spec, to.User
	run.Revision, run.TemplateRevision, run.StableRevision, run.ReadyAt = to.Num, to.TemplateRevision, 0, now
	return limitReplicas(run, now)
}
