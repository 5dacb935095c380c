package cloud

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// A type is offered once in each zone that has it, with the disk that is asked for and GPUs as Docker names them.
func TestOffers_ZonesDisksAndGPUs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		time.Sleep(2 * availabilityPause)
		need := dstack.Requirements{InstanceTypes: []string{"gpu"}, Spot: new(false), Regions: []string{"north"}}
		size := spec.GB(200)
		need.Resources.Disk = &spec.Disk{Size: spec.Range[spec.GB]{Min: &size}}
		found, err := r.SearchOffers(t.Context(), need, 10)
		if err != nil {
			t.Fatal(err)
		}
		var zones []string
		for _, o := range found.Offers {
			if o.Type != "gpu" || o.Region != "north" || o.Spot {
				continue // nearly suits
			}
			zones = append(zones, o.Zone)
			if o.Hardware.DiskMiB != 200<<10 || len(o.Hardware.GPUs) != 1 || o.Hardware.GPUs[0].ID != "0" || o.Backend != "aws" || o.PriceSource != "test prices" ||
				!o.Engine.Containers || o.Price != 0.80 {
				t.Errorf("offer %+v", o)
			}
		}
		if !slices.Equal(zones, []string{"north-a", "north-b"}) {
			t.Errorf("zones %v", zones)
		}
	})
}

// A zone is found by its name in availability_zones and in regions, though prices are those of whole regions.
func TestOffers_OfNamedZones(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		time.Sleep(2 * availabilityPause)
		for name, need := range map[string]dstack.Requirements{
			"availability_zones": {InstanceTypes: []string{"gpu"}, Spot: new(false), Zones: []string{"north-B"}},
			"regions":            {InstanceTypes: []string{"gpu"}, Spot: new(false), Regions: []string{"north-b"}},
		} {
			found, err := r.SearchOffers(t.Context(), need, 10)
			if err != nil {
				t.Fatal(err)
			}
			placements, _ := placement.RankOffers(need, found.Offers, nil)
			if len(placements) != 1 || placements[0].Offer.Zone != "north-b" {
				t.Errorf("%s: %+v", name, placements)
			}
		}
	})
}

// What an account may not have is offered last, and is said.
func TestAvailability(t *testing.T) {
	a := availability{}
	a.set("north", regionAvailability{isKnown: true, zones: map[string][]string{"g6.xlarge": {"north-a"}, "c7.large": {"north-a", "north-b"}, "n1-standard-4": {"north-a"}}, quotas: []cloud.Quota{
		{Name: "G", Types: []string{"g6.*"}, CPUs: 0}, {Name: "standard", Types: []string{"c7.*"}, CPUs: 64}, {Name: "standard spot", Types: []string{"c7.*"}, Spot: true, CPUs: 1},
		{Name: "T4", Types: []string{"n1-*"}, IsGPU: true, GPU: "T4", CPUs: 1}, {Name: "V100", Types: []string{"n1-*"}, IsGPU: true, GPU: "V100", CPUs: 0},
	}})
	gpus := func(name string, count int) dstack.Hardware {
		return dstack.Hardware{GPUs: slices.Repeat([]dstack.GPU{{Name: name}}, count)}
	}
	for _, c := range []struct {
		offer dstack.Offer
		want  dstack.Availability
	}{
		{dstack.Offer{Region: "north", Type: "c7.large"}, dstack.AvailabilityUnknown},
		{dstack.Offer{Region: "north", Type: "c7.large", Zone: "north-c"}, dstack.NotAvailable},
		{dstack.Offer{Region: "north", Type: "c7.large", Spot: true}, dstack.NoQuota},
		{dstack.Offer{Region: "north", Type: "g6.xlarge"}, dstack.NoQuota},
		{dstack.Offer{Region: "north", Type: "n1-standard-4"}, dstack.AvailabilityUnknown},
		{dstack.Offer{Region: "north", Type: "n1-standard-4", Hardware: gpus("T4", 1)}, dstack.AvailabilityUnknown}, // the quota of V100 does not count
		{dstack.Offer{Region: "north", Type: "n1-standard-4", Hardware: gpus("T4", 2)}, dstack.NoQuota},
		{dstack.Offer{Region: "north", Type: "n1-standard-4", Hardware: gpus("V100", 1)}, dstack.NoQuota},
		{dstack.Offer{Region: "north", Type: "p5.48xlarge"}, dstack.NotAvailable},
		{dstack.Offer{Region: "south", Type: "p5.48xlarge"}, dstack.AvailabilityUnknown}, // not known
	} {
		c.offer.Hardware.CPUs = 4
		if got := a.find(&c.offer); got != c.want {
			t.Errorf("%+v: %q, want %q", c.offer, got, c.want)
		}
	}
}

func TestDiskLimits(t *testing.T) {
	limits := DiskLimits{MinMiB: 100 << 10, MaxMiB: 1 << 20}
	for asked, want := range map[spec.GB]int64{0: 100 << 10, 50: 100 << 10, 300: 300 << 10, 5000: 1 << 20} {
		need := dstack.Requirements{}
		if asked > 0 {
			need.Resources.Disk = &spec.Disk{Size: spec.Range[spec.GB]{Min: &asked}}
		}
		if got := limits.choose(need); got != want {
			t.Errorf("%v GB: %d, want %d", asked, got, want)
		}
	}
}

// What keeps prices old is a note of the plan.
func TestOffers_SayThatPricesAreOld(t *testing.T) {
	options := newRig(t).options()
	prices := options.Prices.(types)
	prices.problem = errors.Join(errors.New("https://example.com/aws/version: it answers 500"), errors.New("eu-west-1: it lists no types"))
	options.Prices = prices
	found, err := newBackend(options).SearchOffers(t.Context(), dstack.Requirements{}, 10)
	if want := "aws: prices may be old: https://example.com/aws/version: it answers 500, and 1 more"; err != nil || len(found.Notes) != 1 || found.Notes[0] != want {
		t.Errorf("notes %q, %v", found.Notes, err)
	}
}

// noDisks is a cloud whose small machines cannot use disks.
type noDisks struct{ cloud.Provider }

func (noDisks) ExplainNoDisks(instanceType string) string {
	if instanceType == "small" {
		return "volumes cannot be used on small"
	}
	return ""
}

// A type that cannot use disks is not offered to a replica with volumes.
func TestOffers_TypesWithoutDisks(t *testing.T) {
	options := newRig(t).options()
	options.Provider = noDisks{options.Provider}
	r := newBackend(options)
	suits := func(need dstack.Requirements) (suits bool) {
		found, err := r.SearchOffers(t.Context(), need, 100)
		if err != nil {
			t.Fatal(err)
		}
		for i := range found.Offers {
			found.Offers[i].Key = r.Key // as backend.Set does
		}
		placements, rejections := placement.RankOffers(need, found.Offers, nil)
		for _, p := range placements {
			suits = suits || p.Offer.Type == "small"
		}
		for _, one := range rejections {
			if one.Offer.Type == "small" && one.Offer.Region == "north" && need.Pin != nil && !strings.Contains(one.Reason, "volumes cannot be used on small") {
				t.Errorf("the reason is %q", one.Reason)
			}
		}
		return suits
	}
	if !suits(dstack.Requirements{}) || suits(dstack.Requirements{Pin: &dstack.Pin{Zones: []dstack.Zone{{Backend: r.Key, Region: "north"}}, Reason: "it has the volume"}}) {
		t.Error("small is refused without volumes, or offered with them")
	}
}
