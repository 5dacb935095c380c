package lifecycle

import (
	"cmp"
	"strings"
	"time"

	"dstack/internal/dstack"
)

const (
	maxStatusAge    = 15 * time.Second // how old what a control plane said of a node may be to count
	maxNodeUnlisted = 5 * time.Second  // out of its control plane's lists for so long, a node does not exist any more
)

// isManaged reports whether a control plane tells if an owned machine lives. An API server that
// does not answer says nothing about nodes and replicas: they may well serve.
func isManaged(i dstack.Instance) bool { return isRemote(i) && i.Offer.IsManaged }

// describeMachine names a machine for the user: node gpu-2, host gpu-2, or machine g6.xlarge in us-east-1a.
func describeMachine(i dstack.Instance) string {
	if isManaged(i) {
		return "node " + i.Offer.Type
	}
	if isRented(i) {
		return describeRented(i.Offer)
	}
	return "host " + i.Offer.Type
}

// describeDrain says that an owned machine gets no new replicas.
func describeDrain(i dstack.Instance) dstack.Reason {
	if isManaged(i) {
		return dstack.Reason(describeMachine(i) + " is cordoned")
	}
	return dstack.Reason(describeMachine(i) + " is draining")
}

// isNodeSilent reports whether a control plane says that a node has not answered it for awayAfter.
// What it says is not second-guessed: it has waited itself before it said so.
func isNodeSilent(seen InstanceFacts, now time.Time) bool {
	m := seen.Machine
	return seen.Listed && m != nil && !m.SilentSince.IsZero() && now.Sub(m.SilentSince) >= awayAfter
}

// removeNode decides the step of a node that its control plane does not list: nothing is started there, and it is deleted
// soon, with its replicas, because nothing runs on it any more. ok is false for a node that is listed, or that nothing is
// known of.
func removeNode(seen InstanceFacts, now time.Time) (step InstanceStep, ok bool) {
	i := seen.Instance
	isOver := i.Status == dstack.InstanceDeleting || i.Status == dstack.InstanceDeleted
	if !isManaged(i) || i.Offer.AnyNode || isOver || !seen.Listed || seen.Machine != nil {
		return InstanceStep{}, false
	}
	if now.Sub(unlistedSince(seen, now)) >= maxNodeUnlisted {
		return InstanceStep{To: dstack.InstanceDeleted, Due: now, Reason: dstack.Reason(describeMachine(i) + " was removed from its cluster")}, true
	}
	return InstanceStep{To: i.Status, Reason: "its cluster does not list it", Due: now.Add(syncCalm)}, true
}

// silentSince returns since when a node has not answered its control plane, as that said last.
func silentSince(seen InstanceFacts) time.Time {
	switch {
	case !seen.Listed:
		return seen.Instance.SilentSince
	case seen.Machine == nil:
		return time.Time{}
	default:
		return seen.Machine.SilentSince
	}
}

// isNodeBack reports whether a control plane says that a node answers it.
func isNodeBack(seen InstanceFacts) bool {
	return seen.Listed && seen.Machine != nil && seen.Machine.SilentSince.IsZero()
}

// nodeAway waits until the control plane says that a node is back. An answer of the engine says
// nothing: it comes from the control plane, and commands are kept for the node.
func nodeAway(seen InstanceFacts, now time.Time) InstanceStep {
	if isNodeBack(seen) {
		return InstanceStep{To: dstack.InstanceUp, Action: SyncEngine, AskedAt: now, AnswerTimeout: awayAfter, Due: now.Add(syncBrisk)}
	}
	why := seen.Instance.Reason
	if isNodeSilent(seen, now) {
		why = explainNodeSilence(seen)
	}
	return InstanceStep{To: dstack.InstanceAway, Reason: why, Action: SyncEngine, AskedAt: now, AnswerTimeout: awayAfter, StaysAway: true, Due: now.Add(syncCalm)}
}

// explainNodeSilence says why a node is away.
func explainNodeSilence(seen InstanceFacts) dstack.Reason {
	why := describeMachine(seen.Instance) + " does not answer its cluster"
	if m := seen.Machine; m != nil && m.SilentReason != "" {
		why += ": " + m.SilentReason
	}
	return dstack.Reason(why)
}

// explainDeafEngine says that the engine of an instance has not answered for long.
func explainDeafEngine(i dstack.Instance) dstack.Reason {
	if isManaged(i) {
		why, _, _ := strings.Cut(i.LastError, "\n") // the list of machines failed for the same reason
		return dstack.Reason("the API server of " + cmp.Or(i.Backend, i.Offer.Backend) + " does not answer: " + why)
	}
	return dstack.Reason("its engine does not answer: " + i.LastError)
}

// leaveForOtherPlace makes a replica wait for a place again, because its machine or its cluster ended the attempt:
// its node was drained or lost, or something more important needed the place. That is no crash. A
// machine that ended it soon after its start is left out for a while.
func (seen ReplicaFacts) leaveForOtherPlace(now time.Time) ReplicaStep {
	why := DescribeExit(seen.Replica, *seen.Report)
	step := seen.moveTo(dstack.ReplicaWaiting, why)
	step.EndedAttempt = endAttempt(seen, now, why, seen.Report.State)
	if i := seen.Instance; i != nil && isRemote(*i) && now.Sub(seen.Replica.AttemptAt) < stableAfter {
		step.LeftOut = leaveOut(*i)
	}
	step.Due = now
	return step
}

// hasNoNode reports whether the replica has waited for a node of a cluster in vain.
func (seen ReplicaFacts) hasNoNode() bool {
	past := seen.Replica.PastAttempts
	return len(past) > 0 && past[len(past)-1].NoNode
}
