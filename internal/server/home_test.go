package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestHome(t *testing.T) {
	h := newTestServer(t, func(o *Options) { o.Version = "1.2.3" })
	get := func(method, path, accept string) apiResponse {
		t.Helper()
		r, err := http.NewRequest(method, h.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		return h.send(r)
	}
	page := get("GET", "/", "text/html,application/xhtml+xml,*/*;q=0.8")
	for _, want := range []string{"<h1>dstack</h1>", "version 1.2.3", "--url " + h.url + "\n", h.url + "/v1", `href="/api/openapi.json"`} {
		if !strings.Contains(page.text, want) {
			t.Errorf("no %q on the page:\n%s", want, page.text)
		}
	}
	policy := page.header.Get("Content-Security-Policy")
	if page.status != 200 || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || strings.Contains(page.text, "<script") ||
		!strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("%d %v", page.status, page.header)
	}
	for _, accept := range []string{"", "*/*", "application/json"} {
		got := get("GET", "/", accept)
		var view homeView
		if err := json.Unmarshal([]byte(got.text), &view); err != nil || got.status != 200 || view.Name != "dstack" ||
			view.Version != "1.2.3" || view.Models != h.url+"/v1" || view.API != openapiPath {
			t.Errorf("%q: %d %s", accept, got.status, got.text)
		}
	}
	if got := get("HEAD", "/", "text/html"); got.status != 200 || got.text != "" {
		t.Errorf("HEAD: %d %s", got.status, got.text)
	}
	if got := get("POST", "/", "text/html"); got.status != 405 {
		t.Errorf("POST: %d", got.status)
	}
	if got := get("GET", "/nothing", "text/html"); got.status != 404 {
		t.Errorf("another path: %d", got.status)
	}
	for _, link := range []string{"/api/openapi.json", "/schema/dstack.yml.json"} {
		if got := get("GET", link, ""); got.status != 200 {
			t.Errorf("%s: %d", link, got.status)
		}
	}
}
