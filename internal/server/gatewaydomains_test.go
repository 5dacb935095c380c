package server

import (
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// An admin of one project cannot take names of the server itself or of another project, however they are spelled.
func TestGateways_NamesOfOthers(t *testing.T) {
	h := newTestServer(t, func(o *Options) {
		o.Site = route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}, Domain: "pub.example.org"}
	})
	bea := h.createUser("bea", dstack.RoleUser)
	for _, name := range []string{"Alpha", "beta"} {
		h.mustCall("/api/projects/create", `{"project_name": "`+name+`"}`, nil)
	}
	h.mustCall("/api/projects/beta/set_members", `{"members": [{"username": "admin", "project_role": "admin"}, {"username": "bea", "project_role": "admin"}]}`, nil)
	at := func(path, project string) string { return strings.Replace(path, "{project_name}", project, 1) }
	apply := func(who, project, domain string) apiResponse {
		return h.callAs(who, at(api.PathGatewayApply, project), gatewayBody("edge", domain, ""))
	}
	if got := apply(h.admin, "Alpha", "apps.alpha.net"); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.text)
	}
	for _, c := range []struct {
		domain string
		status int
	}{
		{"dstack.example.com", 403}, // the server's own name
		{"example.com", 403},        // with it, a private key for the server's own name
		{"*.EXAMPLE.com.", 403},
		{"com", 403},
		{"org", 403}, // a name without a dot belongs to no project
		{"alpha.pub.example.org", 400},
		{"ALPHA.localhost", 400},
		{"apps.alpha.net", 400}, // the same
		{"alpha.net", 403},      // above another project's
		{"x.apps.alpha.net", 403},
		{"xapps.alpha.net", 200}, // beside it
		{"beta.localhost", 200},  // the project's own
		{"other.pub.example.org", 200},
		{"alpha.localhost.example.net", 200},
	} {
		if got := apply(bea, "beta", c.domain); got.status != c.status {
			t.Errorf("%s: %d %s", c.domain, got.status, got.text)
		}
	}
	if got := apply(bea, "beta", "later.localhost"); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.text)
	}
	if got := h.callAs(h.admin, "/api/projects/create", `{"project_name": "Later"}`); got.status == 200 || !strings.Contains(got.text, "later.localhost") {
		t.Errorf("a project whose names a gateway has: %d %s", got.status, got.text)
	}
	if got := apply(h.admin, "beta", "example.com"); got.status != 200 {
		t.Errorf("a global admin: %d %s", got.status, got.text)
	}
	token := at(api.PathGatewayToken, "beta")
	if got := h.callAs(bea, token, `{"name": "edge"}`); got.status != 403 {
		t.Errorf("a token for a gateway that has the server's own name: %d %s", got.status, got.text)
	}
	if got := h.callAs(h.admin, token, `{"name": "edge"}`); got.status != 200 {
		t.Errorf("a global admin: %d %s", got.status, got.text)
	}
}

// A process of one project counts nothing for the keys of another one, also when it says that it was replaced.
func TestGatewayProcess_ReportsItsProjectAlone(t *testing.T) {
	h, _ := newLinkServer(t)
	h.mustCall("/api/projects/create", `{"project_name": "beta"}`, nil)
	in := func(path string) string { return strings.Replace(path, "{project_name}", "beta", 1) }
	h.mustCall(in(api.PathKeys+"/create"), api.CreateKey{Name: "theirs"}, nil)
	listed := func() (keys []api.CallerKey) {
		h.mustCall(in(api.PathKeys+"/list"), "{}", &keys)
		return keys
	}
	theirs := dstack.CallerKeyID(listed()[0].ID)
	process := h.startProcess()
	for _, apart := range []int{0, 7} {
		report := api.GatewayReport{Apart: apart, Version: "0.2.0-dev", Load: dstack.LoadReport{Keys: map[dstack.CallerKeyID]dstack.KeyCounts{theirs: {Requests: 5}}}}
		if got := h.callAs(process.identity.Credential, api.PathGatewayReport, report); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.text)
		}
		if keys := listed(); keys[0].Requests != 0 {
			t.Errorf("apart %d: %+v", apart, keys[0])
		}
	}
}
