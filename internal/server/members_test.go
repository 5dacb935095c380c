package server

import (
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// membersOf returns the members of a project as NAME=ROLE, sorted by age.
func (h *testServer) membersOf(project string) string {
	h.t.Helper()
	var p api.Project
	h.mustCall("/api/projects/"+project+"/get", "", &p)
	var all []string
	for _, m := range p.Members {
		all = append(all, m.User.Username+"="+string(m.ProjectRole))
	}
	return strings.Join(all, " ")
}

// TestMembers has one case for each change of the members of a project that ann owns.
func TestMembers(t *testing.T) {
	h := newTestServer(t)
	ann, bob := h.createUser("ann", dstack.RoleUser), h.createUser("bob", dstack.RoleUser)
	if a := h.callAs(ann, "/api/projects/create", `{"project_name": "lab"}`); a.status != 200 {
		t.Fatal(a.text)
	}
	const add, remove, set = "/api/projects/lab/add_members", "/api/projects/lab/remove_members", "/api/projects/lab/set_members"
	for _, c := range []struct {
		name, token, path, body string
		kind                    dstack.Kind // empty: it succeeds
		want                    string
	}{
		{"a stranger", bob, add, `{"members": [{"username": "bob", "project_role": "admin"}]}`, dstack.Forbidden, "ann=admin"},
		{"its admin adds one", ann, add, `{"members": [{"username": "bob", "project_role": "user"}]}`, "", "ann=admin bob=user"},
		{"a member", bob, add, `{"members": [{"username": "bob", "project_role": "admin"}]}`, dstack.Forbidden, "ann=admin bob=user"},
		{"a member leaves", bob, remove, `{"usernames": ["bob"]}`, dstack.Forbidden, "ann=admin bob=user"},
		{"an unknown user", ann, add, `{"members": [{"username": "eve", "project_role": "user"}]}`, dstack.NotFound, "ann=admin bob=user"},
		{"an unknown role", ann, add, `{"members": [{"username": "bob", "project_role": "boss"}]}`, dstack.Invalid, "ann=admin bob=user"},
		{"no member", ann, remove, `{"usernames": ["eve"]}`, dstack.NotFound, "ann=admin bob=user"},
		{"the last admin leaves", ann, remove, `{"usernames": ["ann"]}`, dstack.Conflict, "ann=admin bob=user"},
		{"the last admin demotes itself", ann, add, `{"members": [{"username": "ann", "project_role": "user"}]}`, dstack.Conflict, "ann=admin bob=user"},
		{"no admin in a set", ann, set, `{"members": [{"username": "bob", "project_role": "user"}]}`, dstack.Conflict, "ann=admin bob=user"},
		{"the role of a member", ann, add, `{"members": [{"username": "bob", "project_role": "admin"}]}`, "", "ann=admin bob=admin"},
		{"one of two admins leaves", ann, remove, `{"usernames": ["ann"]}`, "", "bob=admin"},
		{"a global admin may remove all", h.admin, remove, `{"usernames": ["bob"]}`, "", ""},
	} {
		a := h.callAs(c.token, c.path, c.body)
		if c.kind == "" && a.status != 200 || c.kind != "" && a.errorKind() != c.kind {
			t.Errorf("%s: %d %s", c.name, a.status, a.text)
		}
		if got := h.membersOf("lab"); got != c.want {
			t.Errorf("%s: the members are %q, want %q", c.name, got, c.want)
		}
	}
}

// TestDeleteUsers_GivesProjectsToTheNewOwner checks new_owner.
func TestDeleteUsers_GivesProjectsToTheNewOwner(t *testing.T) {
	h := newTestServer(t)
	ann := h.createUser("ann", dstack.RoleUser)
	h.createUser("bob", dstack.RoleUser)
	if a := h.callAs(ann, "/api/projects/create", `{"project_name": "lab"}`); a.status != 200 {
		t.Fatal(a.text)
	}
	h.expectError("/api/users/delete", `{"users": ["ann"]}`, 400, dstack.Conflict, "ann owns lab")
	h.expectError("/api/users/delete", `{"users": ["ann"], "new_owner": "eve"}`, 400, dstack.NotFound, "eve")
	h.expectError("/api/users/delete", `{"users": ["ann"], "new_owner": "ann"}`, 400, dstack.Invalid, "would be deleted")
	h.mustCall("/api/users/delete", `{"users": ["ann"], "new_owner": "bob"}`, nil)
	if got := h.membersOf("lab"); got != "bob=admin" {
		t.Errorf("the members are %q", got)
	}
	if a := h.callAs(ann, "/api/users/get_my_user", ""); a.errorKind() != dstack.Unauthorized {
		t.Errorf("the token of a deleted user: %s", a.text)
	}
}

// TestCheckToken has one case for each rule about a token that the operator chooses.
func TestCheckToken(t *testing.T) {
	for token, want := range map[string]string{
		"": "", strings.Repeat("x", 32): "", strings.Repeat("x", 512): "",
		strings.Repeat("x", 31):        "--token has 31 characters; it needs at least 32",
		strings.Repeat("x", 513):       "at most 512",
		strings.Repeat("x", 32) + " ":  "no spaces",
		strings.Repeat("x", 32) + "\n": "no spaces",
		strings.Repeat("ä", 32):        "visible ASCII",
	} {
		err := CheckToken("--token", token)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", token, err, want)
		}
	}
}
