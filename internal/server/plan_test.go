package server

import (
	"strings"
	"testing"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

func TestCheckSpec(t *testing.T) {
	const head = "type: service\nport: 8000\ncommands: [a]\n"
	for _, c := range []struct {
		name, yaml, run string
		change          func(*dstack.RunSpec)
		kind            dstack.Kind
		want            string
	}{
		{"fine", head, "web-1", nil, "", ""},
		{"without a name", head, "", nil, "", ""},
		{"a bad name", head, "Web", nil, dstack.Invalid, "Web"},
		{"a name that is taken by us", head, "gateway", nil, dstack.Invalid, "gateway"},
		{"all that comes later at once", head + "volumes: [{name: v, path: /d}]\nmax_duration: 2h\n", "web", nil, dstack.Unsupported, "not supported yet: "},
		{"a git repository", head, "web", func(rs *dstack.RunSpec) { rs.RepoData = []byte(`{"repo_type":"remote"}`) }, dstack.Unsupported, "remote"},
		{"no repo at all", head, "web", func(rs *dstack.RunSpec) { rs.RepoData = []byte(`{}`) }, dstack.Invalid, "type of repo"},
		{"variables without values", head + "env: [A, B=1, C]\n", "web", nil, dstack.Invalid, "A, C"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := testSpec(t, c.yaml)
			if c.change != nil {
				c.change(&rs)
			}
			err := checkSpec(rs, c.run)
			if c.kind == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v (%s)", err, dstack.KindOf(err))
			}
		})
	}
	err := checkSpec(testSpec(t, head+"volumes: [{name: v, path: /d}]\nhome_dir: /home/me\n"), "web")
	if err == nil || !strings.Contains(err.Error(), "volumes") || !strings.Contains(err.Error(), "home_dir") {
		t.Errorf("not all is named: %v", err)
	}
}

func newPlacement(name string, shares bool) dstack.Placement {
	return dstack.Placement{Offer: dstack.Offer{Type: name, Engine: dstack.EngineCapabilities{SharesPorts: shares}}}
}

func TestApart_ReplicasOnSharedPorts(t *testing.T) {
	for _, c := range []struct {
		name            string
		places          []dstack.Placement
		replicas        int
		places2, misfit int
	}{
		{"one replica", []dstack.Placement{newPlacement("a", true)}, 1, 1, 0},
		{"two on one machine", []dstack.Placement{newPlacement("a", true)}, 2, 0, 1},
		{"two on two machines", []dstack.Placement{newPlacement("a", true), newPlacement("b", true)}, 2, 2, 0},
		{"three on two machines", []dstack.Placement{newPlacement("a", true), newPlacement("b", true)}, 3, 0, 2},
		{"containers have their own ports", []dstack.Placement{newPlacement("a", true), newPlacement("b", false)}, 5, 2, 0},
		{"nowhere", nil, 2, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			places, misfits := limitSharedPorts(c.places, nil, c.replicas, 8000)
			if len(places) != c.places2 || len(misfits) != c.misfit {
				t.Errorf("%d places, %d misfits", len(places), len(misfits))
			}
		})
	}
}

func TestRoom(t *testing.T) {
	const head = "type: service\nport: 8000\ncommands: [a]\nreplicas: 2\n"
	misfit := func(why string) []dstack.Rejection {
		return []dstack.Rejection{{Offer: dstack.Offer{Type: "box"}, Reason: why}}
	}
	for _, c := range []struct {
		name, yaml string
		plan       runPlan
		kind       dstack.Kind
	}{
		{"a place", head, runPlan{placements: []dstack.Placement{newPlacement("a", true)}}, ""},
		{"none", head, runPlan{rejections: misfit("it has no GPU")}, dstack.NoCapacity},
		{"none, but it may wait", head + "retry: true\n", runPlan{rejections: misfit("it has no GPU")}, ""},
		{"in each other's way", head + "retry: true\n", runPlan{rejections: misfit(sharedPortReason(2, 8000))}, dstack.Invalid},
		{"no machine at all", head, runPlan{notes: []string{"no machine is configured for this project"}}, dstack.NoCapacity},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.plan.spec = testSpec(t, c.yaml)
			err := c.plan.checkCapacity()
			if c.kind == "" && err != nil || c.kind != "" && (err == nil || dstack.KindOf(err) != c.kind) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWithout_GivesBackWhatTheLeavingHold(t *testing.T) {
	used := map[dstack.InstanceID]dstack.Allocation{"i": {CPUs: 3, MemoryMiB: 300, DiskMiB: 30,
		GPUs: map[string]string{"g1": "a", "g2": "b"}, Ports: map[int]string{80: "a", 81: "b"}}}
	claim := dstack.Claim{CPUs: 1, MemoryMiB: 100, DiskMiB: 10, GPUs: []dstack.GPU{{ID: "g1"}}, Ports: []int{80}}
	after := placement.ReleaseAllocations(used, []dstack.Replica{
		{Instance: "i", Status: dstack.ReplicaReady, Claim: claim},
		{Instance: "i", Status: dstack.ReplicaTerminated, Claim: claim},
		{Instance: "elsewhere", Status: dstack.ReplicaReady, Claim: claim},
	})
	got := after["i"]
	if got.CPUs != 2 || got.MemoryMiB != 200 || got.DiskMiB != 20 || len(got.GPUs) != 1 || len(got.Ports) != 1 {
		t.Errorf("left: %+v", got)
	}
	if len(used["i"].GPUs) != 2 {
		t.Error("what was given is changed")
	}
}

func TestChanges(t *testing.T) {
	from, to := testSpec(t, llama), testSpec(t, strings.Replace(llama, "[a, b]", "[a, c]", 1))
	hash := strings.Repeat("ab", 32)
	to.RepoCodeHash = &hash
	price := 2.0
	to.Profile.MaxPrice = &price
	to.Configuration.Name = ""
	var paths []string
	for _, c := range listChanges(from, to) {
		paths = append(paths, c.Path+": "+c.From+" → "+c.To)
	}
	want := "commands.1: b → c; max_price:  → $2; code:  → abababab"
	if got := strings.Join(paths, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if again := listChanges(from, from); len(again) != 0 {
		t.Errorf("nothing changed, and yet %v", again)
	}
}
