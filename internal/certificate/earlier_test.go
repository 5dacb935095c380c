package certificate_test

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/certificate/acmetest"
	"dstack/internal/certificate/dnstest"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// A domain that its gateway had is served with the certificate that there is, also after a restart. It is in no status.
func TestKeeper_EarlierDomains(t *testing.T) {
	t.Parallel()
	options := certificate.Options{Storage: acmetest.FileStorage{Dir: t.TempDir()}, Log: slog.New(slog.DiscardHandler)}
	cert, key := writePair(t, t.TempDir(), []string{"*.files.example"}, time.Now().Add(time.Hour))
	domain := func(name string, source spec.Certificate, isEarlier bool) certificate.Domain {
		return certificate.Domain{Gateway: "g1", Name: name, Certificate: &source, IsEarlier: isEarlier}
	}
	internal, files := spec.Certificate{Type: spec.CertificateInternal}, spec.Certificate{Type: spec.CertificateFiles, Cert: cert, Key: key}
	ordered := spec.Certificate{Type: spec.CertificateLetsEncrypt, DNS: &spec.DNSProvider{Provider: "rfc2136"}}
	isServed := func(k *certificate.Keeper, names ...string) bool {
		for _, name := range names {
			if !k.Covers("web." + name) {
				return false
			}
		}
		return true
	}
	k := keep(t, options)
	k.SetDomains([]certificate.Domain{domain("old.example", internal, false), domain("files.example", files, false)})
	waitFor(t, "certificates", func() bool { return isServed(k, "old.example", "files.example") })

	change := []certificate.Domain{domain("new.example", internal, false), domain("old.example", internal, true), domain("files.example", files, true),
		domain("ordered.example", ordered, true)}
	k.SetDomains(change)
	if !isServed(k, "old.example", "files.example") {
		t.Error("an earlier domain is not served")
	}
	waitForState(t, k, "*.new.example", dstack.CertificateValid)
	if all := k.Statuses("g1"); len(all) != 1 || all[0].Name != "*.new.example" {
		t.Errorf("the certificates are %+v", all)
	}
	k.SetDomains([]certificate.Domain{{Gateway: "g1", Name: "new.example"}, domain("new.example", internal, true)})
	if !isServed(k, "new.example") || isServed(k, "old.example") {
		t.Error("without a certificate the present one is not kept, or an ended one is")
	}
	k.SetDomains([]certificate.Domain{domain("new.example", internal, false)})
	if all := k.Statuses("g1"); !isServed(k, "new.example") || len(all) != 1 || all[0].State != dstack.CertificateValid {
		t.Errorf("the certificate comes back as %+v", all)
	}

	again := keep(t, options)
	again.SetDomains(change)
	waitFor(t, "certificates after a restart", func() bool { return isServed(again, "new.example", "old.example", "files.example") })
}

// Certificates of the ACME server are served for an earlier domain, and none is ordered.
func TestKeeper_OrdersNoneForEarlierDomains(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	first := keep(t, r.options(t))
	first.SetDomains(r.wildcard(dnstest.Key))
	waitForState(t, first, "*.example.com", dstack.CertificateValid)

	options := r.options(t)
	options.Wants = func(string) bool { return true }
	again := keep(t, options)
	r.serveHTTPS(t, again)
	byName := perName("new.example.com")[0]
	byName.IsEarlier = true
	again.SetDomains([]certificate.Domain{byName})
	if got, err := r.connect("new.example.com", nil); err == nil {
		t.Errorf("a certificate for %v was ordered", got.DNSNames)
	}
	again.SetDomains([]certificate.Domain{byName, {Gateway: "g2", Name: "example.com", IsEarlier: true,
		Certificate: &spec.Certificate{Type: spec.CertificateLetsEncrypt, DNS: &spec.DNSProvider{Provider: "rfc2136"}}}})
	waitFor(t, "the wildcard after a restart", func() bool { return again.Covers("llama.example.com") })
	records, err := filepath.Glob(filepath.Join(r.storage.(acmetest.FileStorage).Dir, "domains/example.com/acme/*/certificates/*"))
	if err != nil || len(records) != 1 {
		t.Errorf("there are %v, %v", records, err)
	}
}
