// Package lifecycle decides what happens next to a run, a replica and an
// instance. One file per noun; in it, one function per status.
package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// RunFacts is all that is known of a run.
type RunFacts struct {
	Run             dstack.Run
	Replicas        []dstack.Replica // every one that is not finished, and those of the present shape that failed
	Load            dstack.Load
	DesiredReplicas int                      // how many there should be, from autoscale
	ScaleReason     dstack.Reason            // why that many
	ScaleDue        time.Time                // when that may change by itself; zero: only with the load
	InFlight        map[dstack.ReplicaID]int // where there is anything
}

// RunStep is what to do next with a run.
type RunStep struct {
	To              dstack.RunStatus
	Reason          dstack.Reason
	Ending          dstack.Ending
	Ready           bool               // the present shape serves as wanted: remember since when
	Started         bool               // its first replica has a machine: remember since when
	DesiredReplicas int                // how many replicas there should be
	StableRevision  int                // an earlier revision that began to serve only after the present one was applied; 0: none
	Rollback        *Rollback          // fall back to an earlier revision
	Add             []int              // numbers of replicas to create at the current revision
	Terminate       []dstack.ReplicaID // replicas to terminate
	Drain           []dstack.ReplicaID // replicas that get no new requests, and end gracefully once those in flight have
	DrainTimeout    time.Duration      // that those drained may take for it
	Graceful        bool               // those dropped get SIGTERM and time first
	StopReason      dstack.Reason      // why they are dropped or drained
	Due             time.Time          // when to look again, if nothing happens; zero: only when something does
}

// Rollback is a fall back to the revision Run.Proven: the present one failed.
type Rollback struct {
	ToRevision int
	Reason     dstack.Reason // why, in words
	Replica    int           // the number of the one that failed
	LastOutput []string      // what it said last
}

// ReplicaFacts is all that is known of a replica.
type ReplicaFacts struct {
	Replica    dstack.Replica
	Run        dstack.Run         // with the spec of the replica's own revision
	Siblings   []dstack.Replica   // the run's other unfinished ones; where it is unhealthy; those of other shapes where it waits
	Load       dstack.Load        // only while it drains
	Instance   *dstack.Instance   // nil before placement
	Report     *dstack.Report     // of the present attempt; nil until its engine has spoken of it
	Placements []dstack.Placement // suitable and free, best first; looked up only while waiting
	Rejections []dstack.Rejection // the machines that do not suit
	Blocked    bool               // there would be a place if older replicas of the run had left
	Limits     Limits
}

// Limits are the waits that the server's owner can set.
type Limits struct {
	StartTimeout time.Duration // from started to ready
	PlaceTimeout time.Duration // without a place, where the configuration does not say
}

// ReplicaStep is what to do next with a replica.
type ReplicaStep struct {
	To           dstack.ReplicaStatus
	Reason       dstack.Reason
	Placement    *dstack.Placement // put it here
	NewAttempt   bool              // begin a new attempt
	EndedAttempt *dstack.Attempt   // the attempt that ended, to remember
	Crashes      int
	FirstCrashAt time.Time
	RetryAt      time.Time // when a back-off is over
	Blocked      bool
	Due          time.Time // when to look again
}

// InstanceFacts is all that is known of an instance.
type InstanceFacts struct {
	Instance dstack.Instance
	Replicas []PlacedReplica // placed on it and unfinished
	Reports  []dstack.Report // as saved at the last sync
	Machine  *dstack.Machine // as its backend describes it; nil: the backend knows none
	Listed   bool            // the backend was asked and answered
}

// PlacedReplica is a replica on an instance, with what running it takes: the run has
// the spec of the replica's own revision.
type PlacedReplica struct {
	Replica dstack.Replica
	Run     dstack.Run
}

// InstanceStep is what to do next with an instance. It alone touches the
// world, and by one act at a time.
type InstanceStep struct {
	To     dstack.InstanceStatus
	Reason dstack.Reason
	Action Action
	Due    time.Time
}

// Action is something done to the world. Each is safe to repeat.
type Action string

// Every act there is.
const (
	NoAction      Action = ""
	CreateMachine Action = "create machine"
	SyncEngine    Action = "sync engine" // tell it all it should run; hear all it does
	DeleteMachine Action = "delete machine"
)
