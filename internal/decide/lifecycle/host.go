package lifecycle

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	awayAfter      = 10 * time.Second // without an answer for so long, a remote machine's replicas get no requests
	lostAfter      = 15 * time.Second // without an answer for so long, they are replaced
	maxSilenceSeen = 5 * time.Second  // how far before the first unanswered call a backend's own observation counts
	leastAsk       = time.Second      // how long a call to an engine may take at least
)

// NoAnswer is the message of an engine's call that took longer than its AnswerTimeout.
const NoAnswer = "no answer in time"

// isRemote reports whether a machine is reached over a network: it may go away
// with its replicas, and come back. Rented ones are deleted if they do not.
func isRemote(i dstack.Instance) bool { return i.Offer.IsRemote }

// beginSilence returns since when an engine has been silent that was asked at the time
// asked and did not answer. Its backend may have noticed earlier; but not long before,
// because a process that was stopped for a while has not listened.
func beginSilence(m *dstack.Machine, asked time.Time) time.Time {
	if m == nil || m.SilentSince.IsZero() || m.SilentSince.After(asked) {
		return asked
	}
	if earliest := asked.Add(-maxSilenceSeen); m.SilentSince.Before(earliest) {
		return earliest
	}
	return m.SilentSince
}

// silentFor reports whether an engine has been asked without a gap and has not answered
// for a time.
func silentFor(i dstack.Instance, limit time.Duration, now time.Time) bool {
	if isManaged(i) && now.Sub(i.CheckedAt) > maxStatusAge {
		return false
	}
	return !i.SilentSince.IsZero() && isObserved(i, now) && now.Sub(i.SilentSince) >= limit
}

// explainSilence says, for the user, which part of a remote machine does not answer.
func explainSilence(seen InstanceFacts) dstack.Reason {
	i, m := seen.Instance, seen.Machine
	who, why := describeMachine(i), i.LastError
	switch {
	case m == nil:
	case m.SilentSince.IsZero():
		who = engineName(i.Offer.Engine) + " on " + who
	default:
		why = m.SilentReason
	}
	text := fmt.Sprintf("%s has not answered for %s", who, human.RoundDuration(awayAfter))
	if why != "" && why != NoAnswer {
		text += ": " + why
	}
	return dstack.Reason(text)
}

func engineName(e dstack.EngineCapabilities) string {
	if e.Name == "docker" {
		return "Docker"
	}
	return "the engine"
}

// askRemote limits how long the engine of a remote machine may take to answer, so that
// the machine is away in time: see awayAfter.
func (step InstanceStep) askRemote(i dstack.Instance, now time.Time) InstanceStep {
	step.AnswerTimeout = awayAfter
	if i.Status == dstack.InstanceUp && !i.SilentSince.IsZero() && !isManaged(i) {
		away := i.SilentSince.Add(awayAfter)
		step.AnswerTimeout = min(max(away.Sub(now), leastAsk), awayAfter)
		step.Due = earliestDue(now, step.Due, away)
	}
	return step
}

// instanceAway asks the engine of a remote machine until it answers. Its replicas get no
// requests meanwhile: see replicaAway.
func instanceAway(seen InstanceFacts, now time.Time) InstanceStep {
	if step, ok := deleteRented(seen, now); ok {
		return step
	}
	if isRetired(seen, now) {
		return InstanceStep{To: dstack.InstanceDeleted, Reason: "its backend does not offer it any more", Due: now}
	}
	if isManaged(seen.Instance) {
		return nodeAway(seen, now)
	}
	step := InstanceStep{To: dstack.InstanceAway, Reason: explainSilence(seen), Action: SyncEngine, AskedAt: now, Due: now.Add(syncCalm)}
	return step.askRemote(seen.Instance, now)
}

// AfterAnswer returns the step to save after the engine answered: a machine that was
// away is back.
func (step InstanceStep) AfterAnswer(now time.Time) InstanceStep {
	if step.To == dstack.InstanceAway && step.Action == SyncEngine && !step.StaysAway {
		step.To, step.Reason, step.Due = dstack.InstanceUp, "", now.Add(syncBrisk)
	}
	return step
}

// isAway reports whether an instance is a remote machine that does not answer.
func isAway(i *dstack.Instance) bool { return i != nil && i.Status == dstack.InstanceAway }

// isLostHost reports whether an instance has been away for so long that its replicas are
// replaced. A server that was stopped in the meantime asks first.
func isLostHost(i *dstack.Instance, now time.Time) bool {
	return isAway(i) && silentFor(*i, lostAfter, now)
}

// lostAt returns when an instance that is away is to be looked at again: when it is lost,
// if nothing changes.
func lostAt(i dstack.Instance, now time.Time) time.Time {
	if at := i.SilentSince.Add(lostAfter); at.After(now) {
		return earliestDue(now, at)
	}
	return now.Add(syncCalm)
}

// replicaAway is the step of a replica on a machine that is away, instead of the one that
// its report would cause: the report is as old as the silence. The replica gets no
// requests, and is neither restarted nor given up, because it may well be running. ok is
// false for a replica that is to end.
func replicaAway(seen ReplicaFacts, now time.Time) (step ReplicaStep, ok bool) {
	why := seen.Instance.Reason
	switch seen.Replica.Status {
	case dstack.ReplicaReady:
		step = seen.moveTo(dstack.ReplicaUnhealthy, why)
	case dstack.ReplicaStarting, dstack.ReplicaUnhealthy, dstack.ReplicaRestarting:
		step = seen.stayWith(why)
	case dstack.ReplicaWaiting, dstack.ReplicaDraining, dstack.ReplicaTerminating, dstack.ReplicaTerminated, dstack.ReplicaFailed:
		return step, false
	}
	step.Due = now.Add(lookInterval)
	return step, true
}

// since returns when the replica got its status, or when its machine came back after that.
func (seen ReplicaFacts) since() time.Time {
	if i := seen.Instance; i != nil && i.Since.After(seen.Replica.Since) {
		return i.Since
	}
	return seen.Replica.Since
}

// displacement says why a replica is to be placed on another machine.
type displacement struct {
	reason   dstack.Reason
	isLost   bool // it gets no requests, because its machine is away
	isForced bool // its machine is not to come back, so it leaves also where no other machine suits
	isUrgent bool // its machine is taken back soon: it leaves once any other replica serves
}

// findDisplaced returns the replicas that are to be placed on other machines: those on
// machines that are lost, draining or not listed any more. next is when a machine that is
// away is lost; zero: none is.
func (seen RunFacts) findDisplaced(now time.Time) (displaced map[dstack.ReplicaID]displacement, next time.Time) {
	if len(seen.Instances) == 0 {
		return nil, time.Time{}
	}
	displaced = map[dstack.ReplicaID]displacement{}
	for _, r := range seen.Replicas {
		i, ok := seen.Instances[r.Instance]
		if !ok || r.Status.IsFinished() || isLeaving(r) {
			continue
		}
		d := displacement{isLost: isLostHost(&i, now), reason: i.Reason}
		isGone := !i.UnlistedSince.IsZero() && isObserved(i, now) && now.Sub(i.UnlistedSince) >= maxUnlisted
		switch {
		case isLost(&i) && isRented(i) && seen.hasReplacement(): // it waits for another machine soon: see waitForMachine
			d.isLost, d.reason = true, "its machine is gone"
		case d.isLost:
			d.isForced = i.IsDraining || isGone
		case isGone && isRemote(i) && !isManaged(i): // a node's replicas wait for another place: see removeNode
			d.reason = dstack.Reason(describeMachine(i) + " was removed")
		case !i.TakenBackAt.IsZero():
			var until time.Time
			d, until = displaceTakenBack(i, now)
			next = earliestDue(now, next, until)
		case i.IsDraining:
			d.reason = describeDrain(i)
		case isAway(&i):
			next = earliestDue(now, next, lostAt(i, now))
			continue
		case !i.UnlistedSince.IsZero() && isRemote(i):
			next = earliestDue(now, next, now.Add(syncCalm))
			continue
		default:
			continue
		}
		displaced[r.ID] = d
	}
	return displaced, next
}

// hasReplacement reports whether there are more replicas than desired: one of them was added in the place of another.
func (seen RunFacts) hasReplacement() bool {
	n := 0
	for _, r := range seen.Replicas {
		if seen.isCurrent(r) && !r.Status.IsFinished() && !isLeaving(r) {
			n++
		}
	}
	return n > seen.DesiredReplicas
}

// explainSpare says why replicas of a group leave, if the reason is that replicas which
// others replaced are back: the desired number has not changed since the others were
// added. It returns "" for any other reason.
func (seen groupFacts) explainSpare(steady, leave []dstack.Replica) dstack.Reason {
	run, ok := seen.Run.ForGroup(seen.name)
	if !ok || run.DesiredReplicas != seen.DesiredReplicas {
		return ""
	}
	var added time.Time // when the last of the others was added
	for _, r := range steady {
		if r.SubmittedAt.After(run.ScaledAt) && r.SubmittedAt.After(added) {
			added = r.SubmittedAt
		}
	}
	if added.IsZero() {
		return ""
	}
	for _, r := range steady {
		i, ok := seen.Instances[r.Instance]
		if !ok || !isRemote(i) || i.Status != dstack.InstanceUp || !r.SubmittedAt.Before(added) || !i.Since.After(added) {
			continue
		}
		if r.ID == leave[0].ID {
			return dstack.Reason("not needed any more: another replica took its place while " + describeMachine(i) + " did not answer")
		}
		return dstack.Reason("not needed any more: " + describeMachine(i) + " answers again")
	}
	return "not needed any more: the replica that it replaced is back"
}

// describeDisplaced says, for the user, which replicas are placed elsewhere and why.
func describeDisplaced(displaced map[dstack.ReplicaID]displacement, rs []dstack.Replica) dstack.Reason {
	count, first := 0, dstack.Reason("")
	for _, r := range rs {
		if d, ok := displaced[r.ID]; ok {
			if count++; first == "" {
				first = d.reason
			}
		}
	}
	switch count {
	case 0:
		return ""
	case 1:
		return "replacing a replica: " + first
	default:
		return dstack.Reason(fmt.Sprintf("replacing %d replicas: %s", count, first))
	}
}
