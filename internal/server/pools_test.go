package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestPools(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	rented := testOffer()
	rented.OwnedInstance, rented.Type = "", "rented"
	h.backend.offers = append(h.backend.offers, rented)
	var pools []api.Pool
	h.mustCall(api.ProjectPrefix+"/pool/list", "", &pools)
	if len(pools) != 1 || pools[0].Name != "default-pool" || !pools[0].Default || pools[0].TotalInstances != 1 || pools[0].CreatedAt.IsZero() {
		t.Errorf("%+v", pools)
	}
	show := func() api.Instance {
		t.Helper()
		var pool api.PoolInstances
		h.mustCall(api.ProjectPrefix+"/pool/show", `{"name": null}`, &pool)
		if pool.Name != "default-pool" || len(pool.Instances) != 1 {
			t.Fatalf("%+v", pool)
		}
		return pool.Instances[0]
	}
	idle := show()
	if idle.Status != "idle" || idle.Name != "box" || idle.Backend != "local" || idle.PoolName != "default-pool" || uuid.Validate(idle.ID) != nil {
		t.Errorf("%+v", idle)
	}
	h.startReplica(h.submitRun("web").ID)
	if busy := show(); busy.Status != "busy" || busy.ID != idle.ID {
		t.Errorf("%+v", busy)
	}
	h.expectError(api.ProjectPrefix+"/pool/show", `{"name": "gpus"}`, 400, dstack.NotFound, `"msg":"Pool not found","code":"resource_not_exists"`)
}

func TestGetOffers(t *testing.T) {
	h := newTestServer(t)
	profile := func(more string) string {
		return `{"profile": {"name": "p"` + more + `}, "requirements": {"resources": `
	}
	for _, c := range []struct {
		body string
		want int
		pool string
	}{
		{profile("") + `{"cpu": {"min": 2, "max": null}, "memory": {"min": 8.0, "max": null}}, "max_price": null, "spot": null}}`, 1, "default-pool"},
		{profile(`, "pool_name": "team", "termination_idle_time": "3d"`) + `{"cpu": "4.."}}}`, 1, "team"},
		{profile("") + `{"gpu": {"count": {"min": 64}}}}}`, 0, "default-pool"},
		{profile("") + `{}, "spot": true}}`, 0, "default-pool"},
		{profile(`, "backends": ["aws"]`) + `{}}}`, 0, "default-pool"},
		{profile(`, "instance_name": "attic"`) + `{}}}`, 0, "default-pool"},
	} {
		var offers api.PoolOffers
		h.mustCall(api.ProjectPrefix+"/runs/get_offers", c.body, &offers)
		if len(offers.Instances) != c.want || offers.PoolName != c.pool || offers.Instances == nil {
			t.Errorf("%s: %+v", c.body, offers)
		}
	}
	h.expectError(api.ProjectPrefix+"/runs/get_offers", profile("")+`{"cpu": "many"}}}`, 400, dstack.Invalid, "resources.cpu: ")
	h.expectError(api.ProjectPrefix+"/runs/get_offers", `{"profile": {"name": "p"}}`, 422, dstack.Invalid, "requirements")
}

// The fields about pools have a meaning, so that files and flags of 0.18.10 work.
func TestSubmit_PoolFields(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	fields := "pool_name: team\ncreation_policy: reuse\ntermination_policy: dont-destroy\ntermination_idle_time: 1h\ninstance_name: Box\n"
	h.mustSubmit(api.RunSpecRequest{RunSpec: h.newRunSpec("pooled", plainService+fields)})
	h.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService+"instance_name: attic\n")}, 400,
		dstack.NoCapacity, "its name is box, and `instance_name` allows only attic")

	// A plan names the pool, and what the client submits of it is not the user's.
	var plan api.RunPlan
	h.mustCall(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService)}, &plan)
	if plan.RunSpec.Profile.PoolName != "default-pool" {
		t.Errorf("%+v", plan.RunSpec.Profile)
	}
	var run api.Run
	h.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: plan.RunSpec}, &run)
	if run.RunSpec.Profile.PoolName != "" {
		t.Errorf("%+v", run.RunSpec.Profile)
	}
}

// Clients that name their version print the message alone.
func TestErrors_HintsForPublishedClients(t *testing.T) {
	h := newTestServer(t)
	for version, want := range map[string]string{"": `"msg":"Run not found","code"`, "0.18.10": `"msg":"Run not found\nlist the runs: dstack ps -a"`} {
		r, err := http.NewRequest(http.MethodPost, h.url+"/api/project/main/runs/get", strings.NewReader(`{"run_name": "none"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+h.admin)
		if version != "" {
			r.Header.Set("X-API-VERSION", version)
		}
		if a := h.send(r); a.status != 400 || !strings.Contains(a.text, want) {
			t.Errorf("%q: %d %s", version, a.status, a.text)
		}
	}
}

// Links out of the uploaded folder are left out, and an event of each revision that
// brings new code names them.
func TestApply_NamesLeftOutLinks(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	upload := func(code string) *string {
		t.Helper()
		hash := hexSHA256(code)
		if a := h.uploadCode(hash, code, nil); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.text)
		}
		return &hash
	}
	named := func() (all []string) {
		var events []api.EventView
		h.mustCall(api.PathEvents, api.EventsRequest{RunName: "web"}, &events)
		for _, e := range events {
			if e.Kind == dstack.EventUpload {
				all = append(all, e.Message)
			}
		}
		return all
	}
	rs := h.newRunSpec("web", plainService)
	rs.RepoCodeHash = upload(packFile(t, ".venv/bin/python", "", "/usr/bin/python3"))
	h.mustSubmit(api.RunSpecRequest{RunSpec: rs})
	if got := named(); len(got) != 1 || got[0] != "links out of the uploaded folder are left out: .venv/bin/python" {
		t.Errorf("%q", got)
	}
	rs.Configuration.Auth = false // the code stays
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs, Revision: 1}, nil)
	rs.RepoCodeHash = upload(packFile(t, "main.py", "x", ""))
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs, Revision: 2}, nil)
	if got := named(); len(got) != 1 {
		t.Errorf("%q", got)
	}
	rs.RepoCodeHash = upload(packFile(t, "up", "", ".."))
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs, Revision: 3}, nil)
	if got := named(); len(got) != 2 || !strings.HasSuffix(got[1], ": up") {
		t.Errorf("%q", got)
	}
}

// The offers of a configuration are the plan of its groups, without its code and its
// secrets. What does not suit says why, and what would help.
func TestListOffers(t *testing.T) {
	h := newTestServer(t)
	var list api.OfferList
	h.mustCall(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"], "env": ["TOKEN"], "resources": {"gpu": 1}}}`, &list)
	if len(list.Groups) != 1 || list.User != "admin" || list.Groups[0].Totals.Placements+list.Groups[0].Totals.Rejections != 1 {
		t.Fatalf("%+v", list)
	}
	h.mustCall(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"], "resources": {"cpu": "640.."}},
		"profile": {"name": "p", "max_price": 0.5}}`, &list)
	g := list.Groups[0]
	if len(g.Placements) != 0 || len(g.Rejections) != 1 || g.Totals.Rejections != 1 || !strings.Contains(g.Advice, "to use box: write cpu: 8..") {
		t.Fatalf("%+v", g)
	}
	if r := g.Rejections[0]; r.Constraint != "resources.cpu" || r.Reason != "needs cpu: 640..; has 8" || r.Help != "write cpu: 8.." || r.Edits[0].Value != "8.." {
		t.Errorf("%+v", r)
	}
	h.mustCall(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "groups": [
		{"name": "a", "replicas": 1, "commands": ["a"]}, {"name": "b", "replicas": 1, "commands": ["b"], "resources": {"cpu": "640.."}}]}}`, &list)
	if len(list.Groups) != 2 || list.Groups[0].Totals.Placements != 1 || list.Groups[1].Totals.Placements != 0 {
		t.Errorf("%+v", list)
	}
	h.expectError(api.PathOffers, `{"configuration": {"type": "service"}}`, 422, dstack.Invalid, "port")
}

// The GPUs of all offers in groups, in our own dialect and in that of 0.22.
func TestListGPUs(t *testing.T) {
	h := newTestServer(t)
	for i, price := range []float64{0.8, 0.98, 4.6} {
		o := testOffer()
		o.OwnedInstance, o.Type, o.Backend, o.Region, o.Price, o.PriceSource = "", fmt.Sprint("g6.", i), "aws", "us-east-1", price, "catalogue of 2026-11-28"
		o.Hardware.GPUs = nil
		for range 1 + 3*(i/2) {
			o.Hardware.GPUs = append(o.Hardware.GPUs, dstack.GPU{Maker: "nvidia", Name: "L4", MemoryMiB: 22888})
		}
		h.backend.offers = append(h.backend.offers, o)
	}
	trainium := h.backend.offers[len(h.backend.offers)-1]
	trainium.Hardware.GPUs = []dstack.GPU{{Maker: "aws", Name: "Trainium", MemoryMiB: 32 << 10}}
	h.backend.offers = append(h.backend.offers, trainium)

	var list api.OfferList
	h.mustCall(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"]}, "group_by": ["gpu", "backend", "count"]}`, &list)
	groups := list.Groups[0].GPUs
	if len(groups) != 4 || groups[0].Backend != "local" || groups[1].Name != "L4" || groups[1].Count.Max != 1 || groups[1].Price.Max != 0.98 || groups[1].Backend != "aws" ||
		groups[2].Count.Min != 4 || groups[2].Price.Min != 1.15 || groups[2].OfferPrice.Max != 4.6 || groups[3].Name != "Trainium" {
		t.Errorf("%+v", groups)
	}
	for _, p := range list.Groups[0].Placements {
		if p.Offer.Backend == "aws" && (p.PriceSource != "catalogue of 2026-11-28" || p.Offer.Availability != "unknown") {
			t.Errorf("%+v", p)
		}
	}
	h.expectError(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"]}, "group_by": ["gpu", "price"]}`, 400, dstack.Invalid, "price")
	h.expectError(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"]}, "group_by": ["region"]}`, 400, dstack.Invalid, "backend")
	h.expectError(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"]}, "limit": -1}`, 422, dstack.Invalid, "limit")
	h.mustCall(api.PathOffers, `{"configuration": {"type": "service", "port": 1, "commands": ["a"]}, "limit": 2}`, &list)
	if g := list.Groups[0]; len(g.Placements) != 2 || g.Totals.Placements != 5 {
		t.Errorf("%d listed of %d", len(g.Placements), g.Totals.Placements)
	}

	var gpus struct {
		GPUs []map[string]any `json:"gpus"`
	}
	task := `{"configuration": {"type": "task", "commands": [":"], "image": "scratch", "resources": {"cpu": {"min": 0}, "memory": {"min": 0}, "gpu": {"count": {"min": 0}}}}}`
	h.callNewest(h.admin, api.ProjectPrefix+"/gpus/list", `{"run_spec": `+task+`, "group_by": []}`, &gpus)
	if len(gpus.GPUs) != 1 || gpus.GPUs[0]["name"] != "L4" || fmt.Sprint(gpus.GPUs[0]["backends"]) != "[aws]" || fmt.Sprint(gpus.GPUs[0]["spot"]) != "[on-demand]" {
		t.Errorf("%+v", gpus)
	}
}
