package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// fakeKeys answers requests about keys for callers, and records them.
type fakeKeys struct {
	list    []api.CallerKey
	created []api.CreateKey
	revoked []api.RevokeKeys
}

func (f *fakeKeys) answer(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/list"):
		writeAnswer(w, 200, orEmpty(f.list))
	case strings.HasSuffix(path, "/create"):
		in := decodeBody[api.CreateKey](r)
		f.created = append(f.created, in)
		view := api.CallerKey{Name: in.Name, Services: in.Services, Models: in.Models, ExpiresAt: in.ExpiresAt, Status: api.KeyActive}
		if in.RPS > 0 {
			view.RPS = &in.RPS
		}
		writeAnswer(w, 200, api.CreatedKey{CallerKey: view, Key: "dstkey_secret", Missing: []string{"service later\x1b[2J"}})
	case strings.HasSuffix(path, "/revoke"):
		f.revoked = append(f.revoked, decodeBody[api.RevokeKeys](r))
		writeAnswer(w, 200, nil)
	}
}

func TestKeyCreate(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	got := u.run("key", "create", "app", "--service", "later", "--model", "smol", "--rps", "2.5", "--expires", "90d")
	got.check(t, 0, nil, []string{"services later; models smol, 2.5 requests a second, for 90d", "the project main has no service later"})
	if got.out != "dstkey_secret\n" || strings.Contains(got.err, "\x1b[2J") {
		t.Errorf("printed %q and %q", got.out, got.err)
	}
	until := f.keys.created[0].ExpiresAt
	if until == nil || time.Until(*until) < 89*24*time.Hour || f.keys.created[0].RPS != 2.5 {
		t.Errorf("sent %+v", f.keys.created)
	}
	for _, c := range []struct {
		args string
		says string
	}{
		{"key create", "name for the key"},
		{"key create a b", "unexpected argument `b`"},
		{"key create a --rps 0", "--rps: 0 is not a number of requests"},
		{"key create a --expires yesterday", "--expires: `yesterday` is not a time"},
		{"key create a --expires 2020-01-01", "--expires: `2020-01-01` is not in the future"},
		{"key nothing", "nothing"},
	} {
		u.run(strings.Fields(c.args)...).check(t, 2, nil, []string{c.says})
	}
	f.keys.list = []api.CallerKey{{Name: "app"}}
	u.run("key", "revoke", "ap", "-y").check(t, 1, nil, []string{"did you mean `app`?"})
	if len(f.keys.created) != 1 || len(f.keys.revoked) != 0 {
		t.Errorf("the server got %+v", f.keys)
	}
}

func TestKeyListAndRevoke(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.run("key", "list").check(t, 0, nil, []string{"no keys in project main; create one: dstack key create NAME"})
	rps, now := 5.0, time.Now()
	used, ends, revoked := now.Add(-2*time.Minute-time.Second), now.Add(3*24*time.Hour+time.Minute), now.Add(-time.Hour-time.Second)
	f.keys.list = []api.CallerKey{
		{Name: "app", Models: []string{"smol"}, RPS: &rps, ExpiresAt: &ends, UsedAt: &used, Requests: 1204, Refused: 7, Status: api.KeyActive, CreatedBy: "ann"},
		{Name: "old", RevokedAt: &revoked, Status: api.KeyRevoked},
	}
	u.run("key", "list", "--all").check(t, 0, []string{"NAME", "app", "models smol", "5", "active", "in 3d", "2m ago", "1204", "7", "ann", "old", "all services", "revoked", "1h ago"}, nil)
	u.run("key", "list", "-o", "json").check(t, 0, []string{`"requests": 1204`}, nil)
	u.run("key", "revoke", "old", "app", "app", "-y").check(t, 0, nil, []string{"app is revoked"})
	if len(f.keys.revoked) != 1 || strings.Join(f.keys.revoked[0].Names, " ") != "app old" {
		t.Errorf("sent %+v", f.keys.revoked)
	}
	f.refusals["revoke"] = refusal{403, api.ErrorBody{Error: api.ErrorView{Kind: dstack.Forbidden, Message: "you may not do this"}}}
	u.run("key", "revoke", "app", "-y").check(t, 1, nil, []string{"only admins of the project main may revoke keys of it"})
}
