package gateway_test

import (
	"strings"
	"testing"

	"dstack/internal/gateway"
)

// TestHealth: benchmark tools ask for it before anything else, without a token.
func TestHealth(t *testing.T) {
	r := startGateway(t, gateway.Limits{})
	if got := r.get("http://gateway.localhost/health"); got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" || !strings.Contains(got.body, "no routes yet") {
		t.Errorf("without a table: %d %s", got.StatusCode, got.body)
	}
	r.plane.setRoutes(startingModel("openai"))
	waitUntil(t, "the table", func() bool { return len(r.gateway.Load()) > 0 })
	for _, url := range []string{"http://127.0.0.1:3000/health", "http://gateway.localhost/health", "http://gateway.localhost/health/",
		"http://gateway.unknown.localhost/health", "http://127.0.0.1:3000/proxy/models/main/health"} {
		got := r.get(url)
		if got.StatusCode != 200 || got.body != `{"status":"ok"}`+"\n" || got.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %s", url, got.StatusCode, got.body)
		}
	}
	if got := r.get("http://gateway.localhost/health", "Authorization", "Bearer unknown"); got.StatusCode != 200 {
		t.Errorf("with a wrong token: %d %s", got.StatusCode, got.body)
	}
	if got := r.do(r.newRequest("HEAD", "http://gateway.localhost/health", nil)); got.StatusCode != 200 {
		t.Errorf("HEAD: %d", got.StatusCode)
	}
	if got := r.do(r.newRequest("POST", "http://gateway.localhost/health", nil)); got.StatusCode != 405 || got.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", got.StatusCode, got.Header)
	}
	r.gateway.RefuseWaiting()
	if got := r.get("http://gateway.localhost/health"); got.StatusCode != 503 || !strings.Contains(got.body, "stopping") {
		t.Errorf("while it stops: %d %s", got.StatusCode, got.body)
	}
}
