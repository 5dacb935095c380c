package certificate_test

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/certificate/acmetest"
	"dstack/internal/dstack"
)

// faultyProxy stands before an ACME server. fault may answer a request itself.
type faultyProxy struct {
	*httptest.Server
	orders atomic.Int64 // accepted ones, and those that a fault answered
	fault  atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

func (r *rig) proxy(t *testing.T) *faultyProxy {
	t.Helper()
	target, err := url.Parse(r.acme.Directory)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "https", Host: target.Host})
			p.Out.Host = p.In.Host
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	p := &faultyProxy{}
	forward.ModifyResponse = func(a *http.Response) error { // pebble refuses some nonces, and the library asks again
		if a.Request.URL.Path == "/order-plz" && a.StatusCode == http.StatusCreated {
			p.orders.Add(1)
		}
		return nil
	}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := p.fault.Load(); fault != nil && (*fault)(w, r) {
			p.orders.Add(1)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *faultyProxy) acme(o certificate.ACME) certificate.ACME {
	o.Server, o.Roots = p.URL+"/dir", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}))
	return o
}

// answer makes the proxy answer requests for orders with a problem; nil stops that.
func (p *faultyProxy) answer(status int, kind string, retryAfter time.Duration) {
	fault := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/order-plz" {
			return false
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
		w.WriteHeader(status)
		w.Write([]byte(`{"type":"urn:ietf:params:acme:error:` + kind + `","detail":"too many\nthings","status":` + strconv.Itoa(status) + `}`)) //nolint:errcheck
		return true
	}
	p.fault.Store(&fault)
}

// An issuer that limits orders is not asked again before the time that it says, for no name of the domain.
func testLimitHoldsForTheWholeDomain(t *testing.T) {
	r := newRig(t, nil)
	proxy := r.proxy(t)
	options := r.options(t)
	options.ACME = proxy.acme(options.ACME)
	keeper := keep(t, options)
	r.https.Close() //nolint:errcheck
	r.serveHTTP(t, keeper)
	proxy.answer(http.StatusTooManyRequests, "rateLimited", 36*time.Hour)
	keeper.SetDomains(perName("a.example.com"))
	s := waitForState(t, keeper, "a.example.com", dstack.CertificateMissing)
	if left := time.Until(s.NextAt); left < 35*time.Hour || left > 37*time.Hour {
		t.Errorf("the next try is in %v", left)
	}
	if s.Reason != "127.0.0.1 limits orders: too many things" || !strings.Contains(s.Hint, "one wildcard certificate") {
		t.Errorf("status %+v", s)
	}
	keeper.SetDomains(perName("a.example.com", "b.example.com", "c.example.com"))
	waitForState(t, keeper, "b.example.com", dstack.CertificateMissing)
	s = waitForState(t, keeper, "c.example.com", dstack.CertificateMissing)
	if !strings.HasPrefix(s.Reason, "the issuer limits orders for example.com until ") || time.Until(s.NextAt) < 35*time.Hour {
		t.Errorf("status %+v", s)
	}
	if orders := proxy.orders.Load(); orders != 1 {
		t.Errorf("%d orders", orders)
	}
	// Another process, or this one after a restart, knows it from the storage.
	again := keep(t, options)
	again.SetDomains(perName("a.example.com"))
	waitForState(t, again, "a.example.com", dstack.CertificateMissing)
	if orders := proxy.orders.Load(); orders != 1 {
		t.Errorf("%d orders after a restart", orders)
	}
}

// While the issuer is away, what was obtained is served, and one certificate at a time is tried.
func testIssuerAway(t *testing.T) {
	r := newRig(t, nil)
	proxy := r.proxy(t)
	options := r.options(t)
	options.ACME = proxy.acme(options.ACME)
	keeper := keep(t, options)
	r.http.Close() //nolint:errcheck
	r.serveHTTPS(t, keeper)
	keeper.SetDomains(perName("a.example.com"))
	waitForState(t, keeper, "a.example.com", dstack.CertificateValid)

	proxy.answer(http.StatusServiceUnavailable, "serverInternal", time.Minute)
	r.acme.Stop()
	before := proxy.orders.Load()
	keeper.SetDomains(perName("a.example.com", "b.example.com", "c.example.com", "d.example.com", "e.example.com", "f.example.com"))
	s := waitForState(t, keeper, "f.example.com", dstack.CertificateMissing)
	if !strings.Contains(s.Reason, "127.0.0.1 fails: ") && !strings.Contains(s.Reason, "does not answer") {
		t.Errorf("status %+v", s)
	}
	if s := statusOf(keeper, "a.example.com"); s.State != dstack.CertificateValid || !keeper.Covers("a.example.com") {
		t.Errorf("status %+v", s)
	}
	if orders := proxy.orders.Load() - before; orders > 4*3 { // of the four workers, each with the library's tries
		t.Errorf("%d orders", orders)
	}
	// After a restart without the issuer, the certificate comes from the storage.
	again := keep(t, options)
	again.SetDomains(perName("a.example.com"))
	waitForState(t, again, "a.example.com", dstack.CertificateValid)

	r.acme.Resume(t) // has forgotten the account
	proxy.fault.Store(nil)
	keeper.RetryNow()
	waitForState(t, keeper, "f.example.com", dstack.CertificateValid)
}

// A certificate is renewed while handshakes go on, without one that fails, and its successor replaces it.
func testRenewalByTwoProcesses(t *testing.T) {
	r := newRig(t, func(o *acmetest.Options) { o.Lifetime = 12 * time.Second })
	proxy := r.proxy(t)
	options := r.options(t)
	options.ACME = proxy.acme(options.ACME)
	keeper, other := keep(t, options), keep(t, options) // with the same storage
	r.serveHTTPS(t, keeper)
	r.serveHTTP(t, other)
	for _, k := range []*certificate.Keeper{keeper, other} {
		k.SetDomains(perName("llama.example.com"))
	}
	waitForState(t, keeper, "llama.example.com", dstack.CertificateValid)
	waitForState(t, other, "llama.example.com", dstack.CertificateValid)
	roots := r.roots(t)
	first, err := r.connect("llama.example.com", roots)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := first.NotAfter.Add(2 * time.Second); ; {
		cert, err := r.connect("llama.example.com", roots)
		if err != nil {
			t.Fatalf("%v before its end: %v", time.Until(first.NotAfter), err)
		}
		if !cert.Equal(first) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the certificate was not renewed")
		}
		time.Sleep(20 * time.Millisecond)
	}
	waitFor(t, "taken over by the other process", func() bool {
		return statusOf(other, "llama.example.com").NotAfter.Equal(statusOf(keeper, "llama.example.com").NotAfter)
	})
	if first := int(proxy.orders.Load()) - r.acme.Count("is a replacement of"); first != 1 {
		t.Errorf("two processes ordered their first certificate %d times", first)
	}
	if orders := proxy.orders.Load(); orders > 4 {
		t.Errorf("%d orders", orders)
	}
}

func testExternalAccountBinding(t *testing.T) {
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	r := newRig(t, func(o *acmetest.Options) { o.AccountKeys = map[string]string{"kid-1": key} })
	options := r.options(t)
	without := keep(t, options)
	r.serveHTTP(t, without)
	without.SetDomains(perName("a.example.com"))
	s := waitForState(t, without, "a.example.com", dstack.CertificateMissing)
	if !strings.Contains(s.Hint, "DSTACK_ACME_EAB_KID") {
		t.Errorf("status %+v", s)
	}
	root := t.TempDir() + "/root.pem"
	if err := os.WriteFile(root, []byte(options.ACME.Roots), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"DSTACK_ACME_SERVER": r.acme.Directory, "DSTACK_ACME_CA_ROOT": root, "DSTACK_ACME_EAB_KID": "kid-1",
		"DSTACK_ACME_EAB_HMAC_KEY": key, "DSTACK_ACME_EMAIL": "admin@example.com", "DSTACK_ACME_HTTP_PORT": strconv.Itoa(portOf(r.http)),
		"DSTACK_ACME_HTTPS_PORT": strconv.Itoa(portOf(r.https)), "DSTACK_ACME_RESOLVERS": r.dns.Addr + ", 127.0.0.1:1"}
	acme, err := certificate.ACMEFromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	options.ACME, options.Storage = acme, acmetest.FileStorage{Dir: t.TempDir()}
	with := keep(t, options)
	r.serveHTTPS(t, with)
	with.SetDomains(perName("a.example.com"))
	waitForState(t, with, "a.example.com", dstack.CertificateValid)
}

func TestACMEFromEnvironment_ReportsAllMistakes(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DSTACK_ACME_SERVER": "acme.example.com", "DSTACK_ACME_EAB_KID": "kid", "DSTACK_ACME_CA_ROOT": "/nowhere", "DSTACK_ACME_HTTP_PORT": "web", "DSTACK_ACME_RESOLVERS": "8.8.8.8"}
	_, err := certificate.ACMEFromEnvironment(func(name string) string { return env[name] })
	if dstack.KindOf(err) != dstack.Invalid {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"DSTACK_ACME_SERVER=acme.example.com is not the https URL", "only one is set", "DSTACK_ACME_CA_ROOT: ", "DSTACK_ACME_HTTP_PORT=web is not a port",
		"DSTACK_ACME_RESOLVERS has 8.8.8.8, which is not host:port"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if none, err := certificate.ACMEFromEnvironment(func(string) string { return "" }); err != nil || none != (certificate.ACME{}) {
		t.Errorf("without variables: %+v, %v", none, err)
	}
}

// A handshake for a name that the route table knows, and SetDomains did not list yet, gets a certificate of its own. Other names are
// refused at once, without an order.
func testAtTheFirstHandshake(t *testing.T) {
	r := newRig(t, nil)
	proxy := r.proxy(t)
	options := r.options(t)
	options.ACME = proxy.acme(options.ACME)
	slow := func(http.ResponseWriter, *http.Request) bool { time.Sleep(100 * time.Millisecond); return false }
	proxy.fault.Store(&slow)
	options.Wants = func(name string) bool { return name == "new.example.com" }
	keeper := keep(t, options)
	r.http.Close() //nolint:errcheck
	r.serveHTTPS(t, keeper)
	keeper.SetDomains(perName("a.example.com"))
	waitForState(t, keeper, "a.example.com", dstack.CertificateValid)
	errs := make(chan error, 10)
	for range cap(errs) {
		go func() {
			_, err := r.connect("new.example.com", nil)
			errs <- err
		}()
	}
	began := time.Now()
	for _, name := range []string{"x1.example.com", "x2.example.com", "a.b.example.com", "example.org", "*.example.com"} {
		if _, err := r.connect(name, nil); err == nil {
			t.Errorf("%s has a certificate", name)
		}
	}
	if time.Since(began) > 2*time.Second {
		t.Errorf("unknown names were refused after %v", time.Since(began))
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if orders := proxy.orders.Load(); orders != 2 {
		t.Errorf("%d orders", orders)
	}
	keeper.SetDomains(perName("a.example.com")) // it stays, because it is still wanted
	if !keeper.Covers("new.example.com") {
		t.Error("the certificate was dropped")
	}
}
