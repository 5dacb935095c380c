package certificate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/certificate/acmetest"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// writePair writes a certificate for names and its key into a folder.
func writePair(t *testing.T, dir string, names []string, end time.Time) (cert, key string) {
	t.Helper()
	begin := end.Add(-30 * 24 * time.Hour)
	if latest := time.Now().Add(-time.Hour); begin.After(latest) {
		begin = latest
	}
	return writePairFrom(t, dir, names, begin, end)
}

func writePairFrom(t *testing.T, dir string, names []string, begin, end time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(end.UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: begin, NotAfter: end}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: raw}, key: {Type: "PRIVATE KEY", Bytes: rawKey}} {
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func fileDomain(cert, key string, names ...string) []certificate.Domain {
	return []certificate.Domain{{Gateway: "g1", Name: "example.com", Names: names, Certificate: &spec.Certificate{Type: "files", Cert: cert, Key: key}}}
}

func TestFiles_AreReadAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(90 * 24 * time.Hour).Truncate(time.Second)
	cases := map[string]func(*testing.T){}
	// What cannot serve does not replace what does; CERT and KEY stand for the files.
	for what, damage := range map[string]struct {
		do     func(t *testing.T, cert, key string)
		reason string
	}{
		"expired": {func(t *testing.T, cert, _ string) {
			writePair(t, filepath.Dir(cert), []string{"*.example.com"}, time.Now().Add(-time.Hour))
		}, "CERT expired on "},
		"not valid yet": {func(t *testing.T, cert, _ string) {
			writePairFrom(t, filepath.Dir(cert), []string{"*.example.com"}, time.Now().Add(time.Hour), end)
		}, "CERT is not valid before "},
		"for another domain": {func(t *testing.T, cert, _ string) { writePair(t, filepath.Dir(cert), []string{"*.example.org"}, end) },
			"CERT is not for *.example.com, but for *.example.org"},
		"for many names": {func(t *testing.T, cert, _ string) {
			writePair(t, filepath.Dir(cert), []string{"a.b.c.org", "b", "c", "d"}, end)
		},
			"but for a.b.c.org, b, c and 1 more"},
		"without a key": {func(_ *testing.T, _, key string) { os.Remove(key) }, "KEY does not exist on the machine of the gateway"}, //nolint:errcheck
		"of another key": {func(t *testing.T, cert, key string) {
			writePair(t, filepath.Dir(cert), []string{"*.example.com"}, end)
			copyKey(t, key)
		},
			"private key does not match public key"},
		"not PEM":    {func(_ *testing.T, cert, _ string) { os.WriteFile(cert, []byte("hello"), 0o600) }, "failed to find any PEM data"}, //nolint:errcheck
		"cut off":    {func(_ *testing.T, cert, _ string) { os.Truncate(cert, 100) }, "failed to find any PEM data"},                     //nolint:errcheck
		"no file":    {func(_ *testing.T, cert, _ string) { os.Remove(cert); os.Mkdir(cert, 0o700) }, "CERT is not a file"},              //nolint:errcheck
		"very large": {func(_ *testing.T, _, key string) { os.Truncate(key, 1<<30) }, "KEY is larger than 1 MiB"},                        //nolint:errcheck
	} {
		cases[what] = func(t *testing.T) { testDamagedFiles(t, end, damage.do, damage.reason) }
	}
	together(t, cases)
}

func testDamagedFiles(t *testing.T, end time.Time, damage func(t *testing.T, cert, key string), reason string) {
	dir := t.TempDir()
	keeper := keep(t, certificate.Options{Storage: acmetest.FileStorage{Dir: t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
	cert, key := writePair(t, dir, []string{"*.example.com", "example.com"}, end)
	keeper.SetDomains(fileDomain(cert, key))
	waitForState(t, keeper, "*.example.com", dstack.CertificateValid)
	if !keeper.Covers("llama.example.com") || !keeper.Covers("example.com") {
		t.Error("the names of the certificate are not covered")
	}
	damage(t, cert, key)
	reason = strings.NewReplacer("CERT", cert, "KEY", key).Replace(reason)
	waitFor(t, "refused: "+reason, func() bool { return strings.Contains(statusOf(keeper, "*.example.com").Reason, reason) })
	if s := statusOf(keeper, "*.example.com"); s.State != dstack.CertificateFailing || !s.NotAfter.Equal(end) || !keeper.Covers("llama.example.com") {
		t.Errorf("status %+v", s)
	}
	os.RemoveAll(cert) //nolint:errcheck
	later := end.Add(24 * time.Hour)
	writePair(t, dir, []string{"*.example.com"}, later)
	waitFor(t, "read again", func() bool {
		s := statusOf(keeper, "*.example.com")
		return s.NotAfter.Equal(later) && s.Reason == ""
	})
}

func copyKey(t *testing.T, to string) {
	t.Helper()
	_, other := writePair(t, t.TempDir(), []string{"x"}, time.Now())
	text, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A certificate that is not for every name serves those that it is for, and the status says which it lacks.
func TestFiles_ForSomeNames(t *testing.T) {
	t.Parallel()
	keeper := keep(t, certificate.Options{Storage: acmetest.FileStorage{Dir: t.TempDir()}, Log: slog.New(slog.DiscardHandler)})
	cert, key := writePair(t, t.TempDir(), []string{"llama.example.com", "elsewhere.org"}, time.Now().Add(6*24*time.Hour))
	keeper.SetDomains(fileDomain(cert, key, "llama.example.com", "gateway.example.com"))
	s := waitForState(t, keeper, "llama.example.com", dstack.CertificateValid)
	if !strings.HasPrefix(s.Reason, "it expires on ") {
		t.Errorf("no warning 6 days before the end: %+v", s)
	}
	if s := statusOf(keeper, "gateway.example.com"); s.State != dstack.CertificateMissing || !strings.Contains(s.Reason, "is not for gateway.example.com") {
		t.Errorf("status %+v", s)
	}
	if keeper.Covers("elsewhere.org") || keeper.Covers("gateway.example.com") || !keeper.Covers("llama.example.com") {
		t.Error("wrong names are covered")
	}
}
