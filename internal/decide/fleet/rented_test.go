package fleet_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/fleet"
	"dstack/internal/dstack"
)

// rented returns a fleet with this configuration, without its type.
func rented(t *testing.T, configuration string, machines ...dstack.FleetInstance) dstack.Fleet {
	t.Helper()
	f := dstack.Fleet{ID: "f", Name: "pool", Project: "p"}
	if err := json.Unmarshal([]byte(`{"type": "fleet", "name": "pool", `+configuration+`}`), &f.Configuration); err != nil {
		t.Fatal(err)
	}
	f.Instances = machines
	f.Rounds.ReachedTarget = true
	return f
}

func machine(num int, status dstack.InstanceStatus, change ...func(*dstack.FleetInstance)) dstack.FleetInstance {
	m := dstack.FleetInstance{Num: num, CreatedAt: now.Add(-2 * time.Hour), Instance: dstack.Instance{ID: dstack.InstanceID(fmt.Sprint("m", num)), Status: status,
		Since: now.Add(-2 * time.Hour), Offer: dstack.Offer{Key: "aws", Region: "r", Zone: "r-a", Type: "small", Price: 1}}}
	if status == dstack.InstanceUp || status == dstack.InstanceAway {
		m.Instance.EmptySince, m.Instance.LastResponseAt = now.Add(-time.Hour), now
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func busy(m *dstack.FleetInstance)   { m.Replicas, m.Instance.EmptySince = 1, time.Time{} }
func dear(m *dstack.FleetInstance)   { m.Instance.Offer.Price = 5 }
func leaves(m *dstack.FleetInstance) { m.IsLeaving = true }
func drains(m *dstack.FleetInstance) { m.IsDraining = true }
func taken(m *dstack.FleetInstance)  { m.Instance.TakenBackAt = now }
func failed(m *dstack.FleetInstance) {
	m.Instance.LastResponseAt, m.Instance.Reason = time.Time{}, "none is left in r-a"
}

func place(key, zone, name string) dstack.Placement {
	return dstack.Placement{Offer: dstack.Offer{Key: key, Region: "r", Zone: zone, Type: name}}
}

func describeStep(step fleet.RentedStep) (text string) {
	for _, o := range step.Rent {
		text += "+" + o.Zone + "/" + o.Type + " "
	}
	for _, d := range step.Leave {
		text += "-" + string(d.Instance) + " "
	}
	if step.IsGone {
		text += "gone"
	}
	return strings.TrimSpace(text)
}

func TestDecideRented(t *testing.T) {
	up, creating, deleting := dstack.InstanceUp, dstack.InstanceCreating, dstack.InstanceDeleting
	offers := []dstack.Placement{place("aws", "r-b", "cheap"), place("aws", "r-a", "small")}
	for _, c := range []struct {
		name, configuration string
		machines            []dstack.FleetInstance
		change              func(*fleet.RentedFacts)
		want                string
	}{
		{"the minimum is rented", `"nodes": "2..4"`, nil, nil, "+r-b/cheap +r-b/cheap"},
		{"the target is rented after the fleet was applied", `"nodes": {"min": 1, "target": 3, "max": 4}`, nil,
			func(f *fleet.RentedFacts) { f.Fleet.Rounds.ReachedTarget = false }, "+r-b/cheap +r-b/cheap +r-b/cheap"},
		{"and not again", `"nodes": {"min": 1, "target": 3, "max": 4}`, []dstack.FleetInstance{machine(0, up)}, nil, ""},
		{"machines that come up count", `"nodes": 2`, []dstack.FleetInstance{machine(0, creating), machine(1, up)}, nil, ""},
		{"a failed rental is replaced", `"nodes": 1`, []dstack.FleetInstance{machine(0, deleting, failed)}, nil, "+r-b/cheap"},
		{"a machine that leaves is replaced", `"nodes": 1`, []dstack.FleetInstance{machine(0, up, leaves)}, nil, "+r-b/cheap"},
		{"a spot machine that is taken back is replaced at once", `"nodes": 1`, []dstack.FleetInstance{machine(0, up, busy, taken)}, nil, "+r-b/cheap"},
		{"not before the next round", `"nodes": 1`, nil, func(f *fleet.RentedFacts) { f.Fleet.Rounds.NextAt = now.Add(time.Second) }, ""},
		{"a clock that was set back does not stop it", `"nodes": 1`, nil, func(f *fleet.RentedFacts) { f.Fleet.Rounds.NextAt = now.Add(time.Hour) }, "+r-b/cheap"},
		{"a cluster stays in its zone", `"nodes": 2, "placement": "cluster"`, []dstack.FleetInstance{machine(0, up)}, nil, "+r-a/small"},
		{"a new cluster is in one zone", `"nodes": 2, "placement": "cluster"`, nil, nil, "+r-b/cheap +r-b/cheap"},
		{"what cannot be had is left out", `"nodes": 1`, nil, func(f *fleet.RentedFacts) { f.Placements[0].Offer.Availability = dstack.NoQuota }, "+r-a/small"},
		{"existing machines are not rented", `"nodes": 1`, nil, func(f *fleet.RentedFacts) { f.Placements[0].Offer.OwnedInstance = "box" }, "+r-a/small"},
		{"nothing beyond a budget", `"nodes": 1`, nil, func(f *fleet.RentedFacts) { f.Refusal = "the budget is used up" }, ""},

		{"idle beyond the minimum", `"nodes": "1..4", "idle_duration": "30m"`, []dstack.FleetInstance{machine(0, up), machine(1, up)}, nil, "-m1"},
		{"the dearest first", `"nodes": "1..4", "idle_duration": "30m"`, []dstack.FleetInstance{machine(0, up, dear), machine(1, up)}, nil, "-m0"},
		{"the minimum stays, however idle", `"nodes": 1, "idle_duration": "30m"`, []dstack.FleetInstance{machine(0, up)}, nil, ""},
		{"not idle for long enough", `"nodes": "0..4", "idle_duration": "2h"`, []dstack.FleetInstance{machine(0, up)}, nil, ""},
		{"three days by default", `"nodes": "0..4"`, []dstack.FleetInstance{machine(0, up)}, nil, ""},
		{"the idle time counts from when it was up", `"nodes": "0..4", "idle_duration": "30m"`,
			[]dstack.FleetInstance{machine(0, up, func(m *dstack.FleetInstance) { m.Instance.Since = now.Add(-time.Minute) })}, nil, ""},
		{"idle machines are kept", `"nodes": "0..4", "termination_policy": "dont-destroy"`, []dstack.FleetInstance{machine(0, up)}, nil, ""},
		{"what runs replicas stays", `"nodes": "0..4", "idle_duration": "30m"`, []dstack.FleetInstance{machine(0, up, busy)}, nil, ""},

		{"too many: unused ones leave", `"nodes": 1`, []dstack.FleetInstance{machine(0, up), machine(1, up, busy), machine(2, up)}, nil, "-m2 -m0"},
		{"too many: all in use", `"nodes": 1`, []dstack.FleetInstance{machine(0, up, busy), machine(1, up, busy)}, nil, ""},
		{"too many: what drains, then what is not up yet", `"nodes": 1`, []dstack.FleetInstance{machine(0, up, drains), machine(1, creating), machine(2, up, dear)}, nil, "-m0 -m1"},

		{"deleted: all leave", `"nodes": 2`, []dstack.FleetInstance{machine(0, up), machine(1, up, busy), machine(2, deleting, leaves)},
			func(f *fleet.RentedFacts) { f.Fleet.IsDeleting = true }, "-m0 -m1"},
		{"deleted: gone", `"nodes": 2`, nil, func(f *fleet.RentedFacts) { f.Fleet.IsDeleting = true }, "gone"},
	} {
		seen := fleet.RentedFacts{Fleet: rented(t, c.configuration, c.machines...), Placements: append([]dstack.Placement{}, offers...)}
		if c.change != nil {
			c.change(&seen)
		}
		step := fleet.DecideRented(seen, now)
		if got := describeStep(step); got != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
		if step.Due.Before(now) || step.Due.After(now.Add(time.Minute)) {
			t.Errorf("%s: due at %s", c.name, step.Due)
		}
	}
}

func TestFindShortage(t *testing.T) {
	f := rented(t, `"nodes": 2`, machine(0, dstack.InstanceUp))
	if s := fleet.FindShortage(f, now); s.Missing != 1 || s.IsFinal {
		t.Errorf("before it was tried: %+v", s)
	}
	seen := fleet.RentedFacts{Fleet: f, Rejections: []dstack.Rejection{{Offer: dstack.Offer{Type: "small"}, Reason: "costs $0.71 an hour", Help: "write max_price: 0.71"}}}
	f.Rounds = fleet.DecideRented(seen, now).Rounds
	if s := fleet.FindShortage(f, now); !s.IsFinal || s.Reason != "no machine to rent suits: small costs $0.71 an hour; write max_price: 0.71" {
		t.Errorf("nothing suits: %+v", s)
	}
	waits := rented(t, `"nodes": 2, "retry": {"on_events": ["no-capacity"], "duration": "1h"}`)
	waits.Rounds = f.Rounds
	if fleet.FindShortage(waits, now).IsFinal || !fleet.FindShortage(waits, now.Add(2*time.Hour)).IsFinal {
		t.Error("the duration of retry does not count")
	}
	// Each round without an offer waits longer, up to five minutes.
	at, pause := now, time.Duration(0)
	for range 8 {
		seen.Fleet.Rounds = fleet.DecideRented(seen, at).Rounds
		next := seen.Fleet.Rounds.NextAt.Sub(at)
		if next < pause || next > 5*time.Minute {
			t.Errorf("waits %s after %s", next, pause)
		}
		at, pause = seen.Fleet.Rounds.NextAt, next
	}
	if pause != 5*time.Minute {
		t.Errorf("the longest pause is %s", pause)
	}
	seen.Fleet.Instances = append(seen.Fleet.Instances, machine(1, dstack.InstanceUp))
	if rounds := fleet.DecideRented(seen, at).Rounds; rounds != (dstack.FleetRounds{ReachedTarget: true}) {
		t.Errorf("with all machines: %+v", rounds)
	}
}

func TestBuildRequirements_ProfileAndConfiguration(t *testing.T) {
	f := rented(t, `"nodes": 1, "regions": ["north"], "spot_policy": "spot"`)
	price := 2.5
	f.Profile.MaxPrice, f.Profile.Regions, f.Profile.SpotPolicy = &price, []string{"south"}, "on-demand"
	need := fleet.BuildRequirements(f)
	if *need.MaxPrice != 2.5 || need.Regions[0] != "north" || !*need.Spot || !need.NeedsImage {
		t.Errorf("%+v", need)
	}
	cheaper := 1.0
	narrow := fleet.NarrowRequirements(dstack.Requirements{MaxPrice: &cheaper, Regions: []string{"east"}, Fleets: []string{"pool"}}, f)
	if *narrow.MaxPrice != 1 || narrow.Regions[0] != "east" || !*narrow.Spot || narrow.Fleets != nil {
		t.Errorf("%+v", narrow)
	}
}

// Random histories: rentals fail, machines break, runs come and go, and the fleet is changed. What runs replicas never
// leaves, no fleet grows beyond its limit by itself, and without faults each gets what it should.
func TestDecideRented_Histories(t *testing.T) {
	for seed := range uint64(1000) {
		random := rand.New(rand.NewPCG(seed, 16))
		f := rented(t, `"nodes": "1..3", "idle_duration": "10m"`)
		f.Rounds = dstack.FleetRounds{}
		at, next := now, 0
		for step := range 120 {
			isCalm := step >= 60
			if step == 60 {
				least := random.IntN(3)
				f.Configuration = rented(t, fmt.Sprintf(`"nodes": {"min": %d, "max": %d}, "idle_duration": "10m"`, least, least+1+random.IntN(2))).Configuration
			}
			seen := fleet.RentedFacts{Fleet: f}
			if isCalm || random.IntN(3) > 0 {
				seen.Placements = []dstack.Placement{place("aws", "r-a", "small")}
			}
			before := len(f.Instances)
			decided := fleet.DecideRented(seen, at)
			for _, o := range decided.Rent {
				f.Instances = append(f.Instances, dstack.FleetInstance{Num: fleet.NextNum(f), Instance: dstack.Instance{ID: dstack.InstanceID(fmt.Sprint(next)),
					Offer: o, Status: dstack.InstanceCreating, Since: at}})
				next++
			}
			for _, d := range decided.Leave {
				for i := range f.Instances {
					if m := &f.Instances[i]; m.Instance.ID == d.Instance {
						if m.Replicas > 0 {
							t.Fatalf("seed %d: a machine with replicas leaves: %s", seed, d.Reason)
						}
						m.IsLeaving = true
					}
				}
			}
			f.Rounds = decided.Rounds
			if _, _, most, _ := f.Configuration.NodeCounts(); len(decided.Rent) > 0 && before+len(decided.Rent) > most+6 {
				t.Fatalf("seed %d: %d machines", seed, before)
			}
			at = at.Add(time.Duration(1+random.IntN(120)) * time.Second)
			f.Instances = advance(f.Instances, random, at, isCalm)
		}
		least, _, most, _ := f.Configuration.NodeCounts()
		if n := len(f.Instances); n < least || n > most {
			t.Fatalf("seed %d: %d machines of %d..%d", seed, n, least, most)
		}
	}
}

// advance returns the machines a moment later.
func advance(machines []dstack.FleetInstance, random *rand.Rand, at time.Time, isCalm bool) (left []dstack.FleetInstance) {
	for _, m := range machines {
		i := &m.Instance
		isFault := !isCalm && random.IntN(6) == 0
		switch {
		case i.Status == dstack.InstanceDeleting && random.IntN(2) == 0:
			continue
		case i.Status == dstack.InstanceDeleting:
		case m.IsLeaving && m.Replicas == 0 || isFault:
			i.Status, i.Since, m.Replicas = dstack.InstanceDeleting, at, 0
		case i.Status == dstack.InstanceCreating:
			i.Status, i.Since, i.LastResponseAt, i.EmptySince = dstack.InstanceUp, at, at, at
		case m.Replicas > 0 && (isCalm || random.IntN(3) == 0):
			m.Replicas, i.EmptySince = 0, at
		case !isCalm && !m.IsLeaving && random.IntN(3) == 0:
			m.Replicas, i.EmptySince = 1, time.Time{}
		}
		left = append(left, m)
	}
	return left
}
