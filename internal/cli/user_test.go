package cli

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestParseMemberships(t *testing.T) {
	projects, roles, err := parseMemberships([]string{"main", "lab:admin", "x:USER"})
	if err != nil || fmt.Sprint(projects, roles) != "[main lab x] [user admin user]" {
		t.Errorf("%v %v %v", projects, roles, err)
	}
	for _, bad := range []string{":admin", "lab:boss", ""} {
		if _, _, err := parseMemberships([]string{bad}); dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseMembers(t *testing.T) {
	want := []api.SetMember{{Username: "ann", ProjectRole: dstack.RoleAdmin}, {Username: "bob", ProjectRole: dstack.RoleUser}}
	if got, err := parseMembers([]string{"ann=admin", "bob=user"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range [][]string{{"ann=boss"}, {"=admin"}, {"ann=user", "ann=admin"}, {"bob", "admin"}, {"ann=admin", "bob"}} {
		if _, err := parseMembers(bad); dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestUserCreate_PrintsTheTokenAlsoAfterAFailure checks that a token that was made is not
// lost when a later call fails.
func TestUserCreate_PrintsTheTokenAlsoAfterAFailure(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.refusals["create"] = refusal{200, api.User{Username: "ann"}}
	f.refusals["refresh_token"] = refusal{200, api.UserWithCreds{Creds: api.UserCreds{Token: "dst_new"}}}
	f.refusals["add_members"] = refusal{403, `{"detail":{"msg":"Access denied"}}`}
	got := u.run("user", "create", "ann", "--member-of", "lab")
	got.check(t, ExitFailed, []string{"dst_new\n"}, []string{"ann is created, but is no member of lab", "dstack project members add lab ann"})
	f.refusals["refresh_token"] = refusal{503, `{}`}
	u.run("user", "create", "ann").check(t, ExitFailed, nil, []string{"its token is not known", "dstack user rotate ann"})
	delete(f.refusals, "add_members")
	f.refusals["refresh_token"] = refusal{200, api.UserWithCreds{Creds: api.UserCreds{Token: "dst_new"}}}
	if got := u.run("user", "create", "ann", "-o", "json"); got.code != ExitDone || !strings.Contains(got.out, `"token": "dst_new"`) {
		t.Errorf("%+v", got)
	}
}
