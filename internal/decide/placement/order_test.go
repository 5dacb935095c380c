package placement_test

import (
	"fmt"
	"strings"
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// newHost returns a host of a fleet.
func newHost(name string, change func(*dstack.Offer)) dstack.Offer {
	return box(func(o *dstack.Offer) {
		o.Backend, o.Region, o.Type, o.OwnedInstance, o.Fleet, o.IsRemote = "ssh", "remote", name, dstack.InstanceID(name), "lab", true
		o.Hardware.DiskMiB = 500 << 10
		if change != nil {
			change(o)
		}
	})
}

func withCards(names ...string) func(*dstack.Offer) {
	return func(o *dstack.Offer) { o.Hardware.GPUs = gpus(names...) }
}

// placeMany places as many replicas one after another, and returns their machines.
func placeMany(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Allocation, n int) string {
	var placed []string
	for num := range n {
		places, rejections := placement.RankOffers(need, offers, used)
		if len(places) == 0 {
			placed = append(placed, rejections[0].Offer.Type+": "+rejections[0].String())
			break
		}
		p := places[0]
		placement.AddGrant(used, "p", placement.Grant{Project: "p", Run: need.Run, RunName: "web", Template: need.Template, Num: num,
			Instance: p.Offer.OwnedInstance, Claim: p.Claim})
		ids := ""
		for _, g := range p.Claim.GPUs {
			ids += g.ID
		}
		placed = append(placed, strings.TrimSuffix(p.Offer.Type+":"+ids, ":"))
	}
	return strings.Join(placed, " ")
}

// Replicas are spread over hosts first; then they get the fullest host, and GPUs one by
// one.
func TestRank_OrderOfHosts(t *testing.T) {
	three := []dstack.Offer{newHost("a", nil), newHost("b", nil), newHost("c", nil)}
	large := newHost("large", func(o *dstack.Offer) { o.Hardware.MemoryMiB = 128 << 10 })
	gpu := func(text string) dstack.Requirements {
		s, err := spec.ParseService("f", []byte("type: service\nport: 1\ncommands: [a]\nresources: {gpu: '"+text+"'}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return dstack.Requirements{Run: "r", Template: 1, Resources: s.Resources}
	}
	memory := dstack.Requirements{Run: "r", Template: 1, Resources: spec.Resources{Memory: least(spec.GB(16)), Explicit: spec.Explicit{Memory: true}}}
	other := func(instance dstack.InstanceID, claim dstack.Claim) map[dstack.InstanceID]dstack.Allocation {
		used := map[dstack.InstanceID]dstack.Allocation{}
		placement.AddGrant(used, "p", placement.Grant{Project: "p", Run: "x", RunName: "x", Instance: instance, Claim: claim})
		return used
	}
	outdated := map[dstack.InstanceID]dstack.Allocation{}
	for i, host := range []dstack.InstanceID{"a", "b", "c"} {
		placement.AddGrant(outdated, "p", placement.Grant{Project: "p", Run: "r", RunName: "web", Template: 0, Num: i, Instance: host})
	}
	rolling := map[dstack.InstanceID]dstack.Allocation{}
	for i, host := range []dstack.InstanceID{"b", "c", "a", "b"} { // two new ones, and those of before on a and b
		placement.AddGrant(rolling, "p", placement.Grant{Project: "p", Run: "r", RunName: "web", Template: 1 - i/2, Num: i, Instance: host})
	}
	held := dstack.Claim{GPUs: gpus("L4")[:1]}
	for _, c := range []struct {
		name   string
		need   dstack.Requirements
		offers []dstack.Offer
		used   map[dstack.InstanceID]dstack.Allocation
		n      int
		want   string
	}{
		{"three replicas on three hosts, the fourth on the first", dstack.Requirements{Run: "r", Template: 1}, three, nil, 4, "a b c a"},
		{"another run leaves its host last where nothing is claimed", dstack.Requirements{Run: "r", Template: 1}, three,
			other("a", dstack.Claim{}), 3, "b c a"},
		{"the fullest host that has enough memory", memory, []dstack.Offer{large, three[0]}, nil, 3, "a large a"},
		{"and the other once it is full", memory, []dstack.Offer{large, three[0]}, other("a", dstack.Claim{MemoryMiB: 20 << 10}), 2, "large large"},
		{"new replicas are spread among themselves first", dstack.Requirements{Run: "r", Template: 1}, three, outdated, 3, "a b c"},
		{"also where outdated ones are left", dstack.Requirements{Run: "r", Template: 1}, []dstack.Offer{three[2], three[0]}, rolling, 1, "a"},
		{"GPUs one by one, spread", gpu("1"), []dstack.Offer{newHost("a", withCards("L4", "L4")), newHost("b", withCards("L4", "L4"))}, nil, 5,
			"a:a b:a a:b b:b a: 0 of 2 GPUs free; waits for web replica 0, web replica 2"},
		{"the host with the fewest free GPUs", gpu("1"), []dstack.Offer{newHost("a", withCards("L4", "L4")), newHost("b", withCards("L4", "L4"))},
			other("b", held), 1, "b:b"},
		{"the smallest GPU that is enough", gpu("16GB.."), []dstack.Offer{newHost("a", withCards("A100", "L4", "T4", "L4"))}, nil, 4, "a:c a:b a:d a:a"},
		{"two of one kind", gpu("16GB..:2"), []dstack.Offer{newHost("a", withCards("A100", "L4", "T4", "L4"))}, nil, 1, "a:bd"},
		{"two kinds where one is not enough", gpu("16GB..:3"), []dstack.Offer{newHost("a", withCards("A100", "L4", "T4", "L4"))}, nil, 1, "a:cbd"},
		{"a host without GPUs where none is asked for", dstack.Requirements{}, []dstack.Offer{newHost("a", withCards("L4")), newHost("b", nil)}, nil, 1, "b"},
		{"A100:2", gpu("A100:2"), []dstack.Offer{newHost("a", withCards("A100", "L4", "A100"))}, nil, 2,
			"a:ac a: 0 of 2 suitable GPUs free; waits for web replica 0"},
		{"24GB..40GB:2", gpu("24GB..40GB:2"), []dstack.Offer{newHost("a", withCards("A100", "L4", "L4"))}, nil, 1, "a:bc"},
		{"A100-80 and its size", gpu("A100-80"), []dstack.Offer{newHost("a", withCards("L4", "A100"))}, nil, 1, "a:b"},
		{"as many as the count allows where the total memory needs them", func() dstack.Requirements {
			need, total := gpu("L4:1..4"), spec.GB(70)
			need.Resources.GPU.TotalMemory = &spec.Range[spec.GB]{Min: &total}
			return need
		}(), []dstack.Offer{newHost("a", withCards("L4", "L4", "L4", "L4"))}, nil, 1, "a:abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.used == nil {
				c.used = map[dstack.InstanceID]dstack.Allocation{}
			}
			if got := placeMany(c.need, c.offers, c.used, c.n); got != c.want {
				t.Errorf("placed on %s, want %s", got, c.want)
			}
		})
	}
}

// Hosts that cannot run anything now, and those that are excluded, say so.
func TestRank_RejectedHosts(t *testing.T) {
	for _, c := range []struct {
		name string
		need dstack.Requirements
		host dstack.Offer
		want string // empty: it suits
	}{
		{"ssh is remote", dstack.Requirements{Backends: []string{"remote"}}, newHost("a", nil), ""},
		{"remote is ssh", dstack.Requirements{Backends: []string{"SSH"}}, newHost("a", func(o *dstack.Offer) { o.Backend = "remote" }), ""},
		{"neither is local", dstack.Requirements{Backends: []string{"ssh"}}, box(nil), "its backend is local, and `backends` allows only ssh: write backends: [ssh, local]"},
		{"its fleet", dstack.Requirements{Fleets: []string{"lab"}}, newHost("a", nil), ""},
		{"another fleet", dstack.Requirements{Fleets: []string{"attic"}}, newHost("a", nil), "its fleet is lab, and `fleets` allows only attic: write fleets: [attic, lab]"},
		{"no fleet", dstack.Requirements{Fleets: []string{"lab"}}, box(nil), "it has no fleet, and `fleets` allows only lab: remove fleets"},
		{"draining", dstack.Requirements{}, newHost("a", func(o *dstack.Offer) { o.IsDraining = true }), "it is being drained"},
		{"a failed check", dstack.Requirements{}, newHost("a", func(o *dstack.Offer) { o.Unusable = "its check failed (login): key refused" }), "its check failed (login): key refused"},
		{"what the user excludes comes first", dstack.Requirements{Regions: []string{"eu"}},
			newHost("a", func(o *dstack.Offer) { o.IsDraining = true }), "its region is remote, and `regions` allows only eu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			places, rejections := placement.RankOffers(c.need, []dstack.Offer{c.host}, nil)
			switch {
			case c.want == "" && len(places) != 1:
				t.Errorf("rejected: %v", rejections)
			case c.want != "" && (len(rejections) != 1 || rejections[0].String() != c.want):
				t.Errorf("%v", rejections)
			}
		})
	}
}

// The names of P1 to P9: what a driver reports is found by the names of catalogues and of
// people.
func TestRank_NamesOfGPUs(t *testing.T) {
	for _, c := range []struct {
		reported string // its canonical name
		mib      int64
		asked    string
		suits    bool
	}{
		{"H100NVL", 95830, "H100", true}, {"H100NVL", 95830, "H100NVL", true}, {"H100NVL", 95830, "H100:80GB", false}, {"H100", 81559, "H100NVL", false},
		{"H200NVL", 143771, "H200", true}, {"RTX6000Ada", 49140, "RTX6000", false}, {"RTX6000", 24576, "RTX6000Ada", false},
		{"A100", 81920, "A100-80", true}, {"A100", 40960, "A100-80", false}, {"A100", 40960, "A100-SXM4-40GB", true}, {"A100", 81920, "a100:80GB", true},
		{"RTXPRO6000", 97887, "RTX PRO Server 6000", true}, {"A10G", 23028, "A10G:22GB", true}, {"A10G", 23028, "A10G:24GB", true},
		{"A10G", 23028, "A10G:25GB", false}, {"L4", 23034, "23GB..", true}, {"B300", 268 << 10, "B300:288GB", true}, {"B200", 183359, "192GB", true},
		{"MI325X", 262128, "MI325X:256GB", true}, {"MI325X", 262128, "MI325X:288GB", false}, {"A100-MIG-1g.5gb", 4864, "A100", false},
		{"H20-3e", 144384, "H20-3e", true}, {"X900", 50000, "x900", true}, {"X900", 50000, "X901", false},
	} {
		s, err := spec.ParseService("f", fmt.Appendf(nil, "type: service\nport: 1\ncommands: [a]\nresources: {gpu: '%s'}\n", c.asked))
		if err != nil {
			t.Fatal(err)
		}
		host := newHost("a", func(o *dstack.Offer) { o.Hardware.GPUs = []dstack.GPU{{ID: "0", Name: c.reported, MemoryMiB: c.mib}} })
		places, rejections := placement.RankOffers(dstack.Requirements{Resources: s.Resources}, []dstack.Offer{host}, nil)
		if (len(places) == 1) != c.suits {
			t.Errorf("gpu: %s on %s of %d MiB: %d placements, %v", c.asked, c.reported, c.mib, len(places), rejections)
		}
	}
}
