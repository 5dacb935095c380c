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
		{"valid", head, "web-1", nil, "", ""},
		{"without a name", head, "", nil, "", ""},
		{"an invalid name", head, "Web", nil, dstack.Invalid, "Web"},
		{"a reserved name", head, "gateway", nil, dstack.Invalid, "gateway"},
		{"several unsupported fields", head + "setup: [a]\nhome_dir: /home/me\n", "web", nil, dstack.Unsupported, "not supported yet: "},
		{"an unknown type of repo", head, "web", func(rs *dstack.RunSpec) { rs.RepoData = []byte(`{"repo_type":"svn"}`) }, dstack.Invalid, "svn"},
		{"no repo type", head, "web", func(rs *dstack.RunSpec) { rs.RepoData = []byte(`{}`) }, dstack.Invalid, "repo type"},
		{"empty and long commands", head, "web", func(rs *dstack.RunSpec) {
			rs.Configuration.Commands = []string{"", "a", " ", strings.Repeat("x", 140_000)}
		}, dstack.Invalid, "`commands[0]`: the command is empty; `commands[2]`: the command is empty; `commands[3]` has 140000 bytes"},
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
	err := checkSpec(testSpec(t, head+"setup: [a]\nhome_dir: /home/me\n"), "web")
	if err == nil || !strings.Contains(err.Error(), "setup") || !strings.Contains(err.Error(), "home_dir") {
		t.Errorf("an unsupported field is missing: %v", err)
	}
}

func newPlacement(name string, shares bool) dstack.Placement {
	return dstack.Placement{Offer: dstack.Offer{Type: name, Engine: dstack.EngineCapabilities{SharesPorts: shares}}}
}

func TestRejectSharedPorts(t *testing.T) {
	for _, c := range []struct {
		name                   string
		placements             []dstack.Placement
		replicas               int
		wantPlaced, wantReject int
	}{
		{"one replica", []dstack.Placement{newPlacement("a", true)}, 1, 1, 0},
		{"two replicas, one machine", []dstack.Placement{newPlacement("a", true)}, 2, 0, 1},
		{"two replicas, two machines", []dstack.Placement{newPlacement("a", true), newPlacement("b", true)}, 2, 2, 0},
		{"three replicas, two machines", []dstack.Placement{newPlacement("a", true), newPlacement("b", true)}, 3, 0, 2},
		{"containers have their own ports", []dstack.Placement{newPlacement("a", true), newPlacement("b", false)}, 5, 2, 0},
		{"no machine", nil, 2, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := groupPlan{placements: c.placements}
			p.spec.Configuration.Replicas.Min, p.spec.Configuration.Port.Container = c.replicas, 8000
			p.rejectSharedPorts(countSharedPorts(p.spec))
			if len(p.placements) != c.wantPlaced || len(p.rejections) != c.wantReject || (p.portConflict != "") != (c.wantReject > 0) {
				t.Errorf("%d placements, %d rejections, conflict %q", len(p.placements), len(p.rejections), p.portConflict)
			}
		})
	}
}

func TestCheckCapacity(t *testing.T) {
	const head = "type: service\nport: 8000\ncommands: [a]\nreplicas: 2\n"
	noGPU := []dstack.Rejection{{Offer: dstack.Offer{Type: "box"}, Reason: "it has no GPU"}}
	for _, c := range []struct {
		name, yaml string
		plan       groupPlan
		kind       dstack.Kind
	}{
		{"a placement", head, groupPlan{placements: []dstack.Placement{newPlacement("a", true)}}, ""},
		{"no placement", head, groupPlan{rejections: noGPU}, dstack.NoCapacity},
		{"no placement, but the run may wait", head + "retry: true\n", groupPlan{rejections: noGPU}, ""},
		{"replicas cannot share ports", head + "retry: true\n", groupPlan{rejections: noGPU, portConflict: "they share ports"}, dstack.Invalid},
		{"no machine at all", head, groupPlan{notes: []string{"no machine is configured for this project"}}, dstack.NoCapacity},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.plan.spec = testSpec(t, c.yaml)
			err := runPlan{spec: c.plan.spec, notes: c.plan.notes, groups: []groupPlan{c.plan}}.checkCapacity()
			if c.kind == "" && err != nil || c.kind != "" && (err == nil || dstack.KindOf(err) != c.kind) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A project whose backends do not answer has machines; the notes of the backends say why it has none now.
func TestBuildNotes_NamesMissingMachines(t *testing.T) {
	if notes := (&groupPlan{}).buildNotes(); len(notes) != 1 || notes[0] != noMachines {
		t.Errorf("without backends: %q", notes)
	}
	if notes := (&groupPlan{failed: []string{"the backend kubernetes cannot be used"}}).buildNotes(); len(notes) != 0 {
		t.Errorf("with a backend that does not answer: %q", notes)
	}
}

func TestReleaseAllocations_ReleasesUnfinishedReplicas(t *testing.T) {
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
		t.Errorf("the allocation is %+v", got)
	}
	if len(used["i"].GPUs) != 2 {
		t.Error("the argument was changed")
	}
}

func TestListChanges(t *testing.T) {
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
		t.Errorf("equal specs have the changes %v", again)
	}
}
