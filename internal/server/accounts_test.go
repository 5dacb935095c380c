package server

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
)

func TestUsers(t *testing.T) {
	h := newTestServer(t)
	token := h.createUser("ann", dstack.RoleUser)
	h.createUser("bob", dstack.RoleUser)

	var users []api.User
	h.mustCall("/api/users/list", "", &users)
	if len(users) != 3 {
		t.Errorf("%+v", users)
	}
	if a := h.callAs(token, "/api/users/list", ""); strings.Count(a.text, `"username"`) != 1 || !strings.Contains(a.text, `"email":null`) {
		t.Errorf("ann sees %s", a.text)
	}
	if a := h.callAs(token, "/api/users/get_user", `{"username": "ann"}`); !strings.Contains(a.text, `"creds":{"token":""}`) {
		t.Errorf("%s", a.text)
	}
	for _, path := range []string{"/api/users/get_user", "/api/users/refresh_token"} {
		existing, missing := h.callAs(token, path, `{"username": "bob"}`), h.callAs(token, path, `{"username": "eve"}`)
		if existing.status != 400 || existing.errorKind() != dstack.NotFound ||
			strings.ReplaceAll(existing.text, "bob", "eve") != missing.text {
			t.Errorf("%s: the response for an existing user is %s, for a missing user %s",
				path, existing.text, missing.text)
		}
	}
	h.expectError("/api/users/create", api.PutUser{Username: "ann", GlobalRole: "user"}, 400, dstack.Conflict, `"code":"resource_exists"`)
	h.expectError("/api/users/create", api.PutUser{Username: "a b", GlobalRole: "user"}, 400, dstack.Invalid, "cannot be called")
	h.expectError("/api/users/delete", `{"users": ["admin"]}`, 400, dstack.Conflict, "the user admin cannot be deleted")
	h.expectError("/api/users/update", api.PutUser{Username: "admin", GlobalRole: "user"}, 400, dstack.Conflict, "without the role admin")

	var updated api.UserWithCreds
	if a := h.callAs(token, "/api/users/refresh_token", `{"username": "ann"}`); a.status != 200 || strings.Contains(a.text, `"token":""`) {
		t.Fatalf("%s", a.text)
	}
	if a := h.callAs(token, "/api/users/get_my_user", ""); a.errorKind() != dstack.Unauthorized {
		t.Errorf("the old token is still valid: %s", a.text)
	}
	mail := "ann@example.com"
	h.mustCall("/api/users/update", api.PutUser{Username: "ann", GlobalRole: dstack.RoleAdmin, Email: &mail}, &updated)
	if updated.GlobalRole != dstack.RoleAdmin || updated.Email == nil || *updated.Email != mail {
		t.Errorf("%+v", updated)
	}
	h.mustCall("/api/users/delete", `{"users": ["ann", "bob"]}`, nil)
	h.expectError("/api/users/get_user", `{"username": "ann"}`, 400, dstack.NotFound, "resource_not_exists")
}

func TestProjects(t *testing.T) {
	h := newTestServer(t)
	ann := h.createUser("ann", dstack.RoleUser)
	h.expectError("/api/projects/delete", `{"projects_names": ["MAIN"]}`, 400, dstack.Conflict, "Cannot delete the only project")
	if a := h.callAs(ann, "/api/projects/create", `{"project_name": "lab"}`); a.status != 200 || !strings.Contains(a.text, `"project_role":"admin"`) {
		t.Fatalf("%s", a.text)
	}
	if a := h.callAs(ann, "/api/projects/create", `{"project_name": "LAB"}`); a.errorKind() != dstack.Conflict {
		t.Errorf("%s", a.text)
	}
	if a := h.callAs(ann, "/api/projects/LAB/get", ""); a.status != 200 {
		t.Errorf("the name is case-sensitive: %s", a.text)
	}
	if a := h.callAs(ann, "/api/projects/list", ""); !strings.Contains(a.text, "lab") || strings.Contains(a.text, "main") {
		t.Errorf("ann sees %s", a.text)
	}
	existing, missing := h.callAs(ann, "/api/projects/delete", `{"projects_names": ["main"]}`), h.callAs(ann, "/api/projects/delete", `{"projects_names": ["none"]}`)
	if existing.status != http.StatusForbidden || strings.ReplaceAll(existing.text, "main", "none") != missing.text || !strings.Contains(existing.text, `"msg":"Access denied"`) {
		t.Errorf("%s but %s", existing.text, missing.text)
	}
	h.expectError("/api/projects/main/set_members", `{"members": [{"username": "eve", "project_role": "user"}]}`, 400, dstack.NotFound, "eve")
	h.mustCall("/api/projects/main/set_members", `{"members": [{"username": "ann", "project_role": "user"}]}`, nil)
	var project api.Project
	h.mustCall("/api/projects/main/get", "", &project)
	if len(project.Members) != 1 || project.Members[0].User.Username != "ann" || project.Owner.Username != "admin" ||
		len(project.Backends) != 1 || project.Backends[0].Name != "local" {
		t.Errorf("%+v", project)
	}
	for i := range maxOwnedProjects - 1 {
		if a := h.callAs(ann, "/api/projects/create", api.CreateProject{ProjectName: "p" + string(rune('a'+i))}); a.status != 200 {
			t.Fatalf("%s", a.text)
		}
	}
	if a := h.callAs(ann, "/api/projects/create", `{"project_name": "more"}`); a.errorKind() != dstack.Forbidden {
		t.Errorf("above the quota: %s", a.text)
	}
	for _, project := range []string{"lab", "main"} {
		if err := h.logs.Append(logs.Key{Project: project, RunName: "web", Attempt: "a"}, dstack.LogLine{At: time.Now(), Text: []byte("secret")}); err != nil {
			t.Fatal(err)
		}
	}
	if a := h.callAs(ann, "/api/projects/delete", `{"projects_names": ["lab"]}`); a.status != 200 || a.text != "null" {
		t.Errorf("%d %s", a.status, a.text)
	}
	left, err := filepath.Glob(filepath.Join(h.dir, "projects", "*", "logs", "*"))
	if err != nil || len(left) != 1 || !strings.Contains(left[0], "main") {
		t.Errorf("logs of a deleted project are left: %v %v", left, err)
	}
}

func TestUnsupportedOperations(t *testing.T) {
	h := newTestServer(t)
	h.expectError(api.ProjectPrefix+"/secrets/add", `{"name": "x"}`, 400, dstack.Unsupported, "not supported yet: secrets")
	h.expectError("/api/backends/config_values", `{"type": "aws"}`, 400, dstack.Unsupported, "aws")
	for _, path := range []string{"/api/volumes/list"} {
		if a := h.callAs(h.admin, path, `{"limit": 5}`); a.status != 200 || a.text != "[]" {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
	}
	if a := h.callAs("", "/api/backends/list_types", ""); a.text != `["local"]` {
		t.Errorf("%s", a.text)
	}
	if a := h.callAs(h.admin, "/api/backends/config_values", `{"type": "local"}`); a.text != `{"engines":["docker"],"type":"local"}` {
		t.Errorf("the values of a local backend: %s", a.text)
	}
}
