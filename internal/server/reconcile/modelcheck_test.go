package reconcile

import (
	"context"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func newModelCheck(t *testing.T) job.Probe {
	t.Helper()
	check, ok := job.ModelCheckOf(spec.Service{Model: &spec.Model{Format: "openai", Prefix: "/v1"}})
	if !ok {
		t.Fatal("a model without probes has no model check")
	}
	return check
}

func TestModelCheck_WaitsOnlyForAnAnswerOf503(t *testing.T) {
	health, models := "/health", "/v1/models"
	for _, c := range []struct {
		name   string
		status map[string]int // by path
		want   string         // reason of the failure; empty: ready
	}{
		{"the model is loaded", map[string]int{health: 200}, ""},
		{"the model is not loaded", map[string]int{health: 503}, "its model is not loaded yet: GET /health answered 503"},
		{"the health path decides", map[string]int{health: 200, models: 503}, ""},
		{"no health path", map[string]int{health: 404, models: 200}, ""},
		{"no health path, not loaded", map[string]int{health: 404, models: 503}, "its model is not loaded yet: GET /v1/models answered 503"},
		{"no GET of the health path", map[string]int{health: 405, models: 503}, "its model is not loaded yet: GET /v1/models answered 503"},
		{"neither path", map[string]int{health: 404, models: 404}, ""},
		{"a token is needed", map[string]int{health: 401, models: 503}, ""},
		{"a redirect", map[string]int{health: 302}, ""},
		{"an error of another kind", map[string]int{health: 500}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(c.status[r.URL.Path]) })
			failure, reason := sendProbe(t.Context(), newTransport(), endpoint, newModelCheck(t)), ""
			if failure != nil {
				reason = failure.reason
			}
			if reason != c.want {
				t.Errorf("got %q, want %q", reason, c.want)
			}
		})
	}
}

func TestModelCheck_NoAnswerIsReadyAndAFaultOfThisServerIsNot(t *testing.T) {
	check := newModelCheck(t)
	check.Timeout = 1
	hangs := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if failure := sendProbe(t.Context(), newTransport(), hangs, check); failure != nil {
		t.Errorf("a server that does not answer: %s", failure.reason)
	}
	for _, fault := range []error{
		&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)},
		&dstack.Error{Kind: dstack.Unavailable, Message: "there is no connection to the host"},
	} {
		transport := newProbeTransport(func(context.Context, string, string) (net.Conn, error) { return nil, fault })
		if failure := sendProbe(t.Context(), transport, hangs, check); failure == nil || !failure.isLocal {
			t.Errorf("%v: %+v", fault, failure)
		}
	}
}

// The check is repeated until the model is loaded, and not sent again.
func TestProber_ModelCheckEndsOnceTheModelIsLoaded(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		check := newModelCheck(r.t)
		r.configure("a:80", func(p *probedReplica) { p.status["/health"] = 503 })
		r.setTargets("i", []target{newTarget("a", check)})
		r.advance(30 * second)
		r.expectStatus("a", failingStatus(0, "its model is not loaded yet: GET /health answered 503"))
		if n := len(r.takeRequests("a:80", "/health")); n < 30 || n > 40 {
			t.Errorf("asked %d times in 30 seconds", n)
		}
		r.configure("a:80", func(p *probedReplica) { delete(p.status, "/health") })
		r.advance(1100 * time.Millisecond)
		r.expectStatus("a", passingStatus())
		r.takeRequests("a:80", "/health")
		r.configure("a:80", func(p *probedReplica) { p.status["/health"] = 503 })
		r.advance(100 * second)
		r.expectStatus("a", passingStatus())
		if at := r.takeRequests("a:80", "/health"); at != nil {
			t.Errorf("asked again at %v", at)
		}
	})
}
