package server

import (
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// Plain processes have the rights of the server's user. A member and an admin of the
// project get no machine for them, neither for a run of their own nor for a revision of
// a global admin's run; and the global admin does.
func TestProcesses_AreForGlobalAdmins(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	tokens := map[string]string{"ann": h.createUser("ann", dstack.RoleUser), "bob": h.createUser("bob", dstack.RoleUser)}
	h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{
		{Username: "ann", ProjectRole: dstack.RoleUser}, {Username: "bob", ProjectRole: dstack.RoleAdmin},
	}}, nil)
	processes := testOffer()
	processes.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.backend.offers = []dstack.Offer{processes}
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", plainService)}, nil)
	h.mustCall(api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", plainService+"env: [A=1]\n"), Revision: 1}, nil)

	waits := plainService + "retry: {on_events: [no-capacity], duration: 1h}\n"
	for user, token := range tokens {
		for name, request := range map[string]struct {
			path string
			body any
		}{
			"a new run":                  {api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("own", plainService)}},
			"a new run that could wait":  {api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("own", waits)}},
			"a new run of an old client": {api.ProjectPrefix + "/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("own", plainService)}},
			"a revision":                 {api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", plainService+"env: [A=2]\n"), Revision: 2}},
			"a revision in place":        {api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("web", plainService+"env: [A=1]\nauth: false\n"), Revision: 2}},
			"a rollback":                 {api.PathRollback, api.RollbackRequest{RunName: "web", Revision: 2, To: 1}},
		} {
			got := h.callAs(token, request.path, request.body)
			if got.status != 403 || got.errorKind() != dstack.Forbidden || !strings.Contains(got.text, "install Docker") {
				t.Errorf("%s: %s: %d %s", user, name, got.status, got.text)
			}
		}
		preview := h.callAs(token, api.PathPreview, api.RunSpecRequest{RunSpec: h.newRunSpec("own", plainService)})
		if preview.status != 200 || !strings.Contains(preview.text, "only global admins may use") {
			t.Errorf("%s: the preview is %d %s", user, preview.status, preview.text)
		}
	}
	h.mustCall(api.PathRollback, api.RollbackRequest{RunName: "web", Revision: 2, To: 1}, nil)

	h.backend.offers = append(h.backend.offers, testOffer()) // a machine with containers
	if got := h.callAs(tokens["ann"], api.PathApply, api.ApplyRequest{RunSpec: h.newRunSpec("own", plainService)}); got.status != 200 {
		t.Errorf("with containers: %d %s", got.status, got.text)
	}
}

// A global admin who rolls back a member's run, or sets a secret that it uses, lends its
// commands no rights.
func TestProcesses_RightsAreTheAuthors(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	ann := h.createUser("ann", dstack.RoleUser)
	h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{{Username: "ann", ProjectRole: dstack.RoleUser}}}, nil)
	project, err := h.store.Project(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	h.setSecret("TOKEN", "one")
	for revision, yaml := range []string{secretService, secretService + "auth: false\n"} {
		request := api.ApplyRequest{RunSpec: h.newRunSpec("web", yaml), Revision: revision}
		if got := h.callAs(ann, api.PathApply, request); got.status != 200 {
			t.Fatal(got.text)
		}
	}
	expectAuthor := func(what string, revision int) {
		t.Helper()
		run, err := h.store.Run(t.Context(), project.ID, "web")
		if err != nil || run.Revision != revision || run.User != "ann" || run.IsGlobalAdmin {
			t.Errorf("%s: revision %d is by %s, global admin: %v, %v", what, run.Revision, run.User, run.IsGlobalAdmin, err)
		}
	}
	h.mustCall(api.PathRollback, api.RollbackRequest{RunName: "web", Revision: 2, To: 1}, nil)
	expectAuthor("after the rollback", 3)
	h.setSecret("TOKEN", "two")
	expectAuthor("after the change of the secret", 4)
}
