package store_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"dstack/internal/dstack"
)

func (h *fixture) gitRepo() (dstack.Repo, dstack.RepoAccess) {
	return dstack.Repo{Project: h.project.ID, ID: "app-1", Info: []byte(`{"repo_type":"remote"}`)},
		dstack.RepoAccess{Project: h.project.ID, Repo: "app-1", User: h.user.ID, URL: "https://git.example.com/a/b", Token: "ghp_canary", PrivateKey: "key-canary"}
}

func TestRepoAccess_PerUserAndSealed(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		repo, access := h.gitRepo()
		bob := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: "bob", GlobalRole: dstack.RoleUser, TokenHash: hash("bob"), CreatedAt: t0}
		h.noError(h.s.CreateUser(t.Context(), bob))
		h.noError(h.s.PutRepoWithAccess(t.Context(), repo, access))
		if got, err := h.s.RepoAccess(t.Context(), h.project.ID, "app-1", bob.ID); dstack.KindOf(err) != dstack.NotFound {
			t.Errorf("bob got %+v, %v", got, err)
		}
		other := access
		other.User, other.Token, other.PrivateKey = bob.ID, "ghp_bob", ""
		h.noError(h.s.PutRepoWithAccess(t.Context(), repo, other))
		access.Token = "ghp_canary2"
		h.noError(h.s.PutRepoWithAccess(t.Context(), repo, access)) // replaces it

		access.IsGlobalAdmin = true
		for user, want := range map[dstack.UserID]dstack.RepoAccess{h.user.ID: access, bob.ID: other} {
			if got, err := h.s.RepoAccess(t.Context(), h.project.ID, "app-1", user); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
		}
		var stored string
		h.noError(h.openRaw().QueryRow("SELECT access FROM repo_access WHERE user_id = '" + string(h.user.ID) + "'").Scan(&stored))
		if !strings.HasPrefix(stored, "enc:v1:") || strings.Contains(stored, "canary") || strings.Contains(stored, "example.com") {
			t.Errorf("stored: %s", stored)
		}
	})
}

// Whoever can write to the database cannot give the credentials of one user to another.
func TestRepoAccess_DoesNotOpenInAnotherRow(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		repo, access := h.gitRepo()
		h.noError(h.s.PutRepoWithAccess(t.Context(), repo, access))
		repo.ID, access.Repo = "app-2", "app-2"
		h.noError(h.s.PutRepoWithAccess(t.Context(), repo, access))
		_, err := h.openRaw().Exec("UPDATE repo_access SET access = (SELECT access FROM repo_access WHERE repo = 'app-1') WHERE repo = 'app-2'")
		h.noError(err)
		if got, err := h.s.RepoAccess(t.Context(), h.project.ID, "app-2", h.user.ID); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestRepoAccess_EndsWithItsRepo(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		repo, access := h.gitRepo()
		h.noError(h.s.PutRepoWithAccess(t.Context(), repo, access))
		h.noError(h.s.DeleteRepos(t.Context(), h.project.ID, []string{"app-1"}))
		h.noError(h.s.PutRepo(t.Context(), repo))
		if got, err := h.s.RepoAccess(t.Context(), h.project.ID, "app-1", h.user.ID); dstack.KindOf(err) != dstack.NotFound {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// Revisions and restarts read the repository as the user who submitted them.
func TestRun_KeepsItsRepoUser(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		rs := runSpec("web")
		rs.RepoUser = h.user.ID
		run := h.submitted(rs, t0)
		h.restart()
		got, err := h.s.Run(t.Context(), h.project.ID, "web")
		h.noError(err)
		if got.ID != run.ID || got.Spec.RepoUser != h.user.ID {
			t.Errorf("got %q", got.Spec.RepoUser)
		}
	})
}
