package certificate_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/certificate/acmetest"
	"dstack/internal/certificate/dnstest"
	"dstack/internal/dstack"
)

// TestACME runs its cases together, because they mostly wait for the ACME server.
func TestACME(t *testing.T) {
	t.Parallel()
	together(t, map[string]func(*testing.T){
		"HTTPChallenge":               testHTTPChallenge,
		"TLSChallenge":                testTLSChallenge,
		"OneWildcardByDNS":            testOneWildcardByDNS,
		"NameThatPointsElsewhere":     testNameThatPointsElsewhere,
		"Rejection":                   testRejection,
		"LimitHoldsForTheWholeDomain": testLimitHoldsForTheWholeDomain,
		"IssuerAway":                  testIssuerAway,
		"RenewalByTwoProcesses":       testRenewalByTwoProcesses,
		"ExternalAccountBinding":      testExternalAccountBinding,
		"AtTheFirstHandshake":         testAtTheFirstHandshake,
		"SourceChanges":               testSourceChanges,
		"ServerChanges":               testServerChanges,
	})
}

func testHTTPChallenge(t *testing.T) {
	r := newRig(t, nil)
	keeper := keep(t, r.options(t))
	r.https.Close() //nolint:errcheck // so that only HTTP-01 can work
	r.serveHTTP(t, keeper)
	keeper.SetDomains(perName("llama.example.com", "gateway.example.com"))
	for _, name := range []string{"llama.example.com", "gateway.example.com"} {
		if s := waitForState(t, keeper, name, dstack.CertificateValid); s.NotAfter.Before(time.Now()) || !strings.Contains(s.Issuer, "Pebble") {
			t.Errorf("status %+v", s)
		}
	}
	if keeper.Covers("other.example.com") {
		t.Error("a name without a certificate is covered")
	}
	// No service answers below the path of challenges, whatever is asked.
	for _, path := range []string{"unknown", "dstack-probe-x"} {
		answer, err := http.Get("http://" + r.http.Addr().String() + "/.well-known/acme-challenge/" + path) //nolint:noctx
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close() //nolint:errcheck
		if answer.StatusCode != http.StatusNotFound || strings.Contains(string(body), "service") {
			t.Errorf("%s: %d %s", path, answer.StatusCode, body)
		}
	}
}

// The settings of an installation may name another ACME server while the gateway serves.
func testServerChanges(t *testing.T) {
	r := newRig(t, nil)
	options := r.options(t)
	present := options.ACME
	options.ACME.Server = "https://" + listen(t).Addr().String() + "/nothing"
	keeper := keep(t, options)
	r.serveHTTP(t, keeper)
	keeper.SetDomains(perName("llama.example.com"))
	if err := keeper.SetACME(certificate.ACME{Roots: "no certificate"}); err == nil {
		t.Error("authorities that cannot be read are accepted")
	}
	if err := keeper.SetACME(present); err != nil {
		t.Fatal(err)
	}
	first := waitForState(t, keeper, "llama.example.com", dstack.CertificateValid)
	if err := keeper.SetACME(options.ACME); err != nil {
		t.Fatal(err)
	}
	if s := statusOf(keeper, "llama.example.com"); s.State != dstack.CertificateValid || !s.NotAfter.Equal(first.NotAfter) {
		t.Errorf("while the new server does not answer: %+v", s)
	}
}

func testTLSChallenge(t *testing.T) {
	r := newRig(t, nil)
	keeper := keep(t, r.options(t))
	r.http.Close() //nolint:errcheck // so that only TLS-ALPN-01 can work
	r.serveHTTPS(t, keeper)
	keeper.SetDomains(perName("llama.example.com"))
	waitForState(t, keeper, "llama.example.com", dstack.CertificateValid)
	if _, err := r.connect("llama.example.com", r.roots(t)); err != nil {
		t.Fatal(err)
	}
}

func testOneWildcardByDNS(t *testing.T) {
	r := newRig(t, func(o *acmetest.Options) { o.Environment = []string{"PEBBLE_WFE_NONCEREJECT=20"} })
	r.dns.SetTexts("_acme-challenge.example.com", "of somebody else")
	keeper := keep(t, r.options(t))
	r.serveHTTPS(t, keeper)

	keeper.SetDomains(r.wildcard("d3Jvbmc="))
	s := waitForState(t, keeper, "*.example.com", dstack.CertificateMissing)
	if !strings.Contains(s.Reason, "the DNS provider rfc2136 does not write _acme-challenge.example.com") || !strings.Contains(s.Reason, "refuses the key") || s.Hint == "" {
		t.Errorf("with a wrong key: %+v", s)
	}

	keeper.SetDomains(r.wildcard(dnstest.Key))
	waitForState(t, keeper, "*.example.com", dstack.CertificateValid)
	for _, name := range []string{"llama.example.com", "gateway.example.com", "anything.example.com"} {
		if _, err := r.connect(name, r.roots(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.connect("a.b.example.com", nil); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a name without a certificate: %v", err)
	}
	if len(keeper.Statuses("g1")) != 1 {
		t.Errorf("more than one certificate: %+v", keeper.Statuses("g1"))
	}
	waitFor(t, "cleaned up", func() bool {
		return slices.Equal(r.dns.Texts("_acme-challenge.example.com"), []string{"of somebody else"})
	})
}

func testNameThatPointsElsewhere(t *testing.T) {
	r := newRig(t, nil)
	keeper := keep(t, r.options(t))
	other := listen(t)
	serve(t, other, http.NotFoundHandler())
	r.https.Close() //nolint:errcheck
	r.serveHTTP(t, keeper)
	r.dns.SetAddresses("gone.example.com")
	another := r.options(t)
	another.ACME.HTTPPort, another.ACME.HTTPSPort = portOf(other), portOf(other)
	misled := keep(t, another)
	misled.SetDomains(perName("llama.example.com", "gone.example.com"))

	s := waitForState(t, misled, "llama.example.com", dstack.CertificateMissing)
	if s.Reason != "llama.example.com does not point at 192.0.2.7" || !strings.Contains(s.Hint, "another program answers at 127.0.0.1") || s.NextAt.IsZero() {
		t.Errorf("status %+v", s)
	}
	s = waitForState(t, misled, "gone.example.com", dstack.CertificateMissing)
	if s.Reason != "gone.example.com does not point at 192.0.2.7: it has no DNS record" {
		t.Errorf("status %+v", s)
	}
	if orders := r.acme.Count("POST /order-plz"); orders != 0 {
		t.Errorf("%d orders were made", orders)
	}

	r.dns.SetAddresses("gone.example.com", "127.0.0.1")
	keeper.SetDomains(perName("gone.example.com"))
	keeper.RetryNow()
	waitForState(t, keeper, "gone.example.com", dstack.CertificateValid)
}

func testRejection(t *testing.T) {
	elsewhere := dnstest.Start(t, "example.com") // what the ACME server sees
	elsewhere.SetAddresses("*.example.com", "127.0.0.2")
	r := newRig(t, func(o *acmetest.Options) { o.DNS = elsewhere.Addr })
	keeper := keep(t, r.options(t))
	r.https.Close() //nolint:errcheck
	r.serveHTTP(t, keeper)
	keeper.SetDomains(perName("llama.example.com"))
	s := waitForState(t, keeper, "llama.example.com", dstack.CertificateMissing)
	if !strings.HasPrefix(s.Reason, "127.0.0.1 rejected llama.example.com: ") || !strings.Contains(s.Reason, "refused") || s.Hint == "" {
		t.Errorf("status %+v", s)
	}
	if wait := time.Until(s.NextAt); wait < 30*time.Second || wait > 2*time.Minute {
		t.Errorf("the next try is in %v", wait)
	}
}
