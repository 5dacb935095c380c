package dstack

import "time"

// Machine is an instance as its backend reports it.
type Machine struct {
	Ref      string // the backend's own identifier
	State    MachineState
	Endpoint Endpoint        // where the machine is reached; empty: not known yet, or the backend alone reaches it
	Hardware Hardware        // what the machine has; zero: what its offer says
	Failure  *MachineFailure // set with MachineFailed
	Price    float64         // dollars per hour; 0: nothing, or not known yet
	// SilentSince is when a remote machine last answered, if its connection is broken or it
	// has not answered since it was asked; zero: it answers, or it was not asked. A backend
	// that knows it sooner than its engine's calls fail sets it, from its keep-alive.
	SilentSince  time.Time
	SilentReason string // with SilentSince: why, for the user; may be empty
	IsDraining   bool   // gets no new replicas, and its replicas are placed elsewhere
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

// MachineFailure explains why a machine failed.
type MachineFailure struct {
	Cause   FailureCause
	Message string // for the user: spot capacity was reclaimed in eu-west-1
}

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
