package server

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

func TestRuns_SubmitGetAndList(t *testing.T) {
	h := newTestServer(t)
	h.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService)}, 400, dstack.NotFound, "repo_does_not_exist")
	h.initRepo()
	before := h.wakes.Load()
	run := h.submitRun("web")
	if run.Status != "submitted" || run.Jobs == nil || run.LatestJobSubmission != nil || *run.RunSpec.RunName != "web" ||
		run.Service.URL != h.url+"/proxy/services/main/web/" || run.ProjectName != "main" || run.User != "admin" {
		t.Errorf("%+v", run)
	}
	if h.wakes.Load() == before {
		t.Error("the passes were not woken")
	}
	h.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService)}, 400, dstack.Conflict, "Cannot delete active runs: ['web']")
	h.expectError(api.ProjectPrefix+"/runs/get", `{"run_name": "none"}`, 400, dstack.NotFound, `"msg":"Run not found","code":"resource_not_exists"`)

	var list []api.Run
	h.mustCall("/api/runs/list", `{"project_name": "main", "only_active": true, "limit": 100}`, &list)
	if len(list) != 1 || list[0].ID != run.ID {
		t.Errorf("%+v", list)
	}
	h.startReplica(run.ID)
	h.mustCall(api.ProjectPrefix+"/runs/get", `{"run_name": "web"}`, &run)
	if run.Status != "provisioning" || len(run.Jobs) != 1 || run.LatestJobSubmission.Status != "provisioning" ||
		run.LatestJobSubmission.JobProvisioningData.InstanceType.Name != "box" {
		t.Errorf("%s, %+v", run.Status, run.LatestJobSubmission)
	}
}

func TestSubmit_GeneratesAName(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("")
	name := *run.RunSpec.RunName
	if !regexp.MustCompile(`^[a-z]+-[a-z]+-1$`).MatchString(name) || run.RunSpec.Configuration.Name != "" {
		t.Errorf("%q, %q", name, run.RunSpec.Configuration.Name)
	}
	h.mustCall(api.ProjectPrefix+"/runs/get", api.RunName{RunName: name}, nil)
}

func TestSubmit_ErrorsListEveryProblem(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	submit := func(name, yaml string) api.RunSpecRequest {
		return api.RunSpecRequest{RunSpec: h.newRunSpec(name, yaml)}
	}
	gpus := plainService + "resources: {gpu: 2}\n"
	h.expectError(api.ProjectPrefix+"/runs/submit", submit("Web", plainService), 400, dstack.Invalid, `"msg":"Resource name should match regex '^[a-z][a-z0-9-]{1,40}$'","code":"error"`)
	h.expectError(api.ProjectPrefix+"/runs/submit", submit("gateway", plainService), 400, dstack.Invalid, "cannot be called")
	h.expectError(api.ProjectPrefix+"/runs/submit", submit("web", plainService+"setup: [a]\nhome_dir: /home/me\n"), 400, dstack.Unsupported, "not supported yet: ")
	h.expectError(api.ProjectPrefix+"/runs/submit", submit("web", gpus), 400, dstack.NoCapacity, "box: ")
	h.mustSubmit(submit("waits", gpus+"retry: true\n"))

	missing := h.newRunSpec("web", plainService)
	hash := hexSHA256("never uploaded")
	missing.RepoCodeHash = &hash
	h.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: missing}, 400, dstack.Invalid, "was not uploaded")

	raw := `{"run_spec": {"repo_id": "web-12345678", "repo_data": {"repo_type": "local"}, "working_dir": ".", "configuration_path": "f",
		"configuration": {"type": "service", "port": 70000, "comands": ["a"], "image": "x"}, "profile": {"name": "default"}, "ssh_key_pub": ""}}`
	h.expectError(api.ProjectPrefix+"/runs/submit", raw, 422, dstack.Invalid, `"loc":["body","run_spec","configuration","port"]`)
	h.expectError(api.ProjectPrefix+"/runs/submit", raw, 422, dstack.Invalid, `"loc":["body","run_spec","configuration","comands"]`)
	var list []api.Run
	h.mustCall("/api/runs/list", `{}`, &list)
	if len(list) != 1 {
		t.Errorf("%d refused runs were created", len(list)-1)
	}
}

func (h *testServer) mustSubmit(in api.RunSpecRequest) {
	h.t.Helper()
	h.mustCall(api.ProjectPrefix+"/runs/submit", in, nil)
}

func TestStopAndDelete(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	h.expectError(api.ProjectPrefix+"/runs/delete", `{"runs_names": ["web", "none"]}`, 400, dstack.Conflict, "Cannot delete active runs: ['web']")
	if a := h.callAs(h.admin, api.ProjectPrefix+"/runs/stop", `{"runs_names": ["web", "none"], "abort": true}`); a.status != 200 || a.text != "null" {
		t.Fatalf("%d %s", a.status, a.text)
	}
	kept, err := h.store.Run(t.Context(), mainProjectID(t, h), "web")
	if err != nil || kept.Stop != dstack.StopAbort {
		t.Errorf("%+v, %v", kept, err)
	}
	h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunTerminated, Ending: dstack.EndAborted})
	h.mustCall(api.ProjectPrefix+"/runs/get", `{"run_name": "web"}`, &run)
	if run.Status != "terminated" || orEmpty(run.TerminationReason) != "aborted_by_user" {
		t.Errorf("%s, %v", run.Status, orEmpty(run.TerminationReason))
	}
	h.mustCall(api.ProjectPrefix+"/runs/stop", `{"runs_names": ["web"], "abort": false}`, nil) // finished: no error
	h.mustCall(api.ProjectPrefix+"/runs/delete", `{"runs_names": ["web", "none"]}`, nil)
	h.expectError(api.ProjectPrefix+"/runs/get", `{"run_name": "web"}`, 400, dstack.NotFound, "Run not found")
	h.submitRun("web") // the name is free again
}

func mainProjectID(t *testing.T, h *testServer) dstack.ProjectID {
	t.Helper()
	p, err := h.store.Project(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	return p.ID
}

func TestListRuns_PagesAndFilters(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	for i := range 5 {
		h.submitRun(fmt.Sprintf("web-%d", i))
	}
	var names []string
	page := map[string]any{"limit": 2}
	for range 4 {
		var runs []api.Run
		h.mustCall("/api/runs/list", page, &runs)
		for _, r := range runs {
			names = append(names, *r.RunSpec.RunName)
			page["prev_submitted_at"], page["prev_run_id"] = r.SubmittedAt, r.ID
		}
	}
	if got := strings.Join(names, " "); got != "web-4 web-3 web-2 web-1 web-0" {
		t.Errorf("pages of 2: %s", got)
	}
	for body, want := range map[string]int{
		`{}`: 5, `{"limit": 0}`: 0, `{"limit": 3}`: 3, `{"project_name": "MAIN"}`: 5, `{"project_name": "none"}`: 0,
		`{"repo_id": "web-12345678"}`: 0, `{"repo_id": "web-12345678", "project_name": "main"}`: 5, `{"username": "admin"}`: 5,
	} {
		var runs []api.Run
		h.mustCall("/api/runs/list", body, &runs)
		if len(runs) != want {
			t.Errorf("%s: %d runs, want %d", body, len(runs), want)
		}
	}
	h.expectError("/api/runs/list", `{"username": "eve"}`, 400, dstack.NotFound, "User not found")
	h.expectError("/api/runs/list", `{"limit": 101}`, 422, dstack.Invalid, "less than or equal to 100")
}

func TestGetPlan(t *testing.T) {
	h := newTestServer(t)
	var plan api.RunPlan
	h.mustCall(api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService)}, &plan)
	one := plan.JobPlans[0]
	if len(plan.JobPlans) != 1 || one.TotalOffers != 1 || one.JobSpec.JobName != "dry-run-0-0" || one.MaxPrice == nil ||
		one.Offers[0].Instance.Resources.Description != "8xCPU, 32GB, 1xL4 (24GB), 100.0GB (disk)" || plan.RunSpec.Profile.PoolName != "default-pool" {
		t.Errorf("%+v", plan)
	}
	// The 0.18.10 client submits the spec of the plan as it is.
	h.initRepo()
	h.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: plan.RunSpec}, nil)
}

func TestPreview(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	preview := func(yaml string) (p api.Preview) {
		t.Helper()
		h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: h.newRunSpec("web", yaml)}, &p)
		return p
	}
	p := preview(plainService + "model: {type: chat, name: m, format: openai}\n")
	if len(p.Placements) != 1 || p.Existing != nil || p.URL != h.localURL("web")+"/" || p.ModelURL != h.url+"/v1" {
		t.Errorf("%+v", p)
	}
	p = preview(plainService + "resources: {gpu: 2}\n")
	if len(p.Placements) != 0 || len(p.Rejections) != 1 || p.Rejections[0].Reason == "" {
		t.Errorf("without a placement: %+v", p)
	}
	processes := testOffer()
	processes.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.backend.offers = []dstack.Offer{processes}
	p = preview(plainService + "python: \"3.11\"\n")
	if len(p.Notes) != 2 || !strings.Contains(p.Notes[1], "python 3.11") {
		t.Errorf("notes %v", p.Notes)
	}
	two := plainService + "replicas: 2\n"
	p = preview(two)
	if len(p.Placements) != 0 || !strings.Contains(p.Rejections[0].Reason, "2 replicas want port 8000 on one machine: plain processes share its ports") {
		t.Errorf("%+v", p)
	}
	h.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("web", two)}, 400, dstack.Invalid, "plain processes share its ports")
	h.backend.offers, h.backend.fail = nil, errors.New("no answer from the daemon")
	p = preview(plainService)
	if len(p.Placements) != 0 || !strings.Contains(strings.Join(p.Notes, " "), "no answer from the daemon") {
		t.Errorf("notes %v", p.Notes)
	}
}

// Clients upload the code after the preview, which knows it by its hash alone.
func TestPreview_CodeThatDiffersIsAChange(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.submitRun("web")
	for _, c := range []struct{ name, yaml, strategy string }{
		{"commands run the code", plainService, api.StrategyRolling},
		{"an image without commands gets none", "type: service\nport: 8000\nimage: nginx\n", api.StrategyInPlace},
	} {
		rs, hash := h.newRunSpec("web", c.yaml), hexSHA256("not uploaded yet")
		rs.RepoCodeHash = &hash
		var p api.Preview
		h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, &p)
		want := api.Change{Path: "code", To: hash[:8], Strategy: c.strategy}
		if !slices.Contains(p.Changes, want) {
			t.Errorf("%s: the changes are %+v, want %+v among them", c.name, p.Changes, want)
		}
	}
}

func TestApply_SubmitsThenRevises(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	apply := func(yaml string, revision int) api.ApplyRequest {
		return api.ApplyRequest{RunSpec: h.newRunSpec("web", yaml), Revision: revision}
	}
	h.expectError(api.PathApply, apply(plainService, 1), 400, dstack.Conflict, "has ended")
	var v api.RunView
	h.mustCall(api.PathApply, apply(plainService, 0), &v)
	if v.Revision != 1 || v.Status != api.StatusWaiting || v.Version == "" {
		t.Errorf("%+v", v)
	}
	other := strings.Replace(plainService, "[a]", "[b]", 1)
	h.expectError(api.PathApply, apply(other, 0), 400, dstack.Conflict, "was started in the meantime")
	h.expectError(api.PathApply, apply(other, 7), 400, dstack.Conflict, "at revision 1 now")

	var p api.Preview
	h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: h.newRunSpec("web", other)}, &p)
	if p.Existing == nil || p.Existing.Revision != 1 || len(p.Changes) != 1 || p.Changes[0].Path != "commands.0" {
		t.Errorf("%+v", p.Changes)
	}
	h.mustCall(api.PathApply, apply(other, 1), &v)
	if v.Revision != 2 {
		t.Errorf("%+v", v)
	}
	h.expectError(api.PathApply, apply(plainService, 1), 400, dstack.Conflict, "at revision 2 now")
}

// A run that uses all of a machine can be replaced on it.
func TestRollBackRun_DoesNothingIfTheRevisionsAreEqual(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	var v api.RunView
	other := strings.Replace(plainService, "port: ", "port: 1", 1)
	for revision, yaml := range []string{plainService, other} {
		h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", yaml), Revision: revision}, &v)
	}
	for _, c := range []struct{ to, current, want int }{{1, 2, 3}, {1, 3, 3}, {2, 3, 4}} {
		h.mustCall(api.PathRollback, api.RollbackRequest{RunName: "web", To: c.to, Revision: c.current}, &v)
		if v.Revision != c.want {
			t.Errorf("from revision %d back to %d: revision %d, want %d", c.current, c.to, v.Revision, c.want)
		}
	}
	var revisions []api.RevisionView
	h.mustCall(api.PathHistory, api.RunName{RunName: "web"}, &revisions)
	if len(revisions) != 4 {
		t.Errorf("%d revisions, want 4", len(revisions))
	}
}

// The changes in the history are those that the plan showed: from the revision
// that the run went back to, not from one that failed.
func TestHistory_ComparesWithTheRevisionThatServed(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	apply := func(command string, revision int) (v api.RunView) {
		yaml := strings.Replace(plainService, "[a]", command, 1)
		h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", yaml), Revision: revision}, &v)
		return v
	}
	run := dstack.RunID(apply("[a]", 0).ID)
	h.stepRun(run, lifecycle.RunStep{To: dstack.RunActive, Ready: true})
	apply("[a, broken]", 1)
	h.stepRun(run, lifecycle.RunStep{To: dstack.RunActive, Rollback: &lifecycle.Rollback{ToRevision: 1, Reason: "it exited with code 1"}})
	if v := apply("[b]", 1); v.Revision != 3 {
		t.Fatalf("revision %d", v.Revision)
	}
	var history []api.RevisionView
	h.mustCall(api.PathHistory, api.RunName{RunName: "web"}, &history)
	want := map[int][]api.Change{
		3: {{Path: "commands.0", From: "a", To: "b", Strategy: api.StrategyRolling}},
		2: {{Path: "commands.1", To: "broken", Strategy: api.StrategyRolling}},
		1: {},
	}
	for _, r := range history {
		if !slices.Equal(want[r.Num], r.Changes) {
			t.Errorf("revision %d: got %v, want %v", r.Num, r.Changes, want[r.Num])
		}
	}
	if len(history) != 3 {
		t.Errorf("%d revisions", len(history))
	}
}

// A replica that starts while its run is planned anew does not take the port from the next revision.
func TestApply_ReleasesAllocationsMadeMeanwhile(t *testing.T) {
	h, models := newTestServerWithHub(t)
	h.initRepo()
	offer := testOffer()
	offer.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.backend.offers = []dstack.Offer{offer}
	run := h.submitRun("web")
	goOn := make(chan struct{})
	models.Fail(hubtest.Fault{Until: goOn})
	answered := make(chan apiResponse, 1)
	go func() {
		rs := h.newRunSpec("web", plainService+"model: {type: chat, name: org/m, format: tgi}\n")
		answered <- h.callAs(h.admin, api.PathApply, api.ApplyRequest{RunSpec: rs, Revision: 1})
	}()
	for len(models.Requests()) == 0 && len(answered) == 0 {
		time.Sleep(time.Millisecond)
	}
	h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0}}})
	h.stepReplica(h.findReplica(run.ID).ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true,
			Placement: &dstack.Placement{Offer: offer, Claim: dstack.Claim{Ports: []int{8000}}}}
	})
	close(goOn)
	if a := <-answered; a.status != http.StatusOK {
		t.Errorf("answered %d %s", a.status, a.text)
	}
}

func TestApply_ReleasesAllocationsOfTheExistingRun(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	offer := testOffer()
	offer.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.backend.offers = []dstack.Offer{offer}
	run := h.submitRun("web")
	h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0}}})
	h.stepReplica(h.findReplica(run.ID).ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true,
			Placement: &dstack.Placement{Offer: offer, Claim: dstack.Claim{Ports: []int{8000}}}}
	})
	h.expectError(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("other", plainService)}, 400, dstack.NoCapacity, "port 8000 is taken by web replica 0")
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", plainService), Revision: 1}, nil)
}

func TestWaitForView_WaitsForAChange(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	var v api.RunView
	h.mustCall(api.PathView, api.RunViewRequest{RunName: "web"}, &v)

	began := time.Now()
	var same api.RunView
	h.mustCall(api.PathView, api.RunViewRequest{RunName: "web", After: v.Version, WaitSeconds: 1}, &same)
	if same.Version != v.Version || time.Since(began) < 900*time.Millisecond {
		t.Errorf("it returned after %s", time.Since(began))
	}
	changed := make(chan api.RunView, 1)
	go func() {
		var next api.RunView
		h.mustCall(api.PathView, api.RunViewRequest{RunName: "web", After: v.Version, WaitSeconds: 30}, &next)
		changed <- next
	}()
	h.startReplica(run.ID)
	select {
	case next := <-changed:
		if next.Version == v.Version {
			t.Error("the version is the same")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("timeout: the change was not reported")
	}
	h.expectError(api.PathView, api.RunViewRequest{RunName: "web", RunID: "11111111-1111-4111-8111-111111111111"}, 400, dstack.Conflict, "replaced")
	h.expectError(api.PathView, `{"run_name": "web", "wait_seconds": 61}`, 422, dstack.Invalid, "less than or equal to 60")
	var list []api.RunView
	h.mustCall(api.PathViews, `{"only_active": true}`, &list)
	if len(list) != 1 || list[0].Status != api.StatusStarting || len(list[0].Replicas) != 1 {
		t.Errorf("%+v", list)
	}
}
