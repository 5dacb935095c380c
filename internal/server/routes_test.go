package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/decide/access"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// TestAPIOperations_Authorization calls every operation as every kind of caller.
// It fails for an access level that its table does not have.
func TestAPIOperations_Authorization(t *testing.T) {
	h := newTestServer(t)
	callers := []string{"no token", "wrong token", "stranger", "member", "project admin", "admin"}
	tokens := map[string]string{"wrong token": "dst_wrong", "admin": h.admin, "stranger": h.createUser("stranger", dstack.RoleUser),
		"member": h.createUser("member", dstack.RoleUser), "project admin": h.createUser("chief", dstack.RoleUser)}
	h.mustCall("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{
		{Username: "member", ProjectRole: dstack.RoleUser}, {Username: "chief", ProjectRole: dstack.RoleAdmin}}}, nil)

	const in = "allowed"
	want := map[access.Level][]string{
		access.LevelNone:           {in, in, in, in, in, in},
		access.LevelUser:           {"Not authenticated", "Invalid token", in, in, in, in},
		access.LevelMember:         {"Not authenticated", "Invalid token", "Not found", in, in, in},
		access.LevelProjectAdmin:   {"Not authenticated", "Invalid token", "Access denied", "Access denied", in, in},
		access.LevelGlobalAdmin:    {"Not authenticated", "Invalid token", "Access denied", "Access denied", "Access denied", in},
		access.LevelGatewayProcess: slices.Repeat([]string{"Access denied"}, len(callers)), // TestGatewayProcess_AccessIsItsOwn has the rest
	}
	for _, op := range append(slices.Clone(apiOperations), newestOperations...) {
		for i, caller := range callers {
			if want[op.level] == nil {
				t.Fatalf("%s has the level %q, which this test does not know", op.path, op.level)
			}
			r, err := http.NewRequestWithContext(t.Context(), op.method, h.url+strings.NewReplacer("{project_name}", "main", "{name}", "x").Replace(op.path), strings.NewReader(`{"x": 1}`))
			if err != nil {
				t.Fatal(err)
			}
			if tokens[caller] != "" {
				r.Header.Set("Authorization", "Bearer "+tokens[caller])
			}
			if isNewest := slices.ContainsFunc(newestOperations, func(n apiOperation) bool { return n.summary == op.summary }); isNewest {
				r.Header.Set(wire.VersionHeader, wire.Dialect022.Version())
			}
			a := h.send(r)
			got := in
			for _, word := range []string{"Not authenticated", "Invalid token", "Access denied", "Not found"} {
				if strings.HasPrefix(a.text, `{"detail":"`+word) || strings.HasPrefix(a.text, `{"detail":{"msg":"`+word) {
					got = word
				}
			}
			if (got == in) == (a.status == http.StatusForbidden || a.status == http.StatusNotFound) {
				t.Errorf("%s as %s: status %d with %s", op.path, caller, a.status, a.text)
			}
			if got != want[op.level][i] {
				t.Errorf("%s as %s: %s, want %s", op.path, caller, got, want[op.level][i])
			}
			if a.status >= http.StatusInternalServerError {
				t.Errorf("%s as %s failed: %s", op.path, caller, a.text)
			}
		}
	}
}

// TestAPIOperations_ContainAllOf01810 lists the paths of spec §4.4.
func TestAPIOperations_ContainAllOf01810(t *testing.T) {
	const prefix = api.ProjectPrefix + "/"
	want := strings.Fields(`/healthcheck
		/api/users/list /api/users/get_my_user /api/users/get_user /api/users/create /api/users/update /api/users/refresh_token /api/users/delete
		/api/projects/list /api/projects/create /api/projects/delete /api/projects/{project_name}/get /api/projects/{project_name}/set_members
		/api/backends/list_types /api/backends/config_values /api/runs/list /api/volumes/list /api/pools/list_instances`)
	for _, area := range []string{
		"backends/ create update delete {name}/config_info create_yaml update_yaml {name}/get_yaml",
		"repos/ list get init delete upload_code", "runs/ get get_plan submit stop delete get_offers create_instance", "logs/ poll",
		"gateways/ list get create delete set_default set_wildcard_domain", "volumes/ list get create delete",
		"fleets/ list get create delete delete_instances", "pool/ list create delete show remove set_default add_remote",
	} {
		names := strings.Fields(area)
		for _, name := range names[1:] {
			want = append(want, prefix+names[0]+name)
		}
	}
	have := map[string]bool{}
	for _, op := range apiOperations {
		if have[op.path] {
			t.Errorf("%s is listed twice", op.path)
		}
		have[op.path] = true
	}
	for _, path := range want {
		if !have[path] {
			t.Errorf("%s is missing", path)
		}
	}
}

func TestAuthorize_HidesProjectsFromStrangers(t *testing.T) {
	h := newTestServer(t)
	stranger := h.createUser("stranger", dstack.RoleUser)
	for _, op := range apiOperations {
		if !strings.Contains(op.path, "{project_name}") {
			continue
		}
		existing := h.callAs(stranger, strings.ReplaceAll(op.path, "{name}", "x"), `{}`)
		missing := h.callAs(stranger, strings.NewReplacer("{project_name}", "none", "{name}", "x").Replace(op.path), `{}`)
		if existing.status != missing.status || strings.ReplaceAll(existing.text, "main", "none") != missing.text {
			t.Errorf("%s: %d %s\nbut %d %s", op.path, existing.status, existing.text, missing.status, missing.text)
		}
	}
	for _, path := range []string{"/api/runs/list", api.PathViews} {
		h.initRepo()
		if a := h.callAs(stranger, path, `{"project_name": "main"}`); a.text != "[]" {
			t.Errorf("%s shows %s", path, a.text)
		}
	}
}

func TestServeAPI_UnknownPathsAndMethods(t *testing.T) {
	h := newTestServer(t)
	for _, c := range []struct {
		method, path string
		status       int
		part         string
	}{
		{"POST", "/api/nothing", 404, `"detail":"Not Found"`},
		{"POST", "/api/project/main/runs/restart", 404, "/api/openapi.json"},
		{"GET", "/nothing", 404, "not_found"},
		{"GET", "/api/runs/list", 405, "use POST"},
		{"POST", "/healthcheck", 405, "use GET"},
		{"GET", "/healthcheck", 200, `{"status":"running"}`},
		{"GET", "/api/openapi.json", 200, `"openapi":"3.1`},
		{"GET", "/schema/dstack.yml.json", 200, `"https://json-schema.org/draft/2020-12/schema"`},
		{"GET", "/schema/profiles.yml.json", 200, `"#/$defs/profiles"`},
		{"OPTIONS", "/api/runs/list", 405, "Method Not Allowed"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, h.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://evil.example")
		a := h.send(r)
		if a.status != c.status || !strings.Contains(a.text, c.part) {
			t.Errorf("%s %s: %d %.300s", c.method, c.path, a.status, a.text)
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s has the headers %v", c.method, c.path, a.header)
		}
	}
}

// TestServeAPI_Allow compares the header Allow with what the path accepts.
func TestServeAPI_Allow(t *testing.T) {
	h := newTestServer(t)
	for path, want := range map[string]string{"/api/users/list": "POST", "/healthcheck": "GET, HEAD", openapiPath: "GET, HEAD", "/": "GET, HEAD"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			if strings.Contains(want, method) {
				continue
			}
			r, err := http.NewRequestWithContext(t.Context(), method, h.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if a := h.send(r); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != want {
				t.Errorf("%s %s: %d, Allow: %s", method, path, a.status, a.header.Get("Allow"))
			}
		}
	}
}

// TestFindProject_NamesThatNoDatabaseHolds has names that PostgreSQL refuses.
func TestFindProject_NamesThatNoDatabaseHolds(t *testing.T) {
	h := newTestServer(t)
	for _, name := range []string{"%00", "main%00", "%ff", "%C0%80", strings.Repeat("x", 60000), "a%2Fb"} {
		if a := h.callAs(h.admin, "/api/project/"+name+"/runs/get", `{"run_name": "a"}`); a.status != http.StatusNotFound {
			t.Errorf("%.20s: %d %.200s", name, a.status, a.text)
		}
	}
}

func TestServeAPI_ValidatesRequests(t *testing.T) {
	h := newTestServer(t)
	h.expectError("/api/users/get_user", `{"username": "`+strings.Repeat("a", maxBodyBytes)+`"}`, 413, dstack.TooLarge, "larger than 1MB")
	h.expectError("/api/users/get_user", `{"username": "a", "x": 1}`, 422, dstack.Invalid, `"loc":["body","x"]`)
	h.expectError("/api/users/list", `{"x": 1}`, 422, dstack.Invalid, "extra fields not permitted")

	r, err := http.NewRequestWithContext(t.Context(), "POST", h.url+"/api/users/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(wire.VersionHeader, "0.23.0")
	if a := h.send(r); a.status != 400 || !strings.Contains(a.text, `"code":"error"`) {
		t.Errorf("another version: %d %s", a.status, a.text)
	}
}

func TestServeAPI_PanicsAreLoggedButNotAnswered(t *testing.T) {
	h := newTestServer(t)
	h.server.muxes[wire.Dialect018].HandleFunc("POST /api/boom", func(http.ResponseWriter, *http.Request) { panic("the secret") })
	a := h.callAs("", "/api/boom", `{}`)
	if a.status != 500 || strings.Contains(a.text, "secret") || a.errorKind() != dstack.Internal {
		t.Errorf("%d %s", a.status, a.text)
	}
	if !strings.Contains(h.log.String(), "the secret") {
		t.Error("the panic is not in the log")
	}
}

func TestAuthenticate_AcceptsOnlyBearerTokens(t *testing.T) {
	h := newTestServer(t)
	for header, want := range map[string]string{
		"bearer " + h.admin: `"username":"admin"`, "Bearer  " + h.admin: `"username":"admin"`,
		"Bearer wrong": "the server does not accept this token",
		h.admin:        "Not authenticated", "Basic " + h.admin: "Not authenticated", "Bearer ": "Not authenticated", "Bearer x' OR 1=1 --": "Invalid token",
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", h.url+"/api/users/get_my_user", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", header)
		if a := h.send(r); !strings.Contains(a.text, want) {
			t.Errorf("%q: %d %s", header, a.status, a.text)
		}
	}
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	if a := h.callAs(h.admin, "/api/users/get_my_user", ""); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("with a closed store: %d %s", a.status, a.text)
	}
}
