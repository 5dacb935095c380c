package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// MaxPastAttempts is how many ended attempts a replica remembers.
const MaxPastAttempts = 20

// NewIDs are the names that a step of a replica may give. Instance is used
// when the step places the replica on a machine to be rented, Attempt when it
// begins an attempt.
type NewIDs struct {
	Instance dstack.InstanceID
	Attempt  dstack.AttemptID
}

// NeedsInstanceID reports whether Apply uses NewIDs.Instance.
func (step ReplicaStep) NeedsInstanceID() bool {
	return step.Placement != nil && step.Placement.Offer.OwnedInstance == ""
}

// Apply returns a replica as the step leaves it.
func (step ReplicaStep) Apply(r dstack.Replica, ids NewIDs, now time.Time) dstack.Replica {
	if step.To != r.Status {
		r.Since = now
		// A replica that comes back from unhealthy keeps its time.
		if step.To == dstack.ReplicaReady && !r.ReadyAt.After(r.AttemptAt) {
			r.ReadyAt = now
		}
	}
	if leaves := step.To == dstack.ReplicaDraining || step.To == dstack.ReplicaTerminating; leaves && !isLeaving(r) {
		r.Graceful, r.DrainDeadline = true, step.DrainUntil
	}
	if step.To == dstack.ReplicaWaiting {
		r.Instance, r.Claim = "", dstack.Claim{}
	}
	r.Status, r.Reason, r.Blocked = step.To, step.Reason, step.Blocked
	r.Crashes, r.FirstCrashAt, r.RetryAt = step.Crashes, step.FirstCrashAt, step.RetryAt
	if step.Placement != nil {
		r.Claim, r.Instance = step.Placement.Claim, step.Placement.Offer.OwnedInstance
		if step.NeedsInstanceID() {
			r.Instance = ids.Instance
		}
	}
	if step.EndedAttempt != nil {
		past := append(r.PastAttempts[:len(r.PastAttempts):len(r.PastAttempts)], *step.EndedAttempt)
		r.PastAttempts = past[max(0, len(past)-MaxPastAttempts):]
	}
	if step.NewAttempt {
		if r.Attempt != "" {
			r.AttemptNum++
		}
		r.Attempt, r.AttemptAt = ids.Attempt, now
	}
	if step.To.IsFinished() {
		r.FinishedAt = now
	}
	return r
}
