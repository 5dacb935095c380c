package reconcile_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/server/reconcile"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// cloud is a fake backend that rents machines, each with its own engine.
type cloud struct {
	*backendtest.Fake
	mu      sync.Mutex
	engines map[dstack.InstanceID]*fakeEngine
}

// addCloud adds a backend with a cheap and an expensive offer, both too large for
// the owned machine.
func (r *rig) addCloud(key string, latency backendtest.Latency) *cloud {
	c := &cloud{engines: map[dstack.InstanceID]*fakeEngine{}}
	newOffer := func(name string, price float64) dstack.Offer {
		return dstack.Offer{
			Backend: "cloud", Region: "north", Type: name, Price: price, Engine: containers,
			Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 32 << 10, DiskMiB: 200 << 10},
		}
	}
	c.Fake = backendtest.NewFake(backendtest.FakeOptions{
		Latency: latency, Offers: []dstack.Offer{newOffer("cheap", 1), newOffer("expensive", 2)}, NewEngine: c.newEngine,
	})
	r.set.Add("main", key, c)
	return c
}

func (c *cloud) newEngine(id dstack.InstanceID) engine.Engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engines[id] = newFakeEngine()
	return c.engines[id]
}

// types returns the instance types of the existing machines, sorted.
func (c *cloud) types() (types []string) {
	for _, request := range c.Existing() {
		types = append(types, request.Offer.Type)
	}
	slices.Sort(types)
	return types
}

// submitLarge submits a service whose replicas do not fit on the owned machine.
func (r *rig) submitLarge(replicas int) dstack.RunID {
	r.t.Helper()
	return r.submitLike(func(s *spec.Service) {
		cpus := 4
		s.Replicas = spec.Replicas{Min: replicas, Max: replicas}
		s.Resources.CPU, s.Resources.Explicit.CPU = spec.Range[int]{Min: &cpus}, true
	})
}

// waitFor waits for a condition that no run shows.
func (r *rig) waitFor(what string, condition func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s in time", what)
		}
	}
}

func TestPasses_RentedMachinesAppearLateAndEachIsCreatedOnce(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{Listed: 1500 * time.Millisecond, Running: 2 * time.Second})
	r.begin(lifecycle.Limits{})
	id := r.submitLarge(2)
	r.until(id, "ready", ready(2))
	if calls := c.Calls(); c.Created() != 2 || calls.Create < 3 {
		t.Errorf("%d machines after %d requests", c.Created(), calls.Create)
	}
	for id, request := range c.Existing() {
		if request.Labels["dstack-instance"] != string(id) || request.Labels["dstack-run"] != "web" || request.Labels["dstack-project"] != "main" {
			t.Errorf("labels %v", request.Labels)
		}
	}
}

func TestPasses_ARefusedCreationTriesTheNextOffer(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults backendtest.Faults
	}{
		{"no capacity", backendtest.Faults{CreateOf: map[string]error{
			"cheap": &dstack.Error{Kind: dstack.NoCapacity, Message: "no cheap machine is left"},
		}}},
		{"no capacity, and a machine nevertheless", backendtest.Faults{CreateAnyway: true, CreateOf: map[string]error{
			"cheap": &dstack.Error{Kind: dstack.NoCapacity, Message: "no cheap machine is left"},
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			cloud := r.addCloud("cloud", backendtest.Latency{})
			cloud.SetFaults(c.faults)
			r.begin(lifecycle.Limits{})
			r.until(r.submitLarge(1), "ready", ready(1))
			r.waitFor("on the expensive machine alone", func() bool { return slices.Equal(cloud.types(), []string{"expensive"}) })
		})
	}
}

func TestPasses_WrongCredentialsTryTheNextBackend(t *testing.T) {
	r := newRig(t)
	wrong, right := r.addCloud("wrong", backendtest.Latency{}), r.addCloud("right", backendtest.Latency{})
	wrong.SetFaults(backendtest.Faults{Create: &dstack.Error{Kind: dstack.Unauthorized, Message: "the key is wrong"}})
	r.begin(lifecycle.Limits{})
	r.until(r.submitLarge(3), "ready", ready(3))
	if n := len(right.types()); wrong.Created() != 0 || n != 3 {
		t.Errorf("%d machines of the backend with the wrong key, %d of the other", wrong.Created(), n)
	}
}

func TestPasses_WithoutAnyCapacityTheRunFailsAndSaysWhy(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	c.SetFaults(backendtest.Faults{Create: &dstack.Error{Kind: dstack.NoCapacity, Message: "no machine is left in north"}})
	r.begin(lifecycle.Limits{PlaceTimeout: 500 * time.Millisecond})
	w := r.until(r.submitLarge(1), "failed", finished)
	if calls := c.Calls(); !strings.Contains(string(w.Run.Reason), "no machine is left in north") || calls.Create != 2 {
		t.Errorf("%d requests, the reason is %q", calls.Create, w.Run.Reason)
	}
}

func TestPasses_AFailedMachineIsReplaced(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	id := r.submitLarge(1)
	first := r.until(id, "ready", ready(1)).Replicas[0].Instance
	c.Fail(first, dstack.MachineFailure{Cause: dstack.FailurePreempted, Message: "reclaimed"})
	w := r.until(id, "ready elsewhere", func(w store.RunDetails) bool { return readyCount(w) == 1 && w.Replicas[0].Instance != first })
	if i := w.Instances[w.Replicas[0].Instance]; i.Offer.Type != "expensive" {
		t.Errorf("it is on %+v", i.Offer)
	}
	r.waitFor("deleted", func() bool { return !slices.Contains(slices.Collect(maps.Keys(c.Existing())), first) })
}

// A deletion that is accepted and not done is repeated.
func TestPasses_AMachineIsDeletedUntilItIsGone(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	id := r.submitLarge(1)
	first := r.until(id, "ready", ready(1)).Replicas[0].Instance
	c.SetFaults(backendtest.Faults{IgnoreDeletes: true})
	c.Fail(first, dstack.MachineFailure{Cause: dstack.FailureBroken})
	r.waitFor("asked for twice", func() bool { return c.Calls().Delete > 1 })
	c.SetFaults(backendtest.Faults{})
	r.waitFor("deleted", func() bool { return !slices.Contains(slices.Collect(maps.Keys(c.Existing())), first) })
}

// A backend that does not list its machines loses none of them, and does not
// keep other backends' instances from being worked on.
func TestPasses_AFailedListingConcernsItsOwnBackend(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults backendtest.Faults
	}{
		{"it fails", backendtest.Faults{List: errors.New("rate limit exceeded")}},
		{"it hangs", backendtest.Faults{Hang: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.actTimeout = 300 * time.Millisecond
			cloud := r.addCloud("cloud", backendtest.Latency{})
			r.begin(lifecycle.Limits{})
			large := r.submitLarge(1)
			first := r.until(large, "ready", ready(1)).Replicas[0].Instance
			cloud.SetFaults(c.faults)
			isAsked := func(times int) func() bool {
				before := cloud.Calls().Machines
				return func() bool { return cloud.Calls().Machines > before+times }
			}
			r.waitFor("asked in vain", isAsked(2))
			small := r.submitLike(func(s *spec.Service) { s.Replicas = spec.Replicas{Min: 1, Max: 1} }, "small")
			r.until(small, "ready", ready(1))
			cloud.SetFaults(backendtest.Faults{})
			r.waitFor("asked again", isAsked(2))
			w := r.until(large, "ready", ready(1))
			if readyCount(w) != 1 || w.Replicas[0].Instance != first || cloud.Created() != 1 {
				t.Errorf("replicas %+v, %d machines", w.Replicas, cloud.Created())
			}
		})
	}
}

// An engine is synced also while its backend does not list its machines: the
// replicas of a stopped run end.
func TestPasses_AFailedListingDoesNotKeepAnEngineFromItsCommands(t *testing.T) {
	r := newRig(t)
	cloud := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	run := r.submitLarge(1)
	r.until(run, "ready", ready(1))
	cloud.SetFaults(backendtest.Faults{List: errors.New("rate limit exceeded")})
	if err := r.store.StopRun(t.Context(), run, dstack.StopGraceful, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.passes.Wake()
	r.until(run, "terminated", func(w store.RunDetails) bool { return w.Run.Status == dstack.RunTerminated })
}

func TestInstancePass_ListsABackendForManyInstancesAtOnce(t *testing.T) {
	const n = 200
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	w := r.until(r.submitLarge(n), "ready", ready(n))
	r.kill()
	for id := range w.Instances {
		if err := r.store.MarkDue(t.Context(), store.Instances, string(id), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.store.FreeLeases(t.Context(), "here"); err != nil {
		t.Fatal(err)
	}
	before, began := c.Calls().Machines, time.Now()
	stepped, err := r.passes.RunInstancePass(t.Context())
	if err != nil || stepped < n {
		t.Fatalf("%d instances in the pass, %v", stepped, err)
	}
	most := 1 + int(time.Since(began)/reconcile.MaxListingAge)
	if listed := c.Calls().Machines - before; listed > most || listed >= n/2 {
		t.Errorf("%d listings for %d instances", listed, stepped)
	}
}

// A machine that its run does not need any more is used by the next run of the project, before one is rented.
func TestPasses_AnIdleMachineIsUsedAgain(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	run := r.submitLarge(1)
	first := r.until(run, "ready", ready(1)).Replicas[0].Instance
	if err := r.store.StopRun(t.Context(), run, dstack.StopGraceful, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.passes.Wake()
	r.until(run, "terminated", finished)
	w := r.until(r.submitLarge(2), "ready", ready(2))
	if w.Replicas[0].Instance == w.Replicas[1].Instance || w.Replicas[0].Instance != first && w.Replicas[1].Instance != first || c.Created() != 2 {
		t.Errorf("replicas %+v, %d machines", w.Replicas, c.Created())
	}
}

// A project that may rent nothing says why; the machines that it has go on.
func TestPasses_NothingIsRentedOverTheBudget(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.whyNoRent = "the budget of 50 $ a day is spent"
	r.begin(lifecycle.Limits{PlaceTimeout: 200 * time.Millisecond})
	w := r.until(r.submitLarge(1), "failed", finished)
	if c.Calls().Create > 0 || !strings.Contains(string(w.Run.Reason), "the budget of 50 $ a day is spent") {
		t.Errorf("%d requests, the reason is %q", c.Calls().Create, w.Run.Reason)
	}
}
