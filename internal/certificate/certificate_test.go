package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"testing"

	"dstack/internal/certificate"
	"dstack/internal/certificate/acmetest"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// shakeHands makes a TLS handshake with a keeper, and returns what its client sees.
func shakeHands(keeper *certificate.Keeper, config *tls.Config) (tls.ConnectionState, error) {
	ours, theirs := net.Pipe()
	defer ours.Close()                                    //nolint:errcheck
	defer theirs.Close()                                  //nolint:errcheck
	go tls.Server(theirs, keeper.TLSConfig()).Handshake() //nolint:errcheck
	client := tls.Client(ours, config)
	err := client.Handshake()
	return client.ConnectionState(), err
}

func TestInternal_ServesNamesBelowTheDomainToClientsThatTrustTheRoot(t *testing.T) {
	t.Parallel()
	storage := acmetest.FileStorage{Dir: t.TempDir()}
	keeper := keep(t, certificate.Options{Storage: storage})
	keeper.SetDomains([]certificate.Domain{{Gateway: "g1", Name: "example.com", Names: []string{"llama.example.com", "a.b.example.com"},
		Certificate: &spec.Certificate{Type: "internal"}}})
	waitForState(t, keeper, "*.example.com", dstack.CertificateValid)
	waitForState(t, keeper, "a.b.example.com", dstack.CertificateValid)

	text, err := certificate.Root(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("the root is not PEM: %s", text)
	}
	for name, isServed := range map[string]bool{"llama.example.com": true, "GATEWAY.example.com": true, "a.b.example.com": true,
		"c.b.example.com": false, "example.com": false, "example.org": false} {
		state, err := shakeHands(keeper, &tls.Config{ServerName: name, RootCAs: roots})
		if (err == nil) != isServed || keeper.Covers(name) != isServed {
			t.Errorf("%s: %v, covered %v", name, err, keeper.Covers(name))
		}
		if err == nil && state.Version != tls.VersionTLS13 {
			t.Errorf("%s: version %x", name, state.Version)
		}
	}
}

// The process of a gateway has an intermediate authority: with its key, nobody can issue certificates for other domains.
func TestInternal_IntermediateIsLimitedToItsDomain(t *testing.T) {
	t.Parallel()
	storage := acmetest.FileStorage{Dir: t.TempDir()}
	text, err := certificate.Root(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	for name, isBelieved := range map[string]bool{"llama.example.com": true, "bank.example.org": false, "notexample.com": false} {
		cert, err := certificate.IssueWithIntermediate(t.Context(), storage, "example.com", name)
		if err != nil {
			t.Fatal(err)
		}
		intermediates := x509.NewCertPool()
		parent, err := x509.ParseCertificate(cert.Certificate[1])
		if err != nil {
			t.Fatal(err)
		}
		intermediates.AddCert(parent)
		_, err = cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates})
		if (err == nil) != isBelieved {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A client resumes its session at another process that has the same key, and at none with another key.
func TestTLSConfig_SessionsAreResumedAtAnyProcess(t *testing.T) {
	t.Parallel()
	storage := acmetest.FileStorage{Dir: t.TempDir()}
	start := func(key string) *certificate.Keeper {
		keeper := keep(t, certificate.Options{Storage: storage, SessionKey: []byte(key), Log: slog.New(slog.DiscardHandler)})
		keeper.SetDomains([]certificate.Domain{{Gateway: "g1", Name: "example.com", Certificate: &spec.Certificate{Type: "internal"}}})
		waitForState(t, keeper, "*.example.com", dstack.CertificateValid)
		return keeper
	}
	first, second, stranger := start("one"), start("one"), start("two")
	root, err := certificate.Root(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	config := &tls.Config{ServerName: "a.example.com", RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: tls.VersionTLS12}
	for _, step := range []struct {
		keeper    *certificate.Keeper
		isResumed bool
	}{{first, false}, {first, true}, {second, true}, {stranger, false}} {
		state, err := shakeHands(step.keeper, config)
		if err != nil || state.DidResume != step.isResumed {
			t.Errorf("resumed %v, %v; want %v", state.DidResume, err, step.isResumed)
		}
	}
	first.SetSessionKey([]byte("two")) // as the stranger has it, whose session the client has now
	waitFor(t, "a session of the new key is resumed", func() bool {
		if _, err := shakeHands(stranger, config); err != nil {
			t.Fatal(err)
		}
		state, err := shakeHands(first, config)
		return err == nil && state.DidResume
	})
}

// Certificates that wait for their order have a place in the queue.
func TestStatuses_TellThePlaceInTheQueue(t *testing.T) {
	t.Parallel()
	keeper, err := certificate.New(certificate.Options{Storage: acmetest.FileStorage{Dir: t.TempDir()}}) // its tasks do not run
	if err != nil {
		t.Fatal(err)
	}
	keeper.SetDomains(perName("a.example.com", "b.example.com"))
	keeper.SetDomains(perName("a.example.com", "b.example.com", "c.example.com", "elsewhere.org", "*.example.com", "bad_name.example.com"))
	statuses := keeper.Statuses("g1")
	if len(statuses) != 3 {
		t.Fatalf("statuses %+v", statuses)
	}
	for i, s := range statuses {
		if s.State != dstack.CertificatePending || s.Queue != i+1 || s.Queued != 3 {
			t.Errorf("status %+v", s)
		}
	}
}
