package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/dstack"
)

const keysPath = "/api/project/main/keys/"

// A key is shown once, opens no call of the API, and is gone from the table when it is revoked.
func TestKeys_FromCreationToRevocation(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.submitRun("web")
	until := time.Now().Add(time.Hour)
	var created api.CreatedKey
	h.mustCall(keysPath+"create", api.CreateKey{Name: "ci", Services: []string{"web", "later", "web"}, Models: []string{"smol"}, RPS: 2, ExpiresAt: &until}, &created)
	if !strings.HasPrefix(created.Key, "dstkey_") || len(created.Key) < 50 || strings.Join(created.Services, " ") != "later web" ||
		strings.Join(created.Missing, ", ") != "service later, model smol" || created.RPS == nil || created.Status != api.KeyActive {
		t.Errorf("got %+v", created)
	}
	a := h.callAs(h.admin, keysPath+"list", `{}`)
	if a.status != 200 || !strings.Contains(a.text, `"name":"ci"`) || strings.Contains(a.text, "dstkey_") || strings.Contains(a.text, HashToken(created.Key)) {
		t.Errorf("the list is %d %s", a.status, a.text)
	}
	for _, op := range apiOperations {
		if op.method == http.MethodPost && op.level != access.LevelNone && op.level != access.LevelGatewayProcess {
			a := h.callAs(created.Key, strings.ReplaceAll(op.path, "{name}", "x"), `{}`)
			if a.status != http.StatusForbidden || !strings.Contains(a.text, "calls services and models, and never the API") {
				t.Errorf("%s with a key: %d %s", op.path, a.status, a.text)
			}
		}
	}
	table, err := h.server.Table(t.Context(), 0)
	if err != nil || len(table.Keys) != 1 || table.Keys[0].Expires != until.Unix() {
		t.Errorf("the table has %+v, %v", table.Keys, err)
	}
	h.expectError(keysPath+"create", api.CreateKey{Name: "ci"}, 400, dstack.Conflict, "the project has a key ci already")
	h.expectError(keysPath+"revoke", api.RevokeKeys{Names: []string{"ci", "cd"}}, 400, dstack.NotFound, "the project has no key cd")
	changed := h.broadcast.Changed()
	h.mustCall(keysPath+"revoke", api.RevokeKeys{Names: []string{"ci"}}, nil)
	select {
	case <-changed:
	default:
		t.Error("gateways are not told of the revocation")
	}
	if table, err := h.server.Table(t.Context(), table.Version); err != nil || len(table.Keys) != 0 {
		t.Errorf("after the revocation the table has %+v, %v", table.Keys, err)
	}
	var all []api.CallerKey
	h.mustCall(keysPath+"list", api.ListKeys{IncludeRevoked: true}, &all)
	if len(all) != 1 || all[0].Status != api.KeyRevoked || all[0].RevokedBy != "admin" {
		t.Errorf("got %+v", all)
	}
	if strings.Contains(h.log.String(), "dstkey_") || !strings.Contains(h.log.String(), "key created") {
		t.Errorf("the log: %s", h.log.String())
	}
}

// Everything that is wrong with a key is named at once.
func TestKeys_InvalidOnesAreRefused(t *testing.T) {
	h := newTestServer(t)
	past, far := time.Now().Add(-time.Second), time.Now().Add(20*365*24*time.Hour)
	names := make([]string, 101)
	for i := range names {
		names[i] = "x"
	}
	for _, c := range []struct {
		key   api.CreateKey
		parts string
	}{
		{api.CreateKey{Name: "", ExpiresAt: &past, Services: []string{""}, Models: []string{"a\n"}}, "name: use letters; services: ; models: ; expires_at: "},
		{api.CreateKey{Name: "-a"}, "name: use letters"},
		{api.CreateKey{Name: strings.Repeat("a", 64)}, "name: use letters"},
		{api.CreateKey{Name: "a", ExpiresAt: &far}, "not within the next ten years"},
		{api.CreateKey{Name: "a", RPS: 0.0001}, "rps: write a number"},
		{api.CreateKey{Name: "a", Services: names}, "101 names are more than 100"},
	} {
		for part := range strings.SplitSeq(c.parts, "; ") {
			h.expectError(keysPath+"create", c.key, 400, dstack.Invalid, part)
		}
	}
	for body, part := range map[string]string{
		`{"name": "a", "rps": -1}`:         "rps",
		`{"name": "a", "scope": "all"}`:    "scope",
		`{"name": "a", "services": "web"}`: "services",
	} {
		if a := h.callAs(h.admin, keysPath+"create", body); a.status < 400 || a.status >= 500 || !strings.Contains(a.text, part) {
			t.Errorf("%s: %d %s", body, a.status, a.text)
		}
	}
}
