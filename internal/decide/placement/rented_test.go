package placement_test

import (
	"slices"
	"strings"
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// newRentedOffer returns a machine with one GPU to rent in a zone.
func newRentedOffer(zone string, price float64, change ...func(o *dstack.Offer)) dstack.Offer {
	o := dstack.Offer{Backend: "aws", Key: "aws", Region: zone[:len(zone)-1], Zone: zone, Type: "g6.xlarge", Price: price, IsRemote: true,
		Hardware: dstack.Hardware{CPUs: 4, MemoryMiB: 16 << 10, DiskMiB: 100 << 10, GPUs: []dstack.GPU{{Name: "L4", Maker: "nvidia", MemoryMiB: 24 << 10}}},
		Engine:   dstack.EngineCapabilities{Name: "docker", Containers: true, Mounts: true}}
	for _, f := range change {
		f(&o)
	}
	return o
}

func asSpot(o *dstack.Offer) { o.Spot = true }

func withoutQuota(o *dstack.Offer) { o.Availability = dstack.NoQuota }

// names names placements: what they are, where and at which price.
func names(all []dstack.Placement) (names []string) {
	for _, p := range all {
		name := p.Offer.Zone
		if p.Offer.Spot {
			name += " spot"
		}
		if p.Offer.IsIdle {
			name += " idle"
		} else if p.Offer.OwnedInstance != "" {
			name = "owned"
		}
		names = append(names, name)
	}
	return names
}

// Machines to rent are tried by price over all backends and regions, spot before on demand at the same price; idle ones
// and owned ones come before them.
func TestRank_OrdersMachinesToRent(t *testing.T) {
	owned := newRentedOffer("lab1", 0, func(o *dstack.Offer) { o.OwnedInstance = "i1" })
	idle := placement.NewIdleOffer(dstack.Instance{ID: "i2", Backend: "aws", Offer: newRentedOffer("west1", 0)})
	offers := []dstack.Offer{newRentedOffer("east1", 2), newRentedOffer("east2", 1), newRentedOffer("east2", 1, asSpot), newRentedOffer("north1", 0.5, withoutQuota),
		newRentedOffer("south1", 1), idle, owned}
	for _, c := range []struct {
		name string
		need dstack.Requirements
		want string
	}{
		{"auto", dstack.Requirements{}, "owned, west1 idle, east2 spot, east2, south1, east1"},
		{"on demand", dstack.Requirements{Spot: new(false)}, "owned, west1 idle, east2, south1, east1"},
		{"spot", dstack.Requirements{Spot: new(true)}, "east2 spot"},
		{"creation_policy: reuse", dstack.Requirements{OwnedOnly: true}, "owned, west1 idle"},
		{"max_price", dstack.Requirements{MaxPrice: new(1.0)}, "owned, west1 idle, east2 spot, east2, south1"},
		{"zones", dstack.Requirements{Zones: []string{"EAST2", "east1"}}, "east2 spot, east2, east1"},
		{"a zone as a region", dstack.Requirements{Regions: []string{"east2", "south"}}, "east2 spot, east2, south1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, _ := placement.RankOffers(c.need, offers, nil)
			if got := strings.Join(names(found), ", "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// An idle machine is taken whole: it suits like a machine to rent, and nothing else is placed there.
func TestRank_AnIdleMachineIsTakenWhole(t *testing.T) {
	idle := placement.NewIdleOffer(dstack.Instance{ID: "i2", Backend: "aws", Offer: newRentedOffer("west1", 1, func(o *dstack.Offer) {
		o.Fleet, o.Hardware.GPUs = "fleet", append(o.Hardware.GPUs, o.Hardware.GPUs[0])
	})})
	two := spec.Range[int]{Min: new(2), Max: new(2)}
	need := dstack.Requirements{Resources: spec.Resources{GPU: &spec.GPU{Count: two}}, Fleets: []string{"fleet"}}
	found, rejected := placement.RankOffers(need, []dstack.Offer{idle}, nil)
	if len(found) != 1 || !found[0].Claim.Whole || len(found[0].Claim.GPUs) != 2 || found[0].Free != "idle" {
		t.Fatalf("found %+v, rejected %+v", found, rejected)
	}
	if keys := placement.ExclusiveKeys(found[0].Claim); !slices.Contains(keys, "machine") {
		t.Errorf("it claims %v", keys)
	}
	one := spec.Range[int]{Min: new(1), Max: new(1)}
	need.Resources.GPU.Count = one
	if found, _ := placement.RankOffers(need, []dstack.Offer{idle}, nil); len(found) > 0 {
		t.Errorf("a machine with two GPUs suits a replica that asks for one: %+v", found)
	}
}

// Machines that cannot be had are not tried. A plan lists them after the others.
func TestRanking_Unavailable(t *testing.T) {
	gone := func(o *dstack.Offer) { o.Availability = dstack.NotAvailable }
	offers := []dstack.Offer{newRentedOffer("east1", 3, withoutQuota), newRentedOffer("east2", 2), newRentedOffer("west1", 1, gone),
		newRentedOffer("west2", 1, gone, func(o *dstack.Offer) { o.Hardware.CPUs = 1 })}
	ranking := placement.Rank(dstack.Requirements{Resources: spec.Resources{CPU: spec.Range[int]{Min: new(2)}}}, offers, nil)
	if got := strings.Join(names(ranking.Placements(9)), ", "); got != "east2" {
		t.Errorf("%s can be had", got)
	}
	if got := strings.Join(names(ranking.Unavailable(9)), ", "); got != "west1, east1" {
		t.Errorf("%s cannot be had", got)
	}
	var reasons []string
	for _, r := range ranking.Rejections(9) {
		reasons = append(reasons, r.String())
	}
	want := []string{"the quota of the account in east does not allow it; ask aws for more, or allow other `regions` or `instance_types`",
		"west1 has none left; allow other `regions` or `instance_types`", "needs cpu: 2..; has 1: write cpu: 1.."}
	if got := strings.Join(reasons, "\n"); !strings.Contains(got, want[0]) || !strings.Contains(got, want[1]) || len(reasons) != 3 {
		t.Errorf("reasons:\n%s", got)
	}
}

// A plan has one line for each backend, region, type and market.
func TestRanking_MergeZones(t *testing.T) {
	offers := []dstack.Offer{newRentedOffer("east1", 2), newRentedOffer("east2", 1), newRentedOffer("east3", 1, asSpot), newRentedOffer("west1", 1),
		newRentedOffer("north1", 9), newRentedOffer("north2", 9)}
	ranking := placement.Rank(dstack.Requirements{MaxPrice: new(3.0)}, offers, nil)
	ranking.MergeZones()
	if got := strings.Join(names(ranking.Placements(9)), ", "); got != "east3 spot, east2, west1" || ranking.Suitable() != 3 {
		t.Errorf("got %s", got)
	}
	if ranking.Rejected() != 1 {
		t.Errorf("%d lines do not suit", ranking.Rejected())
	}
}

func TestRefuseNew(t *testing.T) {
	idle := placement.NewIdleOffer(dstack.Instance{ID: "i2", Backend: "aws", Offer: newRentedOffer("west1", 9)})
	allowed, rejected := placement.RefuseNew([]dstack.Offer{newRentedOffer("east1", 1), idle},
		func(float64) (why, help string) { return "the budget of 50 $ a day is spent", "" })
	if len(allowed) != 1 || !allowed[0].IsIdle || len(rejected) != 1 || rejected[0].Reason != "the budget of 50 $ a day is spent" {
		t.Errorf("allowed %+v, rejected %+v", allowed, rejected)
	}
}

// A budget is the advice where it alone keeps a machine from being rented, and zones are named once.
func TestAdviseRefused(t *testing.T) {
	sized := func(kind string, cpus int) func(o *dstack.Offer) {
		return func(o *dstack.Offer) { o.Type, o.Hardware.CPUs = kind, cpus }
	}
	offers := []dstack.Offer{
		newRentedOffer("east1a", 1, sized("small", 2)), newRentedOffer("east1a", 2, sized("big", 16)), newRentedOffer("east1b", 2, sized("big", 16)),
	}
	_, left := placement.RefuseNew(offers, func(price float64) (why, help string) { return "the budget is 1 $ a day", "raise it" })
	if left = placement.MergeRefused(left); len(left) != 2 {
		t.Errorf("%d are named: %+v", len(left), left)
	}
	var need dstack.Requirements
	need.Resources.CPU.Min = new(16)
	if advice := placement.AdviseRefused(need, left); advice != "big suits, but the budget is 1 $ a day; raise it" {
		t.Errorf("the advice is %q", advice)
	}
	need.Resources.CPU.Min = new(64)
	if advice := placement.AdviseRefused(need, left); advice != "" {
		t.Errorf("where no machine suits, the advice is %q", advice)
	}
}
