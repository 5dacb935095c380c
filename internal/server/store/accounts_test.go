package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func (h *fixture) addUser(name string, role dstack.Role) dstack.User {
	h.t.Helper()
	u := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: name, GlobalRole: role, TokenHash: hash(name), CreatedAt: t0.Add(time.Minute)}
	h.noError(h.s.CreateUser(h.t.Context(), u))
	return u
}

func TestUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		bob := h.addUser("bob", dstack.RoleUser)
		twin := bob
		twin.ID, twin.TokenHash = dstack.UserID(uuid.NewString()), "another"
		h.wantKind(dstack.Conflict, h.s.CreateUser(ctx, twin))

		bob.Email, bob.GlobalRole = "bob@example.com", dstack.RoleAdmin
		h.noError(h.s.UpdateUser(ctx, bob))
		h.wantKind(dstack.NotFound, h.s.UpdateUser(ctx, twin))
		got, err := h.s.UserByToken(ctx, hash("bob"))
		if h.noError(err); !cmp.Equal(got, bob) {
			t.Error(cmp.Diff(bob, got))
		}

		h.noError(h.s.SetToken(ctx, bob.ID, "new"))
		h.wantKind(dstack.NotFound, h.s.SetToken(ctx, "nobody", "x"))
		_, err = h.s.UserByToken(ctx, hash("bob"))
		h.wantKind(dstack.NotFound, err)
		if got, err = h.s.UserByToken(ctx, "new"); err != nil || got.ID != bob.ID {
			t.Errorf("got %v, %v", got, err)
		}

		h.wantKind(dstack.Conflict, h.s.DeleteUsers(ctx, []string{"bob", "admin"}, "")) // admin owns Main
		if _, err := h.s.User(ctx, "bob"); err != nil {
			t.Errorf("half of a refused deletion was done: %v", err)
		}
		h.noError(h.s.SetMembers(ctx, h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleUser}, false))
		h.noError(h.s.CreateProject(ctx, dstack.Project{ID: "p-bob", Name: "Bobs", Owner: bob.ID, CreatedAt: t0}))
		h.noError(h.s.ChangeMembers(ctx, "p-bob", map[dstack.UserID]dstack.Role{h.user.ID: dstack.RoleUser}, nil, false))
		h.wantKind(dstack.NotFound, h.s.ChangeMembers(ctx, "p-bob", map[dstack.UserID]dstack.Role{"nobody": dstack.RoleUser}, []dstack.UserID{bob.ID}, false))
		if members, err := h.s.Members(ctx, "p-bob"); err != nil || len(members) != 2 {
			t.Errorf("half of a refused change was done: %v, %v", members, err)
		}
		h.noError(h.s.DeleteUsers(ctx, []string{"bob", "unknown"}, h.user.ID))
		if p, err := h.s.Project(ctx, "bobs"); err != nil || p.Owner != h.user.ID {
			t.Errorf("the project of a deleted user: %+v, %v", p, err)
		}
		if members, err := h.s.Members(ctx, "p-bob"); err != nil || len(members) != 1 || members[0].Role != dstack.RoleAdmin {
			t.Errorf("the new owner is no admin of the project: %v, %v", members, err)
		}
		h.noError(h.s.DeleteProjects(ctx, []string{"bobs"}))
		h.noError(h.s.DeleteUsers(ctx, nil, ""))
		_, err = h.s.User(ctx, "bob")
		h.wantKind(dstack.NotFound, err)
		if members, err := h.s.Members(ctx, h.project.ID); err != nil || len(members) != 0 {
			t.Errorf("a deleted user is a member: %v, %v", members, err)
		}
		users, err := h.s.Users(ctx)
		if h.noError(err); len(users) != 1 || !cmp.Equal(users[0], h.user) {
			t.Errorf("got %v", users)
		}
	})
}

// Texts of users and engines may hold any bytes; PostgreSQL accepts only some.
func TestText_OfAnyBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		u := h.user
		u.Email = "a\x00b\xff'; DROP TABLE users; --\\"
		h.noError(h.s.UpdateUser(t.Context(), u))
		got, err := h.s.User(t.Context(), "admin")
		if h.noError(err); got.Email != "a\uFFFDb\uFFFD'; DROP TABLE users; --\\" {
			t.Errorf("got %q", got.Email)
		}
		for _, foreign := range []string{"' OR '1'='1", "?", "?0", "\\'", "\x00", "\xff"} {
			_, err := h.s.UserByToken(t.Context(), foreign)
			if err == nil {
				t.Errorf("the token %q opens something", foreign)
			}
		}
	})
}

func TestProjects(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		got, err := h.s.Project(ctx, "mAIN")
		if h.noError(err); !cmp.Equal(got, h.project) {
			t.Error(cmp.Diff(h.project, got))
		}
		h.wantKind(dstack.Conflict, h.s.CreateProject(ctx, dstack.Project{ID: "x", Name: "MAIN", Owner: h.user.ID}))
		_, err = h.s.Project(ctx, "other")
		h.wantKind(dstack.NotFound, err)

		members, err := h.s.Members(ctx, h.project.ID)
		if h.noError(err); len(members) != 1 || members[0].User.Name != "admin" || members[0].Role != dstack.RoleAdmin {
			t.Errorf("a new project has the members %v", members)
		}
		bob := h.addUser("bob", dstack.RoleUser)
		h.noError(h.s.SetMembers(ctx, h.project.ID, map[dstack.UserID]dstack.Role{bob.ID: dstack.RoleUser, h.user.ID: dstack.RoleUser}, false))
		h.wantKind(dstack.NotFound, h.s.SetMembers(ctx, h.project.ID, map[dstack.UserID]dstack.Role{"nobody": dstack.RoleUser}, false))
		members, err = h.s.Members(ctx, h.project.ID)
		if h.noError(err); len(members) != 2 || members[0].User.Name != "admin" || members[1].User.Name != "bob" {
			t.Errorf("got %v", members)
		}

		h.noError(h.s.CreateProject(ctx, dstack.Project{ID: "second", Name: "second", Owner: h.user.ID, CreatedAt: t0.Add(time.Second)}))
		all, err := h.s.Projects(ctx)
		if h.noError(err); len(all) != 2 || all[0].Name != "Main" || all[1].Name != "second" {
			t.Errorf("got %v", all)
		}
		h.submit("web", t0)
		h.wantKind(dstack.Conflict, h.s.DeleteProjects(ctx, []string{"second", "main"}))
		h.noError(h.s.DeleteProjects(ctx, []string{"SECOND", "unknown"}))
		if all, err = h.s.Projects(ctx); err != nil || len(all) != 1 {
			t.Errorf("got %v, %v", all, err)
		}
		gone := dstack.Run{ID: dstack.RunID(uuid.NewString()), ProjectID: "second", Name: "web", Spec: runSpec("web")}
		h.wantKind(dstack.NotFound, h.s.SubmitRun(ctx, gone))
	})
}

// A run's author is who submitted its present revision; a user who does not exist any
// more is no admin.
func TestRun_KnowsWhetherItsAuthorIsAdmin(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		for i, c := range []struct {
			author string
			want   bool
		}{{"nobody", false}, {"admin", true}} {
			_, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: i + 1, Spec: run.Spec, User: c.author, NeedsRollout: true, Now: t0})
			h.noError(err)
			got, err := h.s.Run(t.Context(), h.project.ID, "web")
			if h.noError(err); got.IsGlobalAdmin != c.want || got.User != c.author {
				t.Errorf("by %s: %+v", c.author, got)
			}
		}
	})
}
