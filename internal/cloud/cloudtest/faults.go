package cloudtest

import (
	"fmt"
	"time"

	"dstack/internal/dstack"
)

// Faults are what goes wrong in an account, until it is changed.
type Faults struct {
	All          error            // of every call
	Of           map[string]error // by the name of the method: "ListMachines"
	Hang         string           // this method answers only when its context ends
	HangAll      bool             // every method does
	Launch       map[Place]error  // of launches; Zone, Type and Region may be empty, which means any
	LaunchAnyway bool             // a Launch that fails by Launch makes the machine nevertheless: its answer is lost
	// EndLaunched makes machines that are launched end at once with this failure, after a good answer.
	EndLaunched *dstack.MachineFailure
	// Regions do not answer: ListMachines and ListDisks, which need all of them, fail.
	Regions []string
	// ListTwice makes ListMachines return each machine twice, as a cloud whose pages shift does.
	ListTwice bool
	// IgnoreTerminate makes Terminate succeed and do nothing.
	IgnoreTerminate bool
}

// SetFaults replaces the faults.
func (a *Account) SetFaults(f Faults) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = f
}

// LoseNextAnswer makes the next launch fail after it was done, and no other.
func (a *Account) LoseNextAnswer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loseNext = true
}

// Calls counts the calls of each method, failed calls included.
type Calls map[string]int

func (c *Calls) count(method string) {
	if *c == nil {
		*c = Calls{}
	}
	(*c)[method]++
}

// Calls returns how often each method of all providers was called.
func (a *Account) Calls() Calls {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := Calls{}
	for method, n := range a.calls {
		calls[method] = n
	}
	return calls
}

// findLaunchFault returns the error that a launch is to fail with.
func (f Faults) findLaunchFault(p Place) error {
	for place, err := range f.Launch {
		if (place.Region == "" || place.Region == p.Region) && (place.Zone == "" || place.Zone == p.Zone) &&
			(place.Type == "" || place.Type == p.Type) && (place.Type == "" || place.Spot == p.Spot) {
			return err
		}
	}
	return nil
}

// The errors of clouds, as adapters return them.

// NewNoCapacityError is the error for a type that a zone has no machine of.
func NewNoCapacityError(p Place, zonesWithRoom ...string) error {
	message := fmt.Sprintf("no %s is left in %s", p.Type, p.Zone)
	return &dstack.Error{Kind: dstack.NoCapacity, Message: message, Cause: &dstack.MachineFailure{
		Cause: dstack.FailureNoCapacity, Message: message, Scope: dstack.ScopeZone, Zones: zonesWithRoom,
	}}
}

// NewQuotaError is the error for a quota of an account that a launch would exceed.
func NewQuotaError(region, quota string, types ...string) error {
	message := fmt.Sprintf("the quota %q of the account in %s is used up", quota, region)
	return &dstack.Error{Kind: dstack.NoCapacity, Message: message, Cause: &dstack.MachineFailure{
		Cause: dstack.FailureQuota, Message: message, Scope: dstack.ScopeTypes, Types: types,
	}}
}

// NewThrottledError is the error for too many requests.
func NewThrottledError(retryAfter time.Duration) error {
	message := "the cloud limits the rate of requests"
	return &dstack.Error{Kind: dstack.Unavailable, Message: message, Cause: &dstack.MachineFailure{
		Cause: dstack.FailureBroken, Message: message, Scope: dstack.ScopeBackend, RetryAfter: retryAfter,
	}}
}

// NewUnauthorizedError is the error for credentials that are wrong or expired.
func NewUnauthorizedError() error {
	message := "the cloud refuses the credentials"
	return &dstack.Error{Kind: dstack.Unauthorized, Message: message, Cause: &dstack.MachineFailure{
		Cause: dstack.FailureMisconfigured, Message: message, Scope: dstack.ScopeBackend,
	}}
}

// NewForbiddenError is the error for a right that the credentials lack.
func NewForbiddenError(action string) error {
	message := "the credentials lack the right " + action
	return &dstack.Error{Kind: dstack.Forbidden, Message: message, Cause: &dstack.MachineFailure{
		Cause: dstack.FailureMisconfigured, Message: message, Scope: dstack.ScopeBackend,
	}}
}

// NewTimeoutError is the error for a request without an answer: whether it was done is not known.
func NewTimeoutError() error {
	return &dstack.Error{Kind: dstack.Unavailable, Message: "the cloud did not answer in time"}
}

func newConflictError(message string) error {
	return &dstack.Error{Kind: dstack.Conflict, Message: message}
}
