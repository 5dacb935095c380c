package access_test

import (
	"testing"

	"dstack/internal/decide/access"
	"dstack/internal/dstack"
)

var (
	nobody = access.Caller{}
	user   = access.Caller{Known: true, Role: dstack.RoleUser}
	admin  = access.Caller{Known: true, Role: dstack.RoleAdmin}

	absent  = access.Project{}
	foreign = access.Project{Exists: true}
	member  = access.Project{Exists: true, Member: true, Role: dstack.RoleUser}
	owned   = access.Project{Exists: true, Member: true, Role: dstack.RoleAdmin}
)

func TestAllow(t *testing.T) {
	for _, c := range []struct {
		name  string
		level access.Level
		who   access.Caller
		where access.Project
		want  access.Decision
	}{
		{"anybody may call what is open", access.None, nobody, absent, access.Allowed},
		{"nobody known is asked who they are", access.Auth, nobody, absent, access.Unknown},
		{"also where they are member by accident", access.Member, nobody, member, access.Unknown},
		{"also on calls of admins", access.Admin, nobody, owned, access.Unknown},
		{"also on calls of global admins", access.GlobalAdmin, nobody, absent, access.Unknown},
		{"somebody known passes auth", access.Auth, user, absent, access.Allowed},
		{"a member passes", access.Member, user, member, access.Allowed},
		{"a project admin is a member", access.Member, user, owned, access.Allowed},
		{"a stranger does not see the project", access.Member, user, foreign, access.Hidden},
		{"nor one that is not there", access.Member, user, absent, access.Hidden},
		{"a global admin passes", access.Member, admin, foreign, access.Allowed},
		{"but not into nothing", access.Member, admin, absent, access.Hidden},
		{"a project admin passes", access.Admin, user, owned, access.Allowed},
		{"a member is no admin", access.Admin, user, member, access.Denied},
		{"a stranger is denied", access.Admin, user, foreign, access.Denied},
		{"the same where there is nothing", access.Admin, user, absent, access.Denied},
		{"a role without membership is nothing", access.Admin, user, access.Project{Exists: true, Role: dstack.RoleAdmin}, access.Denied},
		{"a global admin is every project's admin", access.Admin, admin, foreign, access.Allowed},
		{"but of nothing", access.Admin, admin, absent, access.Denied},
		{"a global admin passes everywhere", access.GlobalAdmin, admin, absent, access.Allowed},
		{"a project admin does not", access.GlobalAdmin, user, owned, access.Denied},
		{"an unknown level is denied even to admins", access.Level("x"), admin, owned, access.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := access.Allow(c.level, c.who, c.where); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
