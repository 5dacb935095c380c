package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"dstack/internal/dstack"
)

// The last call sets all members: two calls are never merged.
func TestSetMembers_ConcurrentCallsDoNotMix(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		var pairs [4]map[dstack.UserID]dstack.Role
		for i := range pairs {
			pairs[i] = map[dstack.UserID]dstack.Role{h.user.ID: dstack.RoleAdmin}
			for j := range 2 {
				u := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: fmt.Sprintf("user-%d-%d", i, j), GlobalRole: dstack.RoleUser,
					TokenHash: hash(fmt.Sprint(i, j)), CreatedAt: t0}
				h.noError(h.s.CreateUser(t.Context(), u))
				pairs[i][u.ID] = dstack.RoleUser
			}
		}
		for range 10 {
			var group sync.WaitGroup
			for _, pair := range pairs {
				group.Go(func() {
					if err := h.s.SetMembers(t.Context(), h.project.ID, pair, false); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			members, err := h.s.Members(t.Context(), h.project.ID)
			h.noError(err)
			if len(members) != 3 {
				t.Fatalf("%d members, want 3", len(members))
			}
		}
	})
}

// Two admins who remove each other at the same time leave one of them.
func TestChangeMembers_ConcurrentCallsLeaveAnAdmin(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ann, bob := h.addUser("ann", dstack.RoleUser), h.addUser("bob", dstack.RoleUser)
		both := map[dstack.UserID]dstack.Role{ann.ID: dstack.RoleAdmin, bob.ID: dstack.RoleAdmin}
		for range 10 {
			h.noError(h.s.SetMembers(t.Context(), h.project.ID, both, true))
			var group sync.WaitGroup
			for _, u := range []dstack.User{ann, bob} {
				group.Go(func() {
					err := h.s.ChangeMembers(t.Context(), h.project.ID, nil, []dstack.UserID{u.ID}, true)
					if err != nil && dstack.KindOf(err) != dstack.Conflict {
						t.Error(err)
					}
				})
			}
			group.Wait()
			members, err := h.s.Members(t.Context(), h.project.ID)
			h.noError(err)
			if len(members) != 1 || members[0].Role != dstack.RoleAdmin {
				t.Fatalf("the members are %+v", members)
			}
		}
		h.wantKind(dstack.Conflict, h.s.SetMembers(t.Context(), h.project.ID, map[dstack.UserID]dstack.Role{ann.ID: dstack.RoleUser}, true))
	})
}
