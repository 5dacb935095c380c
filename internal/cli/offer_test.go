package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// testRejection is a machine whose GPU is too small.
func testRejection() api.Rejection {
	return api.Rejection{Offer: testPlacement().Offer, Constraint: "resources.gpu", Wanted: "40GB..", Has: "1×L4 24GB",
		Reason: "needs gpu: 40GB..; has 1×L4 24GB", Edits: []dstack.Edit{{Field: "resources.gpu", Value: "24GB.."}}, Help: "write gpu: 24GB.."}
}

func newOfferTest(t *testing.T, groups ...api.GroupPreview) (*fakeServer, *testUser) {
	f := newFakeServer(t)
	f.offers = api.OfferList{User: "admin", Groups: groups, Notes: []string{}}
	return f, newTestUser(t, f)
}

// The flags, or a configuration with them, are what is asked for; a file needs none of
// its variables.
func TestOffer_Asks(t *testing.T) {
	f, u := newOfferTest(t)
	u.writeFile("service.dstack.yml", "type: service\nport: 8000\ncommands: [serve]\nenv: [TOKEN]\nfleets: [attic]\nresources: {gpu: 24GB, memory: 8GB..}\n")
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "cpu 0.. · memory 0GB.."},
		{[]string{"--gpu", "A100:2", "--cpu", "arm:4..", "--memory", "16GB..", "--disk", "50GB.."}, "gpu 2×A100 · cpu arm:4.. · memory 16GB.. · disk 50GB.."},
		{[]string{"-f", "service.dstack.yml", "--cpu", "8.."}, "gpu 24GB · cpu 8.. · memory 8GB.. · disk 100GB.."},
	} {
		u.run(append([]string{"offer"}, c.args...)...).check(t, ExitDone, nil, nil)
		asked := f.offerRequests[len(f.offerRequests)-1].Configuration
		if got := asked.Resources.String(); got != c.want {
			t.Errorf("%v asks for %s, want %s", c.args, got, c.want)
		}
	}
	u.run("offer", "-b", "ssh", "-b", "aws", "--fleet", "lab", "--region", "eu", "--max-price", "1.5", "--spot", "--instance", "box", "--reuse").check(t, ExitDone, nil, nil)
	p := f.offerRequests[len(f.offerRequests)-1].Configuration.Params
	if strings.Join(p.Backends, " ") != "remote aws" || p.Fleets[0] != "lab" || p.Regions[0] != "eu" || *p.MaxPrice != 1.5 || p.SpotPolicy != "spot" ||
		p.InstanceName != "box" || p.CreationPolicy != "reuse" {
		t.Errorf("asked for %+v", p)
	}
}

func TestOffer_RefusesFlags(t *testing.T) {
	f, u := newOfferTest(t)
	u.run("offer", "--gpu", "16G", "--memory", "much", "--cpu", "x").check(t, ExitInvalid, nil, []string{"--gpu: ", "--memory: ", "--cpu: ", "3 problems"})
	u.run("offer", "--spot", "--on-demand").check(t, ExitInvalid, nil, []string{"do not go together"})
	u.run("offer", "box").check(t, ExitInvalid, nil, []string{"box"})
	u.run("offer", "--gpu", "H1O0").check(t, ExitDone, nil, []string{"note: this version knows no GPU called `H1O0`; did you mean H100?"})
	if len(f.offerRequests) != 1 {
		t.Errorf("%d requests", len(f.offerRequests))
	}
}

func TestOffer_TitleLeavesOutNoSizes(t *testing.T) {
	_, u := newOfferTest(t, api.GroupPreview{Group: "0", Resources: "cpu 64.. · memory 0GB..", Placements: []api.Placement{testPlacement()}})
	u.run("offer", "--cpu", "64..").check(t, ExitDone, nil, []string{"project main · cpu 64..\n"})
}

func TestOffer_Lists(t *testing.T) {
	suits := api.GroupPreview{Group: "0", Resources: "gpu 24GB · cpu 0.. · memory 0GB..", Placements: []api.Placement{testPlacement()},
		Rejections: []api.Rejection{testRejection()}, Totals: api.Totals{Placements: 4, Rejections: 7, HighestPrice: 2.5}}
	_, u := newOfferTest(t, suits)
	u.run("offer", "--gpu", "24GB").check(t, ExitDone, []string{"BACKEND", "box", "1×L4 24GB", "1 of 2 GPUs free"},
		[]string{"project main · gpu 24GB\n", "3 more offers up to $2.50 · 7 machines do not suit: see --why"})
	u.run("offer", "--gpu", "24GB", "--why").check(t, ExitDone, []string{"1 of 2 GPUs free", "WHY NOT", "needs gpu: 40GB..; has 1×L4 24GB: write gpu: 24GB.."}, nil)
	var list api.OfferList
	if err := json.Unmarshal([]byte(u.run("offer", "-o", "json").out), &list); err != nil || list.Groups[0].Totals.Placements != 4 ||
		list.Groups[0].Rejections[0].Edits[0].Value != "24GB.." || list.Groups[0].Rejections[0].Constraint != "resources.gpu" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := json.Unmarshal([]byte(u.run("offer", "-o", "json", "--max-offers", "0").out), &list); err != nil || len(list.Groups[0].Placements) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Where nothing suits, the reasons are shown without being asked for.
func TestOffer_NothingSuits(t *testing.T) {
	none := api.GroupPreview{Group: "0", Rejections: []api.Rejection{testRejection()}, Totals: api.Totals{Rejections: 1},
		Advice: "to use box: write gpu: 24GB..\nor let it wait"}
	f, u := newOfferTest(t, none)
	u.run("offer", "--gpu", "40GB..").check(t, ExitDone, []string{"WHY NOT", "needs gpu: 40GB.."}, []string{"no machine suits", "to use box: write gpu: 24GB..", "or let it wait"})
	large := none
	large.Group = "large"
	f.offers.Groups, f.offers.Notes = []api.GroupPreview{none, large}, []string{"the backend aws did not answer: timeout"}
	u.run("offer").check(t, ExitDone, nil, []string{"group 0", "group large", "the backend aws did not answer: timeout"})
}

// rentedPlacement is a machine of a cloud.
func rentedPlacement(availability string) api.Placement {
	p := testPlacement()
	p.Offer.Backend, p.Offer.Region, p.Offer.Price, p.Offer.Availability = "aws", "us-east-1", 0.8048, availability
	p.Free, p.PriceSource = "", "catalogue of 2026-11-28"
	return p
}

// A plan says where prices are from, and what cannot be had now.
func TestOffer_Rented(t *testing.T) {
	_, u := newOfferTest(t, api.GroupPreview{Group: "0", Placements: []api.Placement{rentedPlacement("unknown"), rentedPlacement("idle"),
		rentedPlacement("not_available"), rentedPlacement("no_quota")}, Totals: api.Totals{Placements: 9000, HighestPrice: 113.93}})
	u.run("offer").check(t, ExitDone, []string{"$0.80", "idle", "not available", "no quota"},
		[]string{"8996 more offers up to $113.93 · prices: catalogue of 2026-11-28"})
	u.run("offer", "--limit", "1").check(t, ExitDone, nil, []string{"8999 more offers"})
}

func TestOffer_GroupsGPUs(t *testing.T) {
	l4 := api.GPUGroup{Name: "L4", MemoryMiB: 22888, Vendor: "nvidia", Availability: []string{"no_quota", "unknown"}, Spot: []string{"spot", "on-demand"},
		Count: api.CountRange{Min: 1, Max: 8}, Price: api.DollarsRange{Min: 0.3, Max: 1.67}, Backends: []string{"aws", "gcp"},
		Regions: []string{"a", "b", "c", "d"}}
	h100 := api.GPUGroup{Name: "H100", MemoryMiB: 81920, Vendor: "nvidia", Availability: []string{"no_quota"}, Spot: []string{"on-demand"},
		Count: api.CountRange{Min: 8, Max: 8}, Price: api.DollarsRange{Min: 6.88, Max: 6.88}, Backend: "aws", Region: "us-east-1"}
	f, u := newOfferTest(t, api.GroupPreview{Group: "0", Placements: []api.Placement{rentedPlacement("unknown")}, GPUs: []api.GPUGroup{l4, h100}})
	u.run("offer", "--group-by", "gpu").check(t, ExitDone, []string{"$/GPU", "L4:24GB:1..8", "spot, on-demand", "$0.30..$1.67", "aws, gcp", "4 regions",
		"H100:80GB:8", "$6.88", "us-east-1", "no quota"}, nil)
	u.run("offer", "--group-by", "gpu,backend", "--group-by", "region", "--limit", "1").check(t, ExitDone, []string{"L4"}, []string{"1 more group"})
	if got := strings.Join(f.offerRequests[len(f.offerRequests)-1].GroupBy, " "); got != "gpu backend region" {
		t.Errorf("asked for groups by %s", got)
	}
	var list api.OfferList
	if err := json.Unmarshal([]byte(u.run("offer", "--group-by", "gpu", "-o", "json").out), &list); err != nil || len(list.Groups[0].GPUs) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	asked := len(f.offerRequests)
	u.run("offer", "--group-by", "gpus").check(t, ExitInvalid, nil, []string{"`gpus` is no field", "did you mean `gpu`?"})
	u.run("offer", "--group-by", "backend").check(t, ExitInvalid, nil, []string{"gpu must be among the fields", "write --group-by gpu,backend"})
	u.run("offer", "--group-by", "gpu,region").check(t, ExitInvalid, nil, []string{"region needs backend"})
	if len(f.offerRequests) != asked {
		t.Error("a wrong flag reached the server")
	}
}
