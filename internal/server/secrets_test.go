package server

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

const secretService = "type: service\nport: 8000\ncommands: [a]\nenv: {TOKEN: 'Bearer ${{ secrets.TOKEN }}'}\n"

func (h *testServer) setSecret(name, value string) (result api.SetSecretResult) {
	h.t.Helper()
	h.mustCall(api.PathSecrets+"/create_or_update", api.SetSecret{Name: name, Value: value}, &result)
	return result
}

func TestSecrets_SetListGetAndDelete(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	if made := h.setSecret("TOKEN", "canary-one"); !made.Created || !made.Changed || len(made.Rolled) > 0 || made.ChangedBy != "admin" {
		t.Errorf("got %+v", made)
	}
	if same := h.setSecret("TOKEN", "canary-one"); same.Created || same.Changed {
		t.Errorf("got %+v", same)
	}
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", secretService)}, nil)
	if changed := h.setSecret("TOKEN", "canary-two"); !changed.Changed || !cmp.Equal(changed.Rolled, []string{"web"}) || !cmp.Equal(changed.UsedBy, []string{"web"}) {
		t.Errorf("got %+v", changed)
	}
	a := h.callAs(h.admin, api.PathSecrets+"/list", "")
	var list []api.Secret
	if err := json.Unmarshal([]byte(a.text), &list); err != nil || len(list) != 1 || !strings.Contains(a.text, `"value":null`) || !cmp.Equal(list[0].UsedBy, []string{"web"}) {
		t.Errorf("got %s, %v", a.text, err)
	}
	var one api.Secret
	if h.mustCall(api.PathSecrets+"/get", api.GetSecret{Name: "TOKEN"}, &one); one.Value != nil || one.ID != list[0].ID {
		t.Errorf("got %+v", one)
	}
	h.expectError(api.PathSecrets+"/get", api.GetSecret{Name: "none"}, 400, dstack.NotFound, "no secret ")
	h.expectError(api.PathSecrets+"/delete", api.DeleteSecrets{SecretsNames: []string{"TOKEN"}}, 400, dstack.Conflict, "TOKEN is used by web")
	h.mustCall(api.PathSecrets+"/delete", api.DeleteSecrets{SecretsNames: []string{"TOKEN"}, Force: true}, nil)
	h.expectError(api.PathSecrets+"/delete", api.DeleteSecrets{SecretsNames: []string{"TOKEN"}}, 400, dstack.NotFound, "no secret TOKEN")
}

// Members see names; only admins of the project set and delete.
func TestSecrets_WhoMayDoWhat(t *testing.T) {
	h := newTestServer(t)
	h.setSecret("TOKEN", "canary")
	member := h.createUser("member", dstack.RoleUser)
	h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{{Username: "member", ProjectRole: dstack.RoleUser}}}, nil)
	if a := h.callAs(member, api.PathSecrets+"/list", ""); a.status != 200 || !strings.Contains(a.text, "TOKEN") || strings.Contains(a.text, "canary") {
		t.Errorf("got %d %s", a.status, a.text)
	}
	for path, body := range map[string]any{"/create_or_update": api.SetSecret{Name: "A", Value: "b"}, "/delete": api.DeleteSecrets{SecretsNames: []string{"TOKEN"}, Force: true}} {
		if a := h.callAs(member, api.PathSecrets+path, body); a.status != 403 || a.errorKind() != dstack.Forbidden {
			t.Errorf("%s: got %d %s", path, a.status, a.text)
		}
	}
}

func TestSetSecret_RefusesBadNamesAndValues(t *testing.T) {
	h := newTestServer(t)
	for _, c := range []struct {
		name, value string
		kind        dstack.Kind
		want        string
	}{
		{"A B", "canary", dstack.Invalid, "`A B` is not a valid name for a secret"},
		{"", "canary", dstack.Invalid, "is not a valid name"},
		{"A", "", dstack.Invalid, "the value is empty"},
		{"A", "canary\x00", dstack.Invalid, "value: the text contains the character U+0000"},
		{"A", "canary" + strings.Repeat("x", api.MaxSecretBytes), dstack.TooLarge, "64KB is the limit"},
	} {
		a := h.callAs(h.admin, api.PathSecrets+"/create_or_update", api.SetSecret{Name: c.name, Value: c.value})
		if a.errorKind() != c.kind || !strings.Contains(a.text, c.want) || strings.Contains(a.text, "canary") {
			t.Errorf("%q: got %d %.300s", c.name, a.status, a.text)
		}
	}
	h.setSecret("A", strings.Repeat("x", api.MaxSecretBytes))
}

// A plan names all secrets that do not exist, and all references that nothing
// replaces.
func TestPlan_RefusesMissingSecretsAndReferences(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	missing := h.newRunSpec("web", "type: service\nport: 8000\ncommands: [a]\nenv: {A: '${{ secrets.B }}${{ secrets.A }}'}\n")
	for path, body := range map[string]any{api.PathPreview: api.RunSpecRequest{RunSpec: missing}, api.PathApply: api.ApplyRequest{RunSpec: missing},
		api.ProjectPrefix + "/runs/get_plan": api.RunSpecRequest{RunSpec: missing}, api.ProjectPrefix + "/runs/submit": api.RunSpecRequest{RunSpec: missing}} {
		h.expectError(path, body, 400, dstack.Invalid, "this project has no secrets A, B")
		h.expectError(path, body, 400, dstack.Invalid, "dstack secret set A; dstack secret set B")
	}
	for yaml, want := range map[string]string{
		"env: {A: '${{ env.A }}'}":                                "env.A: there is no value for `env.A`",
		"image: 'x/${{ secrets.A }}'":                             "image: `${{ secrets.A }}` cannot be used here",
		"entrypoint: '${{ secrets.A }}'\nworking_dir: '${{ x }}'": "working_dir: `${{ x }}` cannot be used here",
	} {
		h.expectError(api.PathPreview, api.RunSpecRequest{RunSpec: h.newRunSpec("web", "type: service\nport: 8000\ncommands: [a]\n"+yaml)}, 400, dstack.Invalid, want)
	}
}

// The value is in no answer and not in the log; the reference is.
func TestSecrets_ValuesAreNeverShown(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.setSecret("TOKEN", "canary-one")
	rs := h.newRunSpec("web", secretService+"image: a\nregistry_auth: {username: u, password: '${{ secrets.TOKEN }}'}\n")
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs}, nil)
	h.setSecret("TOKEN", "canary-two")
	reference := false
	for path, body := range map[string]any{
		api.PathPreview: api.RunSpecRequest{RunSpec: rs}, api.ProjectPrefix + "/runs/get_plan": api.RunSpecRequest{RunSpec: rs},
		api.ProjectPrefix + "/runs/get": api.RunName{RunName: "web"}, api.PathHistory: api.RunName{RunName: "web"},
		api.PathEvents: api.EventsRequest{RunName: "web"}, api.PathView: api.RunViewRequest{RunName: "web"}, api.PathSecrets + "/list": "",
	} {
		a := h.callAs(h.admin, path, body)
		if a.status != 200 || strings.Contains(a.text, "canary") {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
		reference = reference || strings.Contains(a.text, "${{ secrets.TOKEN }}")
	}
	if !reference {
		t.Error("no answer shows the reference")
	}
	if log := h.log.String(); strings.Contains(log, "canary") || !strings.Contains(log, `msg="secret set"`) {
		t.Errorf("the log is %s", log)
	}
}

// A changed secret is a change of its own in plans and in the history; a rollback
// keeps the present values.
func TestSecrets_InPlansHistoryAndRollbacks(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.setSecret("TOKEN", "one")
	rs := h.newRunSpec("web", secretService)
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs}, nil)
	var view api.RunView
	h.mustCall(api.PathView, api.RunViewRequest{RunName: "web"}, &view)
	h.stepRun(dstack.RunID(view.ID), lifecycle.RunStep{To: dstack.RunActive, Ready: true})
	h.setSecret("TOKEN", "two")
	var history []api.RevisionView
	h.mustCall(api.PathHistory, api.RunName{RunName: "web"}, &history)
	want := []api.Change{{Path: "secrets.TOKEN", From: "an earlier value", To: "a later value", Strategy: api.StrategyRolling}}
	if diff := cmp.Diff(want, history[0].Changes); diff != "" {
		t.Error(diff)
	}
	h.expectError(api.PathRollback, api.RollbackRequest{RunName: "web", Revision: 2, To: 1}, 400, dstack.Conflict, "differs only by the value of the secret TOKEN")

	h.stepRun(dstack.RunID(view.ID), lifecycle.RunStep{To: dstack.RunActive, Rollback: &lifecycle.Rollback{ToRevision: 1, Reason: "refused"}})
	var preview api.Preview
	h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: rs}, &preview)
	if diff := cmp.Diff(want, preview.Changes); diff != "" { // applying again tries the present value
		t.Error(diff)
	}
	rs.Configuration.Commands = []string{"b"}
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: rs, Revision: 1}, nil)
	h.mustCall(api.PathRollback, api.RollbackRequest{RunName: "web", Revision: 3, To: 1}, nil)
	run, err := h.store.Run(t.Context(), findMainProject(t, h), "web")
	if err != nil {
		t.Fatal(err)
	}
	resolved, err := h.store.ResolveSecrets(t.Context(), run)
	if value, _ := resolved.Spec.Configuration.Env.Get("TOKEN"); err != nil || value != "Bearer two" || run.Spec.Configuration.Commands[0] != "a" {
		t.Errorf("after a rollback of the configuration: %q, %v", value, err)
	}
}

// findMainProject returns the ID of the project main.
func findMainProject(t *testing.T, h *testServer) dstack.ProjectID {
	t.Helper()
	p, err := h.store.Project(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	return p.ID
}
