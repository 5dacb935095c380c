package gateway_test

import (
	"net/http"
	"testing"

	"dstack/internal/gateway"
	"dstack/internal/spec"
)

// TestRetryAfter_OfReplicas: some clients do not try again on a 429 without it.
func TestRetryAfter_OfReplicas(t *testing.T) {
	respond := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			serveStatus(status, "application/json", `{"error":"Model is overloaded","error_type":"overloaded"}`)(w, r)
		}
	}
	for _, c := range []struct {
		name, format string
		serve        http.HandlerFunc
		want         string
	}{
		{"429", "openai", respond(429), "2"},
		{"503", "openai", respond(503), "2"},
		{"its own", "openai", respond(429, "Retry-After", "7"), "7"},
		{"never", "openai", respond(503, "X-Should-Retry", "false"), ""},
		{"another status", "openai", respond(500), ""},
		{"tgi, 429", "tgi", respond(429), "2"},
		{"tgi, another status", "tgi", respond(422), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startGateway(t, gateway.Limits{}, startingModel(c.format, startReplica(t, 0, c.serve)))
			if got := r.sendChat(chatWhole); got.Header.Get("Retry-After") != c.want {
				t.Errorf("%d, Retry-After %q, %s", got.StatusCode, got.Header.Get("Retry-After"), got.body)
			}
		})
	}
	t.Run("a service", func(t *testing.T) {
		r := startGateway(t, gateway.Limits{}, publicRoute("open", startReplica(t, 0, respond(503))))
		if got := r.get("http://open.localhost/"); got.StatusCode != 503 || got.Header.Get("Retry-After") != "" {
			t.Errorf("%d %v", got.StatusCode, got.Header)
		}
	})
}

// TestRetryAfter_AtMostAMinute: clients do not obey more.
func TestRetryAfter_AtMostAMinute(t *testing.T) {
	limit := spec.RateLimit{Prefix: "/", Key: spec.RateLimitKey{Type: "header", Header: "Authorization"}, RPS: 0.001}
	r := startGateway(t, gateway.Limits{}, withLimits(modelRoute("m", "org/m", startReplica(t, 0, serveHello)), limit))
	r.sendChat(chatWhole)
	if got := r.sendChat(chatWhole); got.StatusCode != 429 || got.Header.Get("Retry-After") != "60" {
		t.Errorf("%d, Retry-After %q", got.StatusCode, got.Header.Get("Retry-After"))
	}
}
