package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// TestCaller has one case for each answer.
func TestCaller(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		bob := h.addUser("bob", dstack.RoleUser)
		eve := h.addUser("eve", dstack.RoleUser)
		h.noError(h.s.SetMembers(h.ctx(), h.project.ID, map[dstack.UserID]dstack.Role{
			h.user.ID: dstack.RoleAdmin, bob.ID: dstack.RoleUser}, true))
		for _, c := range []struct {
			name, token, project string
			want                 store.Caller
		}{
			{"an admin of the project", "admin", "main", store.Caller{User: h.user, Project: &h.project, IsMember: true, Role: dstack.RoleAdmin}},
			{"a member, in another case", "bob", "MAIN", store.Caller{User: bob, Project: &h.project, IsMember: true, Role: dstack.RoleUser}},
			{"no member", "eve", "main", store.Caller{User: eve, Project: &h.project}},
			{"no project of this name", "bob", "other", store.Caller{User: bob}},
			{"no project named", "bob", "", store.Caller{User: bob}},
		} {
			got, err := h.s.Caller(h.ctx(), hash(c.token), c.project)
			if h.noError(err); !cmp.Equal(c.want, got) {
				t.Errorf("%s:\n%s", c.name, cmp.Diff(c.want, got))
			}
		}
		_, err := h.s.Caller(h.ctx(), hash("nobody"), "main")
		h.wantKind(dstack.NotFound, err)
	})
}

// Rights end at once, also if another server ended them: nothing about a caller is cached.
func TestCaller_SeesWhatAnotherServerChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		bob := h.addUser("bob", dstack.RoleUser)
		h.noError(h.s.ChangeMembers(h.ctx(), h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleAdmin}, nil, true))
		other, err := store.Open(h.ctx(), h.url, h.sealer)
		h.noError(err)
		defer other.Close()
		find := func() store.Caller {
			t.Helper()
			found, err := h.s.Caller(h.ctx(), hash("bob"), "main")
			h.noError(err)
			return found
		}
		if got := find(); got.Role != dstack.RoleAdmin {
			t.Fatalf("bob has the role %q", got.Role)
		}
		h.noError(other.ChangeMembers(h.ctx(), h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleUser}, nil, true))
		if got := find(); got.Role != dstack.RoleUser {
			t.Errorf("bob still has the role %q", got.Role)
		}
		h.noError(other.ChangeMembers(h.ctx(), h.project.ID, nil, []dstack.UserID{bob.ID}, true))
		if got := find(); got.IsMember {
			t.Error("bob is still a member")
		}
		h.noError(other.SetToken(h.ctx(), bob.ID, hash("new")))
		_, err = h.s.Caller(h.ctx(), hash("bob"), "main")
		h.wantKind(dstack.NotFound, err)
	})
}

// A call is authorized with one query.
func TestCaller_IsOneQuery(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		reads := h.s.CountReads()
		_, err := h.s.Caller(h.ctx(), hash("admin"), "main")
		if h.noError(err); reads.Load() != 1 {
			t.Errorf("%d queries", reads.Load())
		}
	})
}

// The projects of a user are those that the user is a member of.
func TestProjectsOf(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		bob := h.addUser("bob", dstack.RoleUser)
		second := dstack.Project{ID: "p2", Name: "second", Owner: bob.ID, CreatedAt: t0.Add(1)}
		h.noError(h.s.CreateProject(h.ctx(), second))
		h.noError(h.s.CreateProject(h.ctx(), dstack.Project{ID: "p3", Name: "third", Owner: h.user.ID, CreatedAt: t0}))
		h.noError(h.s.ChangeMembers(h.ctx(), h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleUser}, nil, true))
		reads := h.s.CountReads()
		got, err := h.s.ProjectsOf(h.ctx(), bob.ID)
		h.noError(err)
		if names := []string{got[0].Name, got[1].Name}; len(got) != 2 || !cmp.Equal(names, []string{"Main", "second"}) || reads.Load() != 1 {
			t.Errorf("%v in %d queries", got, reads.Load())
		}
	})
}
