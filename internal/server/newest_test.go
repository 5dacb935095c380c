package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v022"
	"dstack/internal/sshserver"
)

// callNewest calls an operation as the newest published client does, and decodes the answer.
func (h *testServer) callNewest(token, path, body string, out any) apiResponse {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+strings.ReplaceAll(path, "{project_name}", "main"), strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set(wire.VersionHeader, "0.22.5")
	a := h.send(r)
	if out != nil {
		if err := json.Unmarshal([]byte(a.text), out); err != nil || a.status != http.StatusOK {
			h.t.Fatalf("%s: %d %s: %v", path, a.status, a.text, err)
		}
	}
	return a
}

const newestSpec = `{"run_name": "web", "repo_id": null, "configuration": {"type": "service", "port": 8000, "commands": ["true"], "repos": [], "https": null}}`

func TestNewest_ApplyChecksWhatTheUserSaw(t *testing.T) {
	h := newTestServer(t, func(o *Options) { o.UserKeys = []byte("0123456789abcdef0123456789abcdef") })
	var plan v022.RunPlan
	h.callNewest(h.admin, api.ProjectPrefix+"/runs/get_plan", `{"run_spec": `+newestSpec+`}`, &plan)
	if plan.Action != "create" || plan.CurrentResource != nil || plan.RunSpec.SSHKeyPub == nil || len(plan.JobPlans[0].Offers) != 1 {
		t.Fatalf("%+v", plan)
	}
	apply := func(current string, force bool) apiResponse {
		body, err := json.Marshal(map[string]any{"plan": map[string]any{"run_spec": json.RawMessage(newestSpec), "current_resource": json.RawMessage(current)}, "force": force})
		if err != nil {
			t.Fatal(err)
		}
		return h.callNewest(h.admin, api.ProjectPrefix+"/runs/apply", string(body), nil)
	}
	var run v022.Run
	if a := apply("null", false); json.Unmarshal([]byte(a.text), &run) != nil || run.Status != "submitted" || run.DeploymentNum != 1 || run.StatusMessage != "starting" {
		t.Fatalf("%d %s", a.status, a.text)
	}
	if a := apply("null", false); a.status != 400 || !strings.Contains(a.text, "was started in the meantime") {
		t.Errorf("a run that the user did not see: %d %s", a.status, a.text)
	}
	current := `{"id": "` + string(run.ID) + `", "deployment_num": 1}`
	if a := apply(current, false); a.status != 200 || !strings.Contains(a.text, `"deployment_num":2`) {
		t.Errorf("the run that the user saw: %d %s", a.status, a.text)
	}
	if a := apply(current, false); a.status != 400 || !strings.Contains(a.text, "is at revision 2 now; you saw revision 1") {
		t.Errorf("an earlier revision: %d %s", a.status, a.text)
	}
	if a := apply(current, true); a.status != 200 {
		t.Errorf("with force: %d %s", a.status, a.text)
	}
	for body, want := range map[string]int{`{"run_name": "web"}`: 200, `{"id": "` + string(run.ID) + `"}`: 200, `{"run_name": null, "id": null}`: 400,
		`{"run_name": "web", "id": "x"}`: 400, `{"id": "other"}`: 400} {
		if a := h.callNewest(h.admin, api.ProjectPrefix+"/runs/get", body, nil); a.status != want {
			t.Errorf("%s: %d %s", body, a.status, a.text)
		}
	}
}

func TestNewest_CallerHasTheKeyOfTheirRuns(t *testing.T) {
	h := newTestServer(t, func(o *Options) { o.UserKeys = []byte("0123456789abcdef0123456789abcdef") })
	ann := h.createUser("ann", dstack.RoleUser)
	h.mustCall("/api/projects/main/add_members", api.SetMembers{Members: []api.SetMember{{Username: "ann", ProjectRole: dstack.RoleUser}}}, nil)
	keys := map[string]string{}
	for _, token := range []string{h.admin, ann} {
		var caller v022.UserWithCreds
		h.callNewest(token, "/api/users/get_my_user", "", &caller)
		if caller.Creds.Token != token || caller.SSHPrivateKey == nil {
			t.Fatalf("%+v", caller)
		}
		keys[token] = *caller.SSHPublicKey
		if _, ok := sshserver.ParseKey(keys[token]); !ok {
			t.Errorf("%s is no key", keys[token])
		}
		var plan v022.RunPlan
		h.callNewest(token, api.ProjectPrefix+"/runs/get_plan", `{"run_spec": `+newestSpec+`}`, &plan)
		if *plan.RunSpec.SSHKeyPub != keys[token] {
			t.Errorf("the run has the key %s, and the user %s", *plan.RunSpec.SSHKeyPub, keys[token])
		}
	}
	if keys[h.admin] == keys[ann] {
		t.Error("two users have one key")
	}
	h.initRepo()
	ourSpec := h.newRunSpec("ours", plainService)
	ourSpec.SSHKeyPub = ""
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: ourSpec}, nil)
	var ours v022.Run
	h.callNewest(h.admin, api.ProjectPrefix+"/runs/get", `{"run_name": "ours"}`, &ours)
	if key := ours.RunSpec.SSHKeyPub; key == nil || *key != keys[h.admin] {
		t.Errorf("a run of our own client has the key %v, and its user %s", key, keys[h.admin])
	}
	if a := h.callAs(h.admin, "/api/users/get_my_user", ""); strings.Contains(a.text, "private") {
		t.Errorf("our own client gets %s", a.text)
	}
}

func TestNewest_ErrorsAreOneMessage(t *testing.T) {
	h := newTestServer(t)
	a := h.callNewest(h.admin, api.ProjectPrefix+"/runs/get_plan", `{"run_spec": {"configuration": {"type": "service", "port": 0, "nothing": 1, "commands": ["true"]}}}`, nil)
	if a.status != 400 || !strings.Contains(a.text, `"code":"error"`) || !strings.Contains(a.text, "port") || !strings.Contains(a.text, "nothing: unknown field") {
		t.Errorf("%d %s", a.status, a.text)
	}
	if a := h.callNewest(h.admin, api.ProjectPrefix+"/runs/get_plan", `{"nothing": 1}`, nil); a.status != 422 {
		t.Errorf("a request that clients do not send: %d %s", a.status, a.text)
	}
}

func TestNewest_EventsOfVisibleProjectsOnly(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	stranger := h.createUser("stranger", dstack.RoleUser)
	for _, c := range []struct {
		token, body string
		want        int
	}{
		{h.admin, `{}`, 1}, {stranger, `{}`, 0}, {stranger, `{"within_runs": ["` + string(run.ID) + `"]}`, 0},
		{h.admin, `{"within_runs": ["` + string(run.ID) + `"]}`, 1}, {h.admin, `{"within_runs": ["other"]}`, 0},
		{h.admin, `{"within_projects": ["other"]}`, 0}, {h.admin, `{"actors": [null]}`, 0}, {h.admin, `{"actors": ["nobody"]}`, 0},
		{h.admin, `{"prev_recorded_at": "2020-01-01T00:00:00Z"}`, 0}, {h.admin, `{"prev_recorded_at": "2020-01-01T00:00:00Z", "ascending": true}`, 1},
	} {
		var events []v022.Event
		h.callNewest(c.token, "/api/events/list", c.body, &events)
		if len(events) != c.want {
			t.Errorf("%s: %+v", c.body, events)
		}
	}
}

// TestDialects_PathsOfOneDialectAreServedInBoth calls what only one dialect has as a client of the other.
func TestDialects_PathsOfOneDialectAreServedInBoth(t *testing.T) {
	h := newTestServer(t)
	if a := h.callAs(h.admin, "/api/events/list", `{}`); a.status != 200 {
		t.Errorf("events/list without a version: %d %s", a.status, a.text)
	}
	if a := h.callNewest(h.admin, api.ProjectPrefix+"/pool/list", ``, nil); a.status != 200 {
		t.Errorf("pool/list as 0.22.5: %d %s", a.status, a.text)
	}
	if a := h.callNewest(h.admin, "/api/projects/main/get", ``, nil); !strings.Contains(a.text, "can_manage_secrets") {
		t.Errorf("as 0.22.5: %s", a.text)
	}
	if a := h.callAs(h.admin, "/api/projects/main/get", ``); strings.Contains(a.text, "permissions") {
		t.Errorf("without a version: %s", a.text)
	}
}
