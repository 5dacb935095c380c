// Package lifecycle decides what happens next to a run, a replica and an
// instance. One file per noun; in it, one function per status.
package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// RunFacts is all that is known of a run.
type RunFacts struct {
	Run      dstack.Run
	Replicas []dstack.Replica // every one that is not finished, and those of the present shape that failed
	Load     dstack.Load
	Wanted   int                      // how many there should be, from autoscale
	WhyScale dstack.Reason            // why that many
	ScaleDue time.Time                // when that may change by itself; zero: only with the load
	InFlight map[dstack.ReplicaID]int // where there is anything
}

// RunStep is what to do next with a run.
type RunStep struct {
	To     dstack.RunStatus
	Reason dstack.Reason
	Ending dstack.Ending
	Ready  bool               // the present shape serves as wanted: remember since when
	Begun  bool               // its first replica has a machine: remember since when
	Wanted int                // how many replicas there should be
	Back   *Back              // fall back to an earlier revision
	Add    []int              // numbers of replicas to create at the current revision
	Drop   []dstack.ReplicaID // replicas to terminate
	Drain  []dstack.ReplicaID // replicas that get no new requests, and end gracefully once those in flight have
	Limit  time.Duration      // that those drained may take for it
	Grace  bool               // those dropped get SIGTERM and time first
	Why    dstack.Reason      // why they are dropped or drained
	Due    time.Time          // when to look again, if nothing happens; zero: only when something does
}

// Back is a fall back to the revision Run.Proven: the present one failed.
type Back struct {
	To      int
	Reason  dstack.Reason // why, in words
	Replica int           // the number of the one that failed
	LastOut []string      // what it said last
}

// ReplicaFacts is all that is known of a replica.
type ReplicaFacts struct {
	Replica  dstack.Replica
	Run      dstack.Run       // with the spec of the replica's own revision
	Siblings []dstack.Replica // the run's other unfinished ones; where it is unhealthy; those of other shapes where it waits
	Load     dstack.Load      // only while it drains
	Instance *dstack.Instance // nil before placement
	Report   *dstack.Report   // of the present attempt; nil until its engine has spoken of it
	Places   []dstack.Place   // suitable and free, best first; looked up only while waiting
	Misfits  []dstack.Misfit  // the machines that do not suit
	Blocked  bool             // there would be a place if older replicas of the run had left
	Limits   Limits
}

// Limits are the waits that the server's owner can set.
type Limits struct {
	StartTimeout time.Duration // from started to ready
	PlaceTimeout time.Duration // without a place, where the configuration does not say
}

// ReplicaStep is what to do next with a replica.
type ReplicaStep struct {
	To      dstack.ReplicaStatus
	Reason  dstack.Reason
	Place   *dstack.Place   // put it here
	Attempt bool            // begin a new attempt
	Past    *dstack.Attempt // the attempt that ended, to remember
	Crashes int
	Crashed time.Time
	DueAt   time.Time // when a back-off is over
	Blocked bool
	Due     time.Time // when to look again
}

// InstanceFacts is all that is known of an instance.
type InstanceFacts struct {
	Instance dstack.Instance
	Replicas []Placed        // placed on it and unfinished
	Reports  []dstack.Report // as saved at the last sync
	Machine  *dstack.Machine // as its backend describes it; nil: the backend knows none
	Listed   bool            // the backend was asked and answered
}

// Placed is a replica on an instance, with what running it takes: the run has
// the spec of the replica's own revision.
type Placed struct {
	Replica dstack.Replica
	Run     dstack.Run
}

// InstanceStep is what to do next with an instance. It alone touches the
// world, and by one act at a time.
type InstanceStep struct {
	To     dstack.InstanceStatus
	Reason dstack.Reason
	Do     Act
	Due    time.Time
}

// Act is something done to the world. Each is safe to repeat.
type Act string

// Every act there is.
const (
	Nothing       Act = ""
	CreateMachine Act = "create machine"
	SyncEngine    Act = "sync engine" // tell it all it should run; hear all it does
	DeleteMachine Act = "delete machine"
)
