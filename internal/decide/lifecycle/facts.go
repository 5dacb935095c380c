// Package lifecycle decides what happens next to a run, a replica and an
// instance. Decide… returns a step from facts; the step's Apply returns the row
// as the step leaves it. One file per noun; in it, one function per status.
package lifecycle

import (
	"time"

	"dstack/internal/dstack"
)

// RunFacts is everything that a decision on a run needs.
type RunFacts struct {
	Run             dstack.Run
	Replicas        []dstack.Replica // all unfinished ones, and the failed ones of the present template
	Load            dstack.Load
	DesiredReplicas int                                   // from autoscale
	ScaleReason     dstack.Reason                         // why autoscale wants that many
	ScaleDue        time.Time                             // when the number may change though the load stays; zero: never
	InFlight        map[dstack.ReplicaID]int              // requests in flight; without zeros
	Instances       map[dstack.InstanceID]dstack.Instance // of its replicas: those that are away, draining or not listed; all, while it has more replicas than desired
	Groups          []GroupScale                          // the parts of DesiredReplicas, in the order of the configuration; nil: the service has no groups

	displaced map[dstack.ReplicaID]displacement // set by DecideRun
}

// GroupScale is how many replicas a group should have, and why.
type GroupScale struct {
	Group           string
	DesiredReplicas int
	Reason          dstack.Reason
}

// RunStep is what happens next to a run.
type RunStep struct {
	To              dstack.RunStatus
	Reason          dstack.Reason
	Ending          dstack.Ending
	Ready           bool               // the present template serves as desired: sets ReadyAt
	Started         bool               // its first replica has a machine: sets StartedAt
	DesiredReplicas int                // sets the desired number of replicas
	DesiredByGroup  map[string]int     // its parts, by group; nil: as they are
	StableRevision  int                // an earlier revision that began to serve only after the present one was applied; 0: none
	Rollback        *Rollback          // return to an earlier revision; nil: no
	Add             []NewNum           // replicas to create at the current revision
	AddReason       dstack.Reason      // why, if they take the places of others on machines that are away or draining
	Terminate       []dstack.ReplicaID // replicas to terminate
	Drain           []dstack.ReplicaID // replicas that get no new requests, and end once those in flight have
	DrainTimeout    time.Duration      // how long draining may take
	Graceful        bool               // terminated replicas get SIGTERM and a grace period first
	StopReason      dstack.Reason      // why replicas terminate or drain
	Due             time.Time          // when to decide again if nothing changes; zero: never
}

// NewNum is the number of a replica to create, and the group that it belongs to.
type NewNum struct {
	Num   int
	Group string
}

// Rollback returns a run to its stable revision, because the present one failed.
type Rollback struct {
	ToRevision int
	Reason     dstack.Reason // why the replica failed
	Replica    int           // the number of the replica that failed
	LastOutput []string      // the last lines of its output
}

// ReplicaFacts is everything that a decision on a replica needs.
type ReplicaFacts struct {
	Replica    dstack.Replica
	Run        dstack.Run         // with the spec of the replica's own revision
	Siblings   []dstack.Replica   // other unfinished replicas of the run: all while it is unhealthy, those of other templates while it waits
	Load       dstack.Load        // known only while the replica drains
	Instance   *dstack.Instance   // nil before placement
	Report     *dstack.Report     // of the present attempt; nil: its engine has not reported it yet
	Placements []dstack.Placement // suitable and free, best first; known only while the replica waits
	Rejections []dstack.Rejection // some machines that do not suit, the nearest first; known only while the replica waits
	Rejected   int                // how many do not suit
	Blocked    bool               // it would have a place if older replicas of its run had left
	Limits     Limits
}

// Limits are timeouts that the server's configuration sets.
type Limits struct {
	StartTimeout time.Duration // from started to ready
	PlaceTimeout time.Duration // waiting for a place, where the run asks for no other retry
}

// ReplicaStep is what happens next to a replica.
type ReplicaStep struct {
	To           dstack.ReplicaStatus
	Reason       dstack.Reason
	Placement    *dstack.Placement // where the replica is placed; nil: it is not placed now
	NewAttempt   bool              // a new attempt begins
	EndedAttempt *dstack.Attempt   // the attempt that ended; nil: none did
	LeftOut      *dstack.Offer     // the machine that could not start it, to be left out for its run for a while; nil: none
	DrainUntil   time.Time         // with ReplicaDraining, when it begins: the drain deadline
	Crashes      int
	FirstCrashAt time.Time
	RetryAt      time.Time // when a back-off is over
	Blocked      bool
	Due          time.Time // when to decide again if nothing changes; zero: never
}

// InstanceFacts is everything that a decision on an instance needs.
type InstanceFacts struct {
	Instance dstack.Instance
	Replicas []PlacedReplica       // unfinished replicas on the instance
	Reports  []dstack.Report       // as saved at the last sync
	Machine  *dstack.Machine       // as its backend lists it; nil: it is not in the list
	Listed   bool                  // the backend answered with its list
	Member   *dstack.FleetInstance // its place in a cloud fleet, without Instance and Replicas; nil: it belongs to none
	// Unconfigured says that the server's configuration has no such backend any
	// more, so that nothing can be asked or changed.
	Unconfigured bool
}

// PlacedReplica is a replica on an instance. Run has the spec of the replica's
// own revision.
type PlacedReplica struct {
	Replica dstack.Replica
	Run     dstack.Run
}

// InstanceStep is what happens next to an instance. It is the only step with an
// effect outside the database: one action at a time.
type InstanceStep struct {
	To     dstack.InstanceStatus
	Reason dstack.Reason
	Action Action
	Due    time.Time

	// Failed says why the instance's offer did not give a machine that works, so that replicas try other offers
	// for a while; nil: it did not fail.
	Failed *dstack.MachineFailure

	AskedAt       time.Time     // with SyncEngine: when that was decided
	AnswerTimeout time.Duration // with SyncEngine: how long the engine may take to list its attempts; 0: no limit of its own
	StaysAway     bool          // with InstanceAway: an answer of its engine does not mean that it is back
}

// Action is a call to a backend or an engine. Each is safe to repeat.
type Action string

// All actions.
const (
	NoAction      Action = ""
	CreateMachine Action = "create machine"
	SyncEngine    Action = "sync engine" // send the engine its commands and read its reports
	DeleteMachine Action = "delete machine"
)
