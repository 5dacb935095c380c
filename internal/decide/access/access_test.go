package access_test

import (
	"testing"

	"dstack/internal/decide/access"
	"dstack/internal/dstack"
)

var (
	anonymous = access.Caller{}
	user      = access.Caller{Known: true, Role: dstack.RoleUser}
	admin     = access.Caller{Known: true, Role: dstack.RoleAdmin}

	absent   = access.Project{}
	existing = access.Project{Exists: true}
	member   = access.Project{Exists: true, Member: true, Role: dstack.RoleUser}
	owned    = access.Project{Exists: true, Member: true, Role: dstack.RoleAdmin}
)

func TestAllow(t *testing.T) {
	for _, c := range []struct {
		name    string
		level   access.Level
		caller  access.Caller
		project access.Project
		want    access.Decision
	}{
		{"an open call needs no token", access.LevelNone, anonymous, absent, access.Allowed},
		{"an anonymous caller must authenticate", access.LevelUser, anonymous, absent, access.Unknown},
		{"an anonymous caller must authenticate for calls of members", access.LevelMember, anonymous, member, access.Unknown},
		{"an anonymous caller must authenticate for calls of admins", access.LevelProjectAdmin, anonymous, owned, access.Unknown},
		{"an anonymous caller must authenticate for calls of global admins", access.LevelGlobalAdmin, anonymous, absent, access.Unknown},
		{"a user passes auth", access.LevelUser, user, absent, access.Allowed},
		{"a member passes", access.LevelMember, user, member, access.Allowed},
		{"a project admin is a member", access.LevelMember, user, owned, access.Allowed},
		{"a project is hidden from a user that is not a member", access.LevelMember, user, existing, access.Hidden},
		{"a missing project is hidden in the same way", access.LevelMember, user, absent, access.Hidden},
		{"a global admin passes", access.LevelMember, admin, existing, access.Allowed},
		{"a missing project is hidden from a global admin", access.LevelMember, admin, absent, access.Hidden},
		{"a project admin passes", access.LevelProjectAdmin, user, owned, access.Allowed},
		{"a member is not an admin", access.LevelProjectAdmin, user, member, access.Denied},
		{"a user that is not a member is denied", access.LevelProjectAdmin, user, existing, access.Denied},
		{"a missing project is denied in the same way", access.LevelProjectAdmin, user, absent, access.Denied},
		{"a role without membership does not count", access.LevelProjectAdmin, user, access.Project{Exists: true, Role: dstack.RoleAdmin}, access.Denied},
		{"a global admin is admin of every project", access.LevelProjectAdmin, admin, existing, access.Allowed},
		{"a global admin is denied a missing project", access.LevelProjectAdmin, admin, absent, access.Denied},
		{"a global admin passes calls of global admins", access.LevelGlobalAdmin, admin, absent, access.Allowed},
		{"a project admin does not pass calls of global admins", access.LevelGlobalAdmin, user, owned, access.Denied},
		{"an unknown level is denied to global admins", access.Level("x"), admin, owned, access.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := access.Allow(c.level, c.caller, c.project); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
