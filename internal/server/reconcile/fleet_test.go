package reconcile_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// applyFleet applies a cloud fleet called pool.
func (r *rig) applyFleet(configuration string) {
	r.t.Helper()
	var c spec.Fleet
	if err := json.Unmarshal([]byte(configuration), &c); err != nil {
		r.t.Fatal(err)
	}
	c.Name = "pool"
	f := dstack.Fleet{Project: r.project.ID, Name: "pool", Configuration: c, Author: "admin"}
	if _, err := r.store.ApplyCloudFleet(r.t.Context(), f, time.Now()); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
}

// pool returns the cloud fleet, and whether it exists.
func (r *rig) pool() (dstack.Fleet, bool) {
	f, err := r.store.FindFleet(r.t.Context(), r.project.ID, "pool")
	if err != nil && dstack.KindOf(err) != dstack.NotFound {
		r.t.Fatal(err)
	}
	return f, err == nil
}

// countUp returns how many machines of the fleet are up.
func (r *rig) countUp() (n int) {
	f, _ := r.pool()
	for _, m := range f.Instances {
		if m.Instance.Status == dstack.InstanceUp {
			n++
		}
	}
	return n
}

const large = `"resources": {"cpu": "4.."}`

func TestFleetPass_KeepsMachinesReadyAndGivesThemBack(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	r.applyFleet(`{"type": "fleet", "nodes": {"min": 1, "max": 3, "target": 2}, "placement": "cluster", "idle_duration": 1, ` + large + `}`)
	r.waitFor("two machines up, as the target says", func() bool { return r.countUp() == 2 })
	for _, request := range c.Existing() {
		if request.Offer.Type != "cheap" || request.Offer.Fleet != "pool" || request.Labels["dstack-fleet"] != "pool" || request.Group == "" {
			t.Errorf("%+v", request)
		}
	}
	r.waitFor("one machine left, the minimum, after the idle time", func() bool { return len(c.Existing()) == 1 && r.countUp() == 1 })

	if c.Created() != 2 {
		t.Errorf("%d machines were created for two: one did not stay", c.Created())
	}
	left := slices.Collect(maps.Keys(c.Existing()))[0]
	c.Fail(left, dstack.MachineFailure{Cause: dstack.FailureBroken, Message: "it burns"})
	r.waitFor("replaced", func() bool {
		if _, isThere := c.Existing()[left]; isThere { // without replicas, it is looked at rarely; the first look may use an older listing
			if err := r.store.MarkDue(t.Context(), store.Instances, string(left), time.Now()); err != nil {
				t.Fatal(err)
			}
			return false
		}
		return r.countUp() == 1
	})

	if err := r.store.DeleteFleets(t.Context(), r.project.ID, []string{"pool"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.wake()
	r.waitFor("gone", func() bool { _, isThere := r.pool(); return !isThere && len(c.Existing()) == 0 })
}

// A fleet without capacity says why, tries other offers, and gets its machines as soon as there are some.
func TestFleetPass_WithoutCapacity(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	none := &dstack.Error{Kind: dstack.NoCapacity, Message: "none is left"}
	c.SetFaults(backendtest.Faults{Create: none})
	r.begin(lifecycle.Limits{})
	r.applyFleet(`{"type": "fleet", "nodes": 1, "max_price": 1.5, ` + large + `}`)
	r.waitFor("exhausted", func() bool { f, _ := r.pool(); return f.Rounds.IsExhausted })
	if f, _ := r.pool(); !strings.Contains(string(f.Rounds.Reason), "none is left") || c.Calls().Create != 1 {
		t.Errorf("%q after %d requests", f.Rounds.Reason, c.Calls().Create)
	}
	c.SetFaults(backendtest.Faults{CreateOf: map[string]error{"cheap": none}})
	r.applyFleet(`{"type": "fleet", "nodes": 1, ` + large + `}`)
	r.waitFor("rented", func() bool { return r.countUp() == 1 && slices.Equal(c.types(), []string{"expensive"}) })
	if f, _ := r.pool(); f.Rounds.Reason != "" || !f.Rounds.ReachedTarget {
		r.waitFor("said so", func() bool { f, _ := r.pool(); return f.Rounds.Reason == "" && f.Rounds.ReachedTarget })
	}
}

// A server that is killed at any moment rents no machine twice, and forgets none.
func TestFleetPass_KilledServer(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{Listed: 30 * time.Millisecond, Running: 60 * time.Millisecond})
	r.begin(lifecycle.Limits{})
	r.applyFleet(`{"type": "fleet", "nodes": 3, ` + large + `}`)
	for range 5 {
		time.Sleep(15 * time.Millisecond)
		r.kill()
		r.begin(lifecycle.Limits{})
	}
	r.waitFor("up", func() bool { return r.countUp() == 3 })
	f, _ := r.pool()
	nums := []int{}
	for _, m := range f.Instances {
		nums = append(nums, m.Num)
	}
	if c.Created() != 3 || !slices.Equal(nums, []int{0, 1, 2}) {
		t.Errorf("%d machines were created; the numbers are %v", c.Created(), nums)
	}
}

// A run that names a fleet adds machines to it as long as the fleet may have more; they stay when the run ends, as long as
// its idle time says.
func TestFleetPass_RunsAddMachines(t *testing.T) {
	r := newRig(t)
	c := r.addCloud("cloud", backendtest.Latency{})
	r.begin(lifecycle.Limits{})
	r.applyFleet(`{"type": "fleet", "nodes": {"min": 0, "max": 2}, "idle_duration": "1h", "instance_types": ["expensive"], ` + large + `}`)
	inFleet := func(name string, replicas int) dstack.RunID {
		return r.submitLike(func(s *spec.Service) {
			s.Replicas, s.Fleets = spec.Replicas{Min: replicas, Max: replicas}, []string{"pool"}
		}, name)
	}
	id := inFleet("web", 3)
	r.until(id, "two are ready", ready(2))
	if f, _ := r.pool(); len(f.Instances) != 2 || !slices.Equal(c.types(), []string{"expensive", "expensive"}) {
		t.Errorf("%+v, %v", f.Instances, c.types())
	}
	if err := r.store.StopRun(t.Context(), id, dstack.StopGraceful, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.passes.Wake()
	r.until(id, "stopped", finished)
	if r.countUp() != 2 || c.Created() != 2 {
		t.Errorf("%d machines are up of %d", r.countUp(), c.Created())
	}
}
