// Package backend has the interface between the server and the places that
// machines come from, and the set of configured backends. Package
// backend/backendtest tests that a backend follows the interface's contract.
package backend

import (
	"context"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Backend provides machines: it rents them, or lists machines that the user
// owns. A machine is identified by the instance that it was created for.
//
// Every method may be called by several goroutines at once, and again with the
// same arguments after an error or a restart of the server. Each returns within
// a few seconds, or when ctx ends; none waits for a machine to boot or to go
// away. A backend touches only machines that it created for its installation or
// that the user configured. The code that opens a backend closes it; the
// interface has no method for it.
//
// Errors are of these kinds of dstack.Error. Any other error counts as
// Unavailable.
//
//   - NoCapacity: Create did not get the offered machine, because none is left
//     or a quota is used up. The caller tries another offer.
//   - Unauthorized, Forbidden: the credentials are wrong, or lack a permission.
//     No offer of the backend helps until the user changes its configuration.
//   - Unavailable: the backend could not be reached, or limits the rate of
//     calls. The caller repeats the call later.
//   - NotFound: Engine was asked for a machine that does not exist.
type Backend interface {
	// Offers returns the machines that could be created, and the owned machines,
	// whether they are in use or not. need helps to ask for fewer: Offers must
	// return every offer that meets it, and may return others. Offer.Key is set
	// by Set.
	Offers(ctx context.Context, need dstack.Requirements) ([]dstack.Offer, error)

	// Create requests the machine of an instance and returns at once. It does
	// nothing if the instance has a machine already, in any state: repeated, it
	// makes one machine, even if an earlier call timed out. If it fails, the
	// machine may have been created nevertheless. For an owned machine it does
	// nothing.
	Create(ctx context.Context, request CreateRequest) error

	// Machines returns every machine that the backend created or owns, including
	// machines that no instance is known for, so that leaks can be found. A machine
	// that has been created may be absent for up to three minutes. Apart from
	// that, absence means that the machine no longer exists and costs nothing.
	// A listing that is incomplete is an error. The caller does not change the map.
	Machines(ctx context.Context) (map[dstack.InstanceID]dstack.Machine, error)

	// Delete requests the deletion of a machine, in any state, and returns at
	// once; Machines lists the machine until it is gone. It is no error if the
	// machine does not exist. For an owned machine it does nothing.
	Delete(ctx context.Context, id dstack.InstanceID) error

	// Engine returns the engine that runs replicas on a machine. The backend
	// keeps it for later calls, and closes it.
	Engine(ctx context.Context, id dstack.InstanceID) (engine.Engine, error)
}

// Unusables is implemented by backends of owned machines that cannot be used at times; ask
// with a type assertion on a Backend. The rules of Backend for goroutines, repeated calls,
// time and kinds of errors apply.
type Unusables interface {
	// ListUnusable returns the machines of a project that Offers leaves out, because a check
	// of theirs failed or they do not answer, and why.
	ListUnusable(ctx context.Context, project dstack.ProjectID) ([]dstack.Rejection, error)
}

// CreateRequest describes a machine to create.
type CreateRequest struct {
	Instance dstack.InstanceID
	Offer    dstack.Offer
	// Labels are shown by the backend's own tools. Backends that allow fewer
	// characters replace the others. LabelInstance is always set.
	Labels map[string]string
	// SSHPublicKey is a line of authorized_keys that may log in to the machine;
	// empty: none.
	SSHPublicKey string
	// Volumes are to be attached to the machine when it boots. They are active,
	// and of the offer's backend and region. A backend without Volumes gets none.
	Volumes []dstack.Volume
	// Group names machines that are to be close to each other, with a fast network between them; empty: none. They are
	// of one zone. A backend without such groups ignores it.
	Group string
}

// The labels of a machine.
const (
	LabelInstance = "dstack-instance" // ID of the instance
	LabelProject  = "dstack-project"  // name of the project that it was created for
	LabelRun      = "dstack-run"      // name of the run that it was created for
	LabelFleet    = "dstack-fleet"    // name of the fleet that it belongs to
)
