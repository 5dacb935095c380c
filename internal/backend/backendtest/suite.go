// Package backendtest tests that a backend follows the contracts of
// backend.Backend and backend.Volumes. All backends pass the same tests. Fake is
// a backend for the tests of other packages; it passes them, too.
package backendtest

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/dstack"
)

// Fixture describes a backend to be tested.
type Fixture struct {
	// Open opens the backend. Opened again, it has the same machines and volumes,
	// as for a restarted server. The fixture closes what it opens with t.Cleanup.
	Open func(t *testing.T) backend.Backend
	// Timeout limits how long the backend may take to create or delete a machine
	// or a volume.
	Timeout time.Duration
	// RefuseCreation makes the next creations fail with an error kind that the
	// contract names, until it is called with an empty kind. nil: the backend
	// lacks Refusals.
	RefuseCreation func(t *testing.T, kind dstack.Kind)
	// CreateDisk creates a disk as the user would, and returns its ExternalID.
	// nil: the backend lacks ExternalDisks.
	CreateDisk func(t *testing.T) (externalID string)
	// Volume has the region and the configuration of the volumes that the cases create; zero: the region of a rented machine.
	Volume dstack.Volume
	// Lacks are the features that the backend does not have. The cases that need
	// them do not apply. A case that needs another feature that the backend does
	// not have fails.
	Lacks []Feature
}

// Feature is something that some backends do not have.
type Feature string

// Every feature that a backend may lack.
const (
	RentedMachines Feature = "rented machines"
	OwnedMachines  Feature = "owned machines"
	Refusals       Feature = "refused creations"
	Volumes        Feature = "volumes"
	ExternalDisks  Feature = "external disks"
	Attachments    Feature = "volumes that have to be attached"
)

// notApplicable ends a case that needs a feature that its backend lacks.
type notApplicable struct{ needs Feature }

// Run tests a backend. It calls newFixture for each case.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	for _, c := range contractCases {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				switch p := recover().(type) {
				case nil:
				case notApplicable:
					t.Logf("does not apply: the backend lacks %s", p.needs)
				default:
					panic(p)
				}
			}()
			f := newFixture(t)
			h := &harness{t: t, f: f, Backend: f.Open(t)}
			t.Cleanup(h.cleanUp)
			c.run(h)
		})
	}
}

// harness runs one case.
type harness struct {
	t *testing.T
	f Fixture
	backend.Backend
	instances []dstack.InstanceID // to delete at the end of the case
	volumes   []dstack.Volume     // to delete at the end of the case
}

// reopen opens the backend again, as a restarted server does. What the case has created is deleted before that backend closes.
func (h *harness) reopen() {
	h.Backend = h.f.Open(h.t)
	h.t.Cleanup(h.cleanUp)
}

func (h *harness) ctx() context.Context { return context.Background() }

func (h *harness) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) expectKind(err error, kind dstack.Kind) {
	h.t.Helper()
	if err == nil || dstack.KindOf(err) != kind {
		h.t.Errorf("the error is %v, want one of kind %s", err, kind)
	}
}

func (h *harness) cleanUp() {
	if h.f.RefuseCreation != nil {
		h.f.RefuseCreation(h.t, "")
	}
	for _, id := range h.instances {
		if err := h.Delete(h.ctx(), id); err != nil {
			h.t.Errorf("delete at the end of the case: %v", err)
		}
	}
	for _, id := range h.instances {
		h.waitUntilGone(id)
	}
	for _, v := range h.volumes {
		if err := h.Backend.(backend.Volumes).DeleteVolume(h.ctx(), v); err != nil {
			h.t.Errorf("delete a volume at the end of the case: %v", err)
		}
	}
	h.instances, h.volumes = nil, nil
}

// require ends the case if the backend does not have a feature: the case does
// not apply if the fixture says that the backend lacks it, and fails otherwise.
func (h *harness) require(needs Feature, has bool) {
	h.t.Helper()
	switch lacks := slices.Contains(h.f.Lacks, needs); {
	case has && lacks:
		h.t.Fatalf("the fixture says that the backend lacks %s, but it has them", needs)
	case lacks:
		panic(notApplicable{needs})
	case !has:
		h.t.Fatalf("the backend has no %s, and its fixture does not say so", needs)
	}
}

// findOffer returns a rented or an owned offer.
func (h *harness) findOffer(owned bool) dstack.Offer {
	h.t.Helper()
	offers, err := h.Offers(h.ctx(), dstack.Requirements{})
	h.check(err)
	i := slices.IndexFunc(offers, func(o dstack.Offer) bool { return (o.OwnedInstance != "") == owned })
	needs := RentedMachines
	if owned {
		needs = OwnedMachines
	}
	h.require(needs, i >= 0)
	return offers[i]
}

var lastID atomic.Int64

func newID(kind string) string {
	return fmt.Sprintf("%s-%d-%d", kind, time.Now().UnixNano(), lastID.Add(1))
}

// newRequest returns a request for a new machine. The case deletes the machine
// at its end.
func (h *harness) newRequest() backend.CreateRequest {
	h.t.Helper()
	offer := h.findOffer(false)
	id := dstack.InstanceID(newID("suite"))
	h.instances = append(h.instances, id)
	return backend.CreateRequest{
		Instance: id, Offer: offer, SSHPublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGqSuite suite",
		Labels: map[string]string{backend.LabelInstance: string(id), backend.LabelProject: "Main Project", backend.LabelRun: "suite"},
	}
}

// startMachine creates a machine and waits until it runs.
func (h *harness) startMachine() (dstack.InstanceID, dstack.Machine) {
	h.t.Helper()
	request := h.newRequest()
	h.check(h.Create(h.ctx(), request))
	return request.Instance, h.waitUntilRunning(request.Instance)
}

func (h *harness) waitUntilRunning(id dstack.InstanceID) (m dstack.Machine) {
	h.t.Helper()
	h.waitFor("running", func() bool {
		m = h.list()[id]
		return m.IsAlive()
	})
	return m
}

func (h *harness) waitUntilGone(id dstack.InstanceID) {
	h.t.Helper()
	h.waitFor("gone", func() bool {
		_, listed := h.list()[id]
		return !listed
	})
}

func (h *harness) list() map[dstack.InstanceID]dstack.Machine {
	h.t.Helper()
	machines, err := h.Machines(h.ctx())
	h.check(err)
	return machines
}

// waitFor polls a condition until it holds, for Fixture.Timeout at most.
func (h *harness) waitFor(what string, condition func() bool) {
	h.t.Helper()
	interval := max(h.f.Timeout/1000, time.Millisecond)
	for deadline := time.Now().Add(h.f.Timeout); !condition(); time.Sleep(interval) {
		if time.Now().After(deadline) {
			h.t.Fatalf("not %s within %s", what, h.f.Timeout)
		}
	}
}

// newOwnedRequest returns a request for a machine that exists already.
func (h *harness) newOwnedRequest(o dstack.Offer) backend.CreateRequest {
	return backend.CreateRequest{
		Instance: o.OwnedInstance, Offer: o, Labels: map[string]string{backend.LabelInstance: string(o.OwnedInstance)},
	}
}
