package dstack

import "time"

// Machine is an instance as its backend reports it.
type Machine struct {
	Ref      string // the backend's own identifier
	State    MachineState
	Endpoint Endpoint        // where the machine is reached; empty: not known yet, or the backend alone reaches it
	Hardware Hardware        // what the machine has; zero: what its offer says
	Progress string          // with MachinePending: what it does, for the user: installs Docker; empty: not known
	Failure  *MachineFailure // set with MachineFailed
	Price    float64         // dollars per hour; 0: nothing, or not known yet
	// SilentSince is when a remote machine last answered, if its connection is broken or it
	// has not answered since it was asked; zero: it answers, or it was not asked. A backend
	// that knows it sooner than its engine's calls fail sets it, from its keep-alive.
	SilentSince  time.Time
	SilentReason string // with SilentSince: why, for the user; may be empty
	IsDraining   bool   // gets no new replicas, and its replicas are placed elsewhere
	// TakenBackAt is when the backend takes a spot machine back, after it announced that; zero: it announced nothing.
	// The machine then drains.
	TakenBackAt time.Time
}

// IsAlive reports whether the machine runs, so that its engine can be asked.
func (m Machine) IsAlive() bool { return m.State == MachineRunning }

// MachineState is the phase of a machine's life. There is no state for a machine
// that has ended: it is no longer listed.
type MachineState string

// The states of a machine.
const (
	MachinePending  MachineState = "pending"  // requested or booting
	MachineRunning  MachineState = "running"  // booted; its engine may not answer yet
	MachineStopping MachineState = "stopping" // is being deleted, by dstack or otherwise
	MachineFailed   MachineState = "failed"   // will never run, or never again; it exists until it is deleted
)

// MachineFailure explains why a machine failed, or was not rented. It is also an error, as the cause of an Error.
type MachineFailure struct {
	Cause      FailureCause
	Message    string        // for the user: spot capacity was reclaimed in eu-west-1
	Scope      FailureScope  // which other offers would fail, too
	Types      []string      // with ScopeTypes: the instance types, as patterns with *: g6.*
	Zones      []string      // zones of the region that have room, if the backend says so
	RetryAfter time.Duration // how long the backend asks to wait; 0: it does not say
}

// Error returns the message.
func (f *MachineFailure) Error() string { return f.Message }

// FailureScope is the set of offers that a failure concerns.
type FailureScope string

// The scopes, the narrowest first.
const (
	ScopeZone    FailureScope = ""        // the type in the offer's zone, spot or on demand as the offer is
	ScopeRegion  FailureScope = "region"  // the type in the whole region
	ScopeTypes   FailureScope = "types"   // MachineFailure.Types in the region, spot or on demand as the offer is
	ScopePlace   FailureScope = "place"   // every type in the offer's region: it has no image, or no network
	ScopeBackend FailureScope = "backend" // every offer of the backend
)

// FailureCause classifies failures of machines by what may help.
type FailureCause string

// The causes of a machine's failure.
const (
	FailureNoCapacity    FailureCause = "no_capacity"   // the backend has no such machine left
	FailureQuota         FailureCause = "quota"         // a limit of the user's account is reached
	FailurePreempted     FailureCause = "preempted"     // the backend took a spot machine back
	FailureBroken        FailureCause = "broken"        // the machine did not boot, or stopped working
	FailureMisconfigured FailureCause = "misconfigured" // the backend's configuration is wrong, for every offer of it
)

// MayHelpElsewhere reports whether another offer of the same backend may
// succeed where this machine failed.
func (c FailureCause) MayHelpElsewhere() bool { return c != FailureMisconfigured }
