package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire/v018"
	"dstack/internal/server/wire/v022"
)

const fleetKey = "-----BEGIN OPENSSH PRIVATE KEY----- canary"

// newFleetText returns the configuration of a fleet as published clients send it.
func newFleetText(hosts string) string {
	return `{"type": "fleet", "name": "boxes", "env": {"MODE": "env-canary"}, "placement": null, "nodes": null, "ssh_config": {"user": "ubuntu", "port": null,
		"identity_file": "~/.ssh/id", "ssh_key": {"public": "ssh-ed25519 AAAA", "private": "` + fleetKey + `"}, "network": null, "hosts": ` + hosts + `}}`
}

// saveCheck records the check of a host.
func (h *testServer) saveCheck(name string, check dstack.HostCheck) dstack.Host {
	h.t.Helper()
	hosts, err := h.store.ListHosts(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, host := range hosts {
		if host.Name == name {
			check.CheckedAt = time.Now()
			if err := h.store.SaveHostCheck(h.t.Context(), host.ID, check); err != nil {
				h.t.Fatal(err)
			}
			return host
		}
	}
	h.t.Fatalf("there is no host %s", name)
	return dstack.Host{}
}

func TestFleets_As01810(t *testing.T) {
	h := newTestServer(t)
	in := `{"spec": {"configuration": ` + newFleetText(`["192.0.2.1", {"hostname": "192.0.2.2", "port": 2222, "user": "root", "identity_file": null, "ssh_key": null}]`) +
		`, "profile": {"name": "default", "pool_name": null}, "autocreated": false}}`
	var fleet v018.Fleet
	h.mustCall(api.ProjectPrefix+"/fleets/create", in, &fleet)
	if fleet.Name != "boxes" || fleet.Status != "active" || len(fleet.Instances) != 2 || fleet.Instances[0].Status != "provisioning" ||
		fleet.Instances[1].InstanceNum != 1 || fleet.Instances[0].Backend != "remote" {
		t.Errorf("%+v", fleet)
	}
	if h.hostWakes.Load() != 1 {
		t.Errorf("the checks were woken %d times", h.hostWakes.Load())
	}
	first := h.saveCheck("192.0.2.1", dstack.HostCheck{Status: dstack.HostReady, Found: dstack.HostFacts{Hardware: dstack.Hardware{CPUs: 8, MemoryMiB: 1024}}})
	second := h.saveCheck("192.0.2.2", dstack.HostCheck{Status: dstack.HostFailed, Message: "no Docker"})
	if first.Login.PrivateKey != fleetKey || second.Login.PrivateKey != fleetKey || second.Login.Address != "192.0.2.2:2222" || second.Login.User != "root" ||
		first.Env["MODE"] != "env-canary" {
		t.Errorf("%+v %+v", first, second)
	}
	h.expectError(api.ProjectPrefix+"/fleets/create", in, 400, dstack.Conflict, "resource_exists")
	a := h.callAs(h.admin, api.ProjectPrefix+"/fleets/get", `{"name": "boxes"}`)
	if strings.Contains(a.text, fleetKey) || !strings.Contains(a.text, `"ssh_key":null`) || !strings.Contains(a.text, `"hosts":["192.0.2.1",{"hostname":"192.0.2.2","port":2222`) ||
		!strings.Contains(a.text, `"status":"idle"`) || !strings.Contains(a.text, `"status":"terminated"`) {
		t.Errorf("%s", a.text)
	}
	var pool []api.Instance
	h.mustCall("/api/pools/list_instances", `{"only_active": true, "limit": 1000}`, &pool)
	if len(pool) != 1 || pool[0].Name != "192.0.2.1" || pool[0].InstanceType.Resources.CPUs != 8 {
		t.Errorf("%+v", pool)
	}
	h.mustCall(api.ProjectPrefix+"/fleets/delete_instances", `{"name": "boxes", "instance_nums": [1]}`, nil)
	var list []v018.Fleet
	h.mustCall(api.ProjectPrefix+"/fleets/list", "", &list)
	if len(list) != 1 || len(list[0].Instances) != 1 {
		t.Errorf("%+v", list)
	}
	h.mustCall(api.ProjectPrefix+"/fleets/delete", `{"names": ["boxes"]}`, nil)
	h.expectError(api.ProjectPrefix+"/fleets/get", `{"name": "boxes"}`, 400, dstack.NotFound, "resource_not_exists")
	if text := h.log.String(); strings.Contains(text, "canary") {
		t.Errorf("the log contains a key: %s", text)
	}
}

func TestFleets_AsNewest(t *testing.T) {
	h := newTestServer(t)
	spec := `{"configuration": ` + newFleetText(`["192.0.2.1"]`) + `, "configuration_path": "fleet.dstack.yml", "profile": {"name": "default"}}`
	type fleet struct {
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Spec      json.RawMessage `json:"spec"`
		Instances []v022.Instance `json:"instances"`
	}
	var plan struct {
		Action          string          `json:"action"`
		Spec            json.RawMessage `json:"spec"`
		EffectiveSpec   json.RawMessage `json:"effective_spec"`
		CurrentResource *fleet          `json:"current_resource"`
	}
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/get_plan", `{"spec": `+spec+`}`, &plan)
	if plan.Action != "create" || plan.CurrentResource != nil || !strings.Contains(string(plan.Spec), fleetKey) {
		t.Fatalf("%+v", plan)
	}
	var applied fleet
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/apply", `{"plan": {"spec": `+string(plan.Spec)+`, "current_resource": null}, "force": false}`, &applied)
	h.saveCheck("192.0.2.1", dstack.HostCheck{Status: dstack.HostFailed, Message: "no Docker", Hint: "install it"})
	var list []fleet
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/list", `{"include_imported": true}`, &list)
	last := list[len(list)-1]
	if last.ID != applied.ID || last.Instances[0].Status != "terminated" || *last.Instances[0].TerminationReason != "no Docker" {
		t.Errorf("%+v", list)
	}
	a := h.callNewest(h.admin, api.ProjectPrefix+"/fleets/get_plan", `{"spec": `+spec+`}`, &plan)
	if string(plan.CurrentResource.Spec) != string(plan.EffectiveSpec) || plan.Action != "update" || strings.Count(a.text, fleetKey) != 1 {
		t.Errorf("the same configuration differs from itself:\n%s\n%s", plan.CurrentResource.Spec, plan.EffectiveSpec)
	}
	var byID fleet
	h.callNewest(h.admin, api.ProjectPrefix+"/fleets/get", `{"id": "`+applied.ID+`"}`, &byID)
	var instance v022.Instance
	h.callNewest(h.admin, api.ProjectPrefix+"/instances/get", `{"id": "`+byID.Instances[0].ID+`"}`, &instance)
	var everywhere []fleet
	h.callNewest(h.admin, "/api/fleets/list", `{"project_name": "MAIN"}`, &everywhere)
	var instances []v022.Instance
	h.callNewest(h.admin, "/api/instances/list", `{"only_active": true}`, &instances)
	if byID.Name != "boxes" || instance.Name != "192.0.2.1" || len(everywhere) != 1 || len(instances) != 0 {
		t.Errorf("%+v %+v %+v %+v", byID, instance, everywhere, instances)
	}
}

func TestFleets_AsOurCommandLine(t *testing.T) {
	h := newTestServer(t)
	request := func(hosts string) string { return `{"configuration": ` + newFleetText(hosts) + `}` }
	var preview api.FleetPreview
	h.mustCall(api.PathFleetPreview, request(`["a", "b"]`), &preview)
	if preview.Current != nil || !preview.IsChanged || len(preview.Hosts) != 2 || preview.Hosts[0].Action != api.HostAdded || !preview.Hosts[0].NeedsKey {
		t.Errorf("%+v", preview)
	}
	var view api.FleetView
	h.mustCall(api.PathFleetApply, request(`["a", "b"]`), &view)
	if view.Name != "boxes" || len(view.Hosts) != 2 || view.Hosts[0].Status != api.HostStatusChecking || view.Hosts[0].IsChecked ||
		strings.Contains(string(view.Configuration), "canary") {
		t.Errorf("%+v", view)
	}
	h.saveCheck("a", dstack.HostCheck{Status: dstack.HostReady})
	h.saveCheck("b", dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepDocker, Message: "no Docker", Hint: "install it"})
	h.mustCall(api.PathFleetPreview, request(`["a", "c"]`), &preview)
	if got := preview.Hosts; len(got) != 3 || got[0].Action != api.HostKept || got[0].NeedsKey || got[1].Action != api.HostAdded || got[2].Action != api.HostRemoved || got[2].Name != "b" {
		t.Errorf("%+v", got)
	}
	h.mustCall(api.PathFleetDrain, `{"name": "boxes", "instance_nums": [0], "drain": true}`, &view)
	if a, b := view.Hosts[0], view.Hosts[1]; a.Status != api.HostStatusDrained || b.Status != api.HostStatusFailed || b.Step != "docker" || b.Hint != "install it" {
		t.Errorf("%+v", view.Hosts)
	}
	var views []api.FleetView
	h.mustCall(api.PathFleetViews, `{"names": ["boxes", "none"]}`, &views)
	if len(views) != 1 || views[0].ID != view.ID {
		t.Errorf("%+v", views)
	}
}

func TestFleets_BadInput(t *testing.T) {
	h := newTestServer(t)
	for part, config := range map[string]string{
		"No ssh user specified for host a":      `{"type": "fleet", "name": "boxes", "ssh_config": {"hosts": ["a"]}}`,
		"No ssh key specified for host a":       `{"type": "fleet", "name": "boxes", "ssh_config": {"user": "u", "hosts": ["a"]}}`,
		"a fleet without machines is of no use": `{"type": "fleet", "name": "boxes", "nodes": 0}`,
		"reservation":                           `{"type": "fleet", "name": "boxes", "nodes": 1, "reservation": "r"}`,
		"MODE":                                  `{"type": "fleet", "name": "boxes", "env": ["MODE"], "ssh_config": {"user": "u", "hosts": ["a"]}}`,
		"a fleet cannot be called default":      `{"type": "fleet", "name": "default", "ssh_config": {"user": "u", "hosts": ["a"]}}`,
		"No ssh key specified for jump host":    `{"type": "fleet", "ssh_config": {"user": "u", "hosts": ["a"], "proxy_jump": {"hostname": "b", "user": "u", "identity_file": "x"}, "ssh_key": {"public": "", "private": "k"}}}`,
		"blocks":                                `{"type": "fleet", "name": "boxes", "blocks": 2, "ssh_config": {"user": "u", "hosts": ["a"]}}`,
		"the host a:22 is listed twice":         `{"type": "fleet", "name": "boxes", "ssh_config": {"user": "u", "hosts": ["a", "a"]}}`,
		"type: `type` is missing":               `{"name": "boxes", "ssh_config": {"user": "u", "hosts": ["a"]}}`,
		"`type` is missing; a fleet needs":      `{}`,
		"type service as a fleet":               `{"type": "service", "port": 1, "commands": ["a"]}`,
		"`My Boxes` is not a valid name":        `{"type": "fleet", "name": "My Boxes", "ssh_config": {"user": "u", "hosts": ["a"]}}`,
		"is not the fingerprint of a host key":  `{"type": "fleet", "ssh_config": {"user": "u", "hosts": ["a"], "host_key": "MD5:00"}}`,
		"a fleet needs `nodes` or `ssh_config`": `{"type": "fleet", "name": "boxes"}`,
		"`env` can only be used with":           `{"type": "fleet", "env": {"A": "1"}, "nodes": 1}`,
		"unknown field":                         `{"type": "fleet", "ssh_config": {"user": "u", "hosts": [{"hostname": "a", "pasword": "x"}]}}`,
	} {
		a := h.callAs(h.admin, api.PathFleetApply, `{"configuration": `+config+`}`)
		if a.status != 400 && a.status != 422 || !strings.Contains(strings.ReplaceAll(a.text, `\"`, `"`), part) {
			t.Errorf("%s: %d %s", part, a.status, a.text)
		}
	}
	long := strings.Repeat("x", 40<<10)
	large := strings.Replace(newFleetText(`["a"]`), `"MODE": "env-canary"`, `"A": "`+long+`", "B": "`+long+`"`, 1)
	if a := h.callAs(h.admin, api.PathFleetApply, `{"configuration": `+large+`}`); a.status != 400 || !strings.Contains(a.text, "larger than 64KB in all, with B") {
		t.Errorf("many variables: %d %.300s", a.status, a.text)
	}
	large = strings.Replace(newFleetText(`["a"]`), fleetKey, long+long, 1)
	if a := h.callAs(h.admin, api.PathFleetApply, `{"configuration": `+large+`}`); a.status != 400 || !strings.Contains(a.text, "the private key of host a is larger than 64KB") {
		t.Errorf("a large key: %d %.300s", a.status, a.text)
	}
	if fleets, err := h.store.ListHosts(t.Context()); len(fleets) != 0 || err != nil {
		t.Errorf("%+v, %v", fleets, err)
	}
}

// A name that the configuration lacks is generated.
func TestFleets_Unnamed(t *testing.T) {
	h := newTestServer(t)
	var view api.FleetView
	h.mustCall(api.PathFleetApply, `{"configuration": `+strings.Replace(newFleetText(`["a"]`), `"name": "boxes", `, "", 1)+`}`, &view)
	if view.Name == "" || !strings.Contains(string(view.Configuration), `"name":"`+view.Name+`"`) {
		t.Errorf("%+v", view)
	}
}

// A host whose replicas get no requests is shown as unreachable before its next check says so; what a check found stays.
func TestShowAwayHosts(t *testing.T) {
	check := func(status dstack.HostStatus, message string) dstack.HostCheck {
		return dstack.HostCheck{Status: status, Message: message, Found: dstack.HostFacts{EngineID: "e"}}
	}
	f := dstack.Fleet{Hosts: []dstack.Host{
		{ID: "fine", Check: check(dstack.HostReady, "")},
		{ID: "away", Check: check(dstack.HostReady, "")},
		{ID: "failed", Check: check(dstack.HostFailed, "the key is refused")},
	}}
	shown := showAwayHosts(f, map[dstack.InstanceID]dstack.Reason{"away": "host b has not answered for 10s", "failed": "silent", "gone": "silent"})
	want := []dstack.HostCheck{check(dstack.HostReady, ""), check(dstack.HostUnreachable, "host b has not answered for 10s"),
		check(dstack.HostFailed, "the key is refused")}
	want[1].Step = dstack.HostStepConnect
	for i, h := range shown.Hosts {
		if diff := cmp.Diff(want[i], h.Check); diff != "" {
			t.Errorf("%s: %s", h.ID, diff)
		}
	}
	if f.Hosts[1].Check.Status != dstack.HostReady {
		t.Error("the fleet that was given has changed")
	}
}

// All fleets of a project together have a limit of hosts; applying one again does not count its hosts twice.
func TestFleets_HostLimit(t *testing.T) {
	h := newTestServer(t)
	listHosts := func(prefix string, n int) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("%q", fmt.Sprintf("%s-%d", prefix, i))
		}
		return "[" + strings.Join(names, ", ") + "]"
	}
	apply := func(fleet string, n int) apiResponse {
		text := strings.Replace(newFleetText(listHosts(fleet, n)), `"name": "boxes"`, `"name": "`+fleet+`"`, 1)
		return h.callAs(h.admin, api.PathFleetApply, `{"configuration": `+text+`}`)
	}
	if a := apply("many", maxProjectHosts-1); a.status != 200 {
		t.Fatalf("%d %.300s", a.status, a.text)
	}
	if a := apply("few", 2); a.status != 400 || !strings.Contains(a.text, "project main would have 1001 hosts, 1000 at most: its other fleets have 999") {
		t.Errorf("%d %.300s", a.status, a.text)
	}
	for _, fleet := range []string{"few", "few"} {
		if a := apply(fleet, 1); a.status != 200 {
			t.Errorf("%d %.300s", a.status, a.text)
		}
	}
}
