package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

const groupsService = `{"type": "service", "port": 8000, "groups": [
	{"name": "large", "replicas": 1, "commands": ["serve"], "resources": {"gpu": 1}},
	{"name": "small", "replicas": {"min": 0, "max": 2}, "image": "x", "scaling": {"metric": "rps", "target": 5}}]}`

// groupsBody is the body of a call about a run with groups.
func groupsBody(configuration string) string {
	return `{"run_spec": {"run_name": "web", "repo_id": "web-12345678", "repo_data": {"repo_type": "local", "repo_dir": "/web"},
		"configuration_path": "f", "working_dir": ".", "profile": {"name": "default"}, "configuration": ` + configuration + `, "ssh_key_pub": "k"}}`
}

// callNewestText calls as the published client 0.22 does.
func (h *testServer) callNewestText(path, body string) apiResponse {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+"/api/project/main/"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+h.admin)
	r.Header.Set(wire.VersionHeader, wire.Dialect022.Version())
	a := h.send(r)
	if a.status != http.StatusOK {
		h.t.Fatalf("%s answered %d %s", path, a.status, a.text)
	}
	return a
}

// The plan of a service with groups has offers for each of them, in every dialect.
func TestPreview_Groups(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	var p api.Preview
	h.mustCall(api.PathPreview, groupsBody(groupsService), &p)
	if len(p.Groups) != 2 || p.Groups[0].Group != "large" || p.Groups[1].Max != 2 || len(p.Groups[0].Placements) != 1 || len(p.Placements) != 1 ||
		len(p.Plan.JobPlans) != 2 || p.Plan.JobPlans[1].JobSpec.ImageName != "x" {
		t.Errorf("%+v", p)
	}
	h.mustCall(api.PathPreview, groupsBody(strings.Replace(groupsService, `"gpu": 1`, `"gpu": 7`, 1)), &p)
	if len(p.Groups[0].Placements) != 0 || len(p.Groups[0].Rejections) != 1 || len(p.Groups[1].Placements) != 1 {
		t.Errorf("%+v", p.Groups)
	}
	h.expectError(api.ProjectPrefix+"/runs/submit", groupsBody(strings.Replace(groupsService, `"gpu": 1`, `"gpu": 7`, 1)), 400, dstack.NoCapacity,
		"group large: no machine suits")
	h.expectError(api.PathPreview, groupsBody(strings.Replace(groupsService, `"name": "large"`, `"name": "large", "router": {"type": "sglang"}`, 1)),
		400, dstack.Unsupported, "not supported yet: groups.0.router")

	processes := testOffer()
	processes.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.backend.offers = []dstack.Offer{processes}
	two := strings.NewReplacer(`{"min": 0, "max": 2}`, "1", `, "scaling": {"metric": "rps", "target": 5}`, "", `"image": "x"`, `"commands": ["other"]`).Replace(groupsService)
	h.mustCall(api.PathPreview, groupsBody(two), &p)
	if !strings.Contains(p.Groups[1].Rejections[0].Reason, "2 replicas want port 8000") {
		t.Errorf("%+v", p.Groups)
	}
}

// Clients of 0.22 plan, apply and list services with groups. Those of 0.18.10 can list them, too.
func TestGroups_OfPublishedClients(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	var plan struct {
		RunSpec  json.RawMessage `json:"run_spec"`
		JobPlans []struct {
			JobSpec struct {
				ReplicaGroup string `json:"replica_group"`
			} `json:"job_spec"`
		} `json:"job_plans"`
	}
	a := h.callNewestText("runs/get_plan", groupsBody(groupsService))
	if err := json.Unmarshal([]byte(a.text), &plan); err != nil {
		t.Fatal(err)
	}
	if len(plan.JobPlans) != 2 || plan.JobPlans[1].JobSpec.ReplicaGroup != "small" || !strings.Contains(string(plan.RunSpec), `"replicas":null,"groups":[{"name":"large"`) {
		t.Errorf("the plan is %s", a.text)
	}
	a = h.callNewestText("runs/apply", `{"plan": {"run_spec": `+string(plan.RunSpec)+`, "current_resource": null}, "force": false}`)
	var run api.Run
	if err := json.Unmarshal([]byte(a.text), &run); err != nil && run.ID == "" {
		t.Fatalf("%v: %s", err, a.text)
	}
	found, err := h.store.RunDetails(t.Context(), run.ID)
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if c := found[0].Run.Spec.Configuration; len(c.Groups) != 2 || c.Groups[1].Scaling.Target != 5 || c.Groups[0].Resources.GPU == nil || c.Replicas.Max != 3 {
		t.Errorf("the run has %+v", c.Groups)
	}
	var old api.Run
	h.mustCall(api.ProjectPrefix+"/runs/get", api.RunName{RunName: "web"}, &old)
	if c := old.RunSpec.Configuration; len(c.Groups) != 0 || len(c.Commands) != 1 || c.Replicas.Max != 3 {
		t.Errorf("for 0.18.10 it is %+v", c)
	}
	var x api.Explanation
	h.mustCall(api.PathExplain, api.RunName{RunName: "web"}, &x)
	if len(x.Groups) != 2 || x.Groups[0].DesiredReplicas != 1 || x.Groups[1].Scaling == nil || x.DesiredReplicas != 1 {
		t.Errorf("the explanation is %+v", x)
	}
}
