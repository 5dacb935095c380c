package placement_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// cloudOffer is a machine to rent with GPUs of one kind.
func cloudOffer(backend, region, gpuName string, memoryGiB int64, count int, price float64, spot bool) dstack.Offer {
	o := dstack.Offer{Backend: backend, Region: region, Type: fmt.Sprintf("%s-%d", gpuName, count), Price: price, Spot: spot,
		Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 1 << 16}}
	for range count {
		o.Hardware.GPUs = append(o.Hardware.GPUs, dstack.GPU{Maker: "nvidia", Name: gpuName, MemoryMiB: memoryGiB << 10})
	}
	return o
}

func TestGroupByGPU(t *testing.T) {
	full := cloudOffer("aws", "us-west-2", "H100", 80, 8, 55, false)
	full.Availability = dstack.NoQuota
	idle := cloudOffer("gcp", "us-central1", "L4", 24, 1, 0.7, false)
	idle.OwnedInstance, idle.IsIdle = "i1", true
	offers := []dstack.Offer{
		cloudOffer("aws", "us-east-1", "L4", 24, 1, 0.3, true), cloudOffer("aws", "us-east-1", "L4", 24, 4, 4.6, false), idle,
		cloudOffer("aws", "eu-west-1", "L4", 24, 1, 0.9, false), full, cloudOffer("aws", "us-east-1", "A100", 40, 1, 3, false),
		cloudOffer("aws", "us-east-1", "A100", 80, 1, 4, false), {Backend: "aws", Price: 0.1}, // without GPUs
	}
	for name, c := range map[string]struct {
		by   placement.GPUGrouping
		want []string
	}{
		"gpu": {placement.GPUGrouping{}, []string{
			"L4:24 1..4 $0.3..1.15 in 0.3..4.6 [aws gcp] [eu-west-1 us-central1 us-east-1] spot true on-demand true [unknown idle]",
			"A100:40 1..1 $3..3 in 3..3 [aws] [us-east-1] spot false on-demand true [unknown]",
			"A100:80 1..1 $4..4 in 4..4 [aws] [us-east-1] spot false on-demand true [unknown]",
			"H100:80 8..8 $6.875..6.875 in 55..55 [aws] [us-west-2] spot false on-demand true [no_quota]"}},
		"gpu, backend, region, count": {placement.GPUGrouping{Backend: true, Region: true, Count: true}, []string{
			"L4:24 1..1 $0.3..0.3 in 0.3..0.3 aws us-east-1 spot true on-demand false [unknown]",
			"L4:24 1..1 $0.7..0.7 in 0.7..0.7 gcp us-central1 spot false on-demand true [idle]",
			"L4:24 1..1 $0.9..0.9 in 0.9..0.9 aws eu-west-1 spot false on-demand true [unknown]",
			"L4:24 4..4 $1.15..1.15 in 4.6..4.6 aws us-east-1 spot false on-demand true [unknown]"}},
	} {
		got := placement.GroupByGPU(offers, c.by)
		for i, want := range c.want {
			g := got[i]
			where := fmt.Sprint(g.Backends, " ", g.Regions)
			if c.by.Region {
				where = g.Backend + " " + g.Region
			}
			text := fmt.Sprintf("%s:%d %d..%d $%g..%g in %g..%g %s spot %t on-demand %t %v", g.GPU.Name, g.GPU.MemoryMiB>>10, g.Counts[0], g.Counts[1],
				g.GPUPrices[0], g.GPUPrices[1], g.Prices[0], g.Prices[1], where, g.HasSpot, g.HasOnDemand, g.Availability)
			if text != want {
				t.Errorf("by %s, group %d is\n%s, want\n%s", name, i, text, want)
			}
		}
	}
}

// A part of a card suits only who asks for memory: by its name or its number, one asks for a whole card.
func TestRank_PartsOfCards(t *testing.T) {
	o := cloudOffer("aws", "us-east-1", "L4", 3, 1, 0.2, false)
	o.Hardware.GPUs[0].Fraction, o.Engine.Containers = 0.125, true
	for gpu, want := range map[string]bool{"L4": false, "1": false, "nvidia": false, "2GB..": true, "L4:2GB..": true, "L4:24GB": false, "0": false} {
		places, _ := placement.RankOffers(needing(t, "gpu: \""+gpu+"\""), []dstack.Offer{o}, nil)
		if (len(places) > 0) != want {
			t.Errorf("gpu: %s suits %t, want %t", gpu, len(places) > 0, want)
		}
	}
	if places, _ := placement.RankOffers(dstack.Requirements{}, []dstack.Offer{o}, nil); len(places) != 1 {
		t.Error("it does not suit who asks for no GPU")
	}
}

// needing returns the requirements of a service with resources.
func needing(t *testing.T, resources string) dstack.Requirements {
	t.Helper()
	s, err := spec.ParseService("s", []byte("type: service\nport: 1\ncommands: [a]\nresources: {cpu: 0.., memory: 0.., disk: null, "+resources+"}"))
	if err != nil {
		t.Fatal(err)
	}
	return dstack.Requirements{AnyPort: true, Resources: s.Resources}
}

// The filter of types says of random offers what Rank says, wherever place, market and price suit.
func TestTypeFilter_AgreesWithRank(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 3000 {
		o := newRandomOffer(r, i)
		o.OwnedInstance, o.AnyNode = "", false
		need := newRandomNeed(r)
		need.Regions, need.InstanceTypes, need.Spot, need.MaxPrice, need.Pin = nil, nil, nil, nil, nil
		places, rejections := placement.RankOffers(need, []dstack.Offer{o}, nil)
		failed := placement.NewTypeFilter(need).Check(&o)
		if (failed < 0) != (len(places) == 1) {
			t.Fatalf("offer %+v, need %+v: the filter says %d, Rank %v", o, need, failed, rejections)
		}
		// What depends on the place does not count.
		need.Regions, need.InstanceTypes, need.Spot, need.MaxPrice = []string{"nowhere"}, []string{"none"}, new(!o.Spot), new(-1.0)
		if again := placement.NewTypeFilter(need).Check(&o); (again < 0) != (failed < 0) {
			t.Fatalf("offer %+v: the filter says %d with a place, %d without", o, again, failed)
		}
	}
}
