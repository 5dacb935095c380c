package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/gateway"
)

// TestAPIPath: /v1 at the server's own address is the model endpoint of the main
// project, in everything.
func TestAPIPath(t *testing.T) {
	up := startReplica(t, 0, serveHello)
	foreign := modelRoute("theirs", "org/theirs", up)
	foreign.Project, foreign.Run = "team", "run-theirs"
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", up), foreign)
	for _, base := range []string{"http://127.0.0.1:3000", "http://dstack.example.com", "http://gateway.localhost"} {
		for _, c := range []struct {
			name, method, path, body string
			header                   []string
			status                   int
			words                    string
		}{
			{"models", "GET", "/v1/models", "", withToken(member), 200, `"id":"org/m"`},
			{"a model", "GET", "/v1/models/org%2Fm/", "", withToken(member), 200, `"owned_by":"main"`},
			{"Anthropic's key", "GET", "/v1/models", "", []string{"X-Api-Key", member, "Anthropic-Version", "2023-06-01"}, 200, `"type":"model"`},
			{"no token", "GET", "/v1/models", "", nil, 401, `"code":"invalid_api_key"`},
			{"another project's token", "GET", "/v1/models", "", withToken(other), 403, `"code":"forbidden"`},
			{"another project's model", "POST", "/v1/completions", `{"model":"org/theirs"}`, withToken(admin), 404, `"code":"model_not_found"`},
			{"an unknown path", "GET", "/v1/nothing", "", withToken(member), 404, `"code":"not_found"`},
			{"no path", "GET", "/v1", "", withToken(member), 404, `"code":"not_found"`},
			{"another method", "GET", "/v1/chat/completions/", "", withToken(member), 405, `"code":"method_not_allowed"`},
			{"a call", "POST", "/v1/completions", `{"model":"org/m"}`, withToken(member), 200, "hello from /v1/completions"},
			{"a preflight", "OPTIONS", "/v1/chat/completions", "", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}, 204, ""},
		} {
			got := r.do(r.newRequest(c.method, base+c.path, strings.NewReader(c.body), c.header...))
			if got.StatusCode != c.status || !strings.Contains(got.body, c.words) {
				t.Errorf("%s, %s: %d %s", base, c.name, got.StatusCode, got.body)
			}
			if got.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s, %s: no page of another origin may read it", base, c.name)
			}
		}
	}
}

// The token of a global admin opens every project, but none that does not exist.
func TestModels_OfAnUnknownProject(t *testing.T) {
	r := startGateway(t, gateway.Limits{}, modelRoute("m", "org/m", startReplica(t, 0, serveHello)))
	for _, c := range []struct {
		token, method, path string
		status              int
		words               string
	}{
		{admin, "GET", "/proxy/models/nope/v1/models", 404, "there is no project `nope`"},
		{admin, "POST", "/proxy/models/nope/v1/completions", 404, "there is no project `nope`"},
		{member, "GET", "/proxy/models/nope/v1/models", 403, "no access"},
		{admin, "GET", "/proxy/models/team/v1/models", 200, `"data":[]`}, // it has no models
	} {
		got := r.do(r.newRequest(c.method, "http://127.0.0.1:3000"+c.path, strings.NewReader(`{"model":"org/m"}`), withToken(c.token)...))
		if got.StatusCode != c.status || !strings.Contains(got.body, c.words) {
			t.Errorf("%s with %s: %d %s", c.path, c.token, got.StatusCode, got.body)
		}
	}
}

func TestServes_NamesBelowThePublicURL(t *testing.T) {
	up := startReplica(t, 0, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.Host)) })
	r := startGatewayWith(t, gateway.Options{Site: route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}}},
		publicRoute("web", up))
	for _, host := range []string{"web.dstack.example.com", "web.localhost:3000", "web.main.dstack.example.com"} {
		if got := r.get("http://" + host + "/"); got.StatusCode != 200 || got.body != host {
			t.Errorf("%s: %d %s", host, got.StatusCode, got.body)
		}
	}
	if got := r.get("http://dstack.example.com/"); got.StatusCode != http.StatusTeapot {
		t.Errorf("the server's own host: %d %s", got.StatusCode, got.body)
	}
}
