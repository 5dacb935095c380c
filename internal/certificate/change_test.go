package certificate_test

import (
	"context"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/certificate/dnstest"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Each change of the source of a domain's certificates happens in place: no handshake fails meanwhile.
func testSourceChanges(t *testing.T) {
	r := newRig(t, nil)
	keeper := keep(t, r.options(t))
	r.serveHTTPS(t, keeper)
	r.serveHTTP(t, keeper)
	internal := []certificate.Domain{{Gateway: "g1", Name: "example.com", Names: []string{"llama.example.com"}, Certificate: &spec.Certificate{Type: "internal"}}}
	cert, key := writePair(t, t.TempDir(), []string{"*.example.com"}, time.Now().Add(time.Hour))
	files := []certificate.Domain{{Gateway: "g1", Name: "example.com", Certificate: &spec.Certificate{Type: "files", Cert: cert, Key: key}}}
	keeper.SetDomains(internal)
	waitForState(t, keeper, "*.example.com", dstack.CertificateValid)

	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for ctx.Err() == nil {
			if _, err := r.connect("llama.example.com", nil); err != nil {
				failed <- err
				return
			}
		}
	}()
	for _, step := range []struct {
		domains []certificate.Domain
		issuer  string
		name    string
	}{
		{r.wildcard(dnstest.Key), "Pebble", "*.example.com"},
		{perName("llama.example.com"), "Pebble", "llama.example.com"},
		{files, "test", "*.example.com"},
		{internal, "dstack internal authority for example.com", "*.example.com"},
		{r.wildcard(dnstest.Key), "Pebble", "*.example.com"},
	} {
		keeper.SetDomains(step.domains)
		waitFor(t, "issued by "+step.issuer, func() bool {
			issuer := statusOf(keeper, step.name).Issuer
			return len(issuer) >= len(step.issuer) && issuer[:len(step.issuer)] == step.issuer
		})
	}
	stop()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	keeper.SetDomains(nil)
	if keeper.Covers("llama.example.com") || len(keeper.Statuses("g1")) > 0 {
		t.Error("a domain that is gone is served")
	}
}
