package certificate_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// startKeeper returns a keeper whose tasks run until the test ends.
func startKeeper(t *testing.T, opts certificate.Options) *certificate.Keeper {
	t.Helper()
	if opts.Storage == nil {
		opts.Storage = certificate.FileStorage{Dir: t.TempDir()}
	}
	keeper, err := certificate.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, keeper.Tasks()...) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return keeper
}

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

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: not %s", what)
		}
	}
}

func TestInternal_ServesNamesBelowTheDomainToClientsThatTrustTheRoot(t *testing.T) {
	storage := certificate.FileStorage{Dir: t.TempDir()}
	keeper := startKeeper(t, certificate.Options{Storage: storage})
	keeper.SetDomains([]certificate.Domain{{Gateway: "g1", Name: "example.com", Certificate: &spec.Certificate{Type: "internal"}}})
	waitFor(t, "covered", func() bool { return keeper.Covers("llama.example.com") })

	text, err := certificate.Root(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("the root is not PEM: %s", text)
	}
	if _, err := shakeHands(keeper, &tls.Config{ServerName: "llama.example.com", RootCAs: roots}); err != nil {
		t.Fatal(err)
	}
	if _, err := shakeHands(keeper, &tls.Config{ServerName: "a.b.example.com", RootCAs: roots}); err == nil {
		t.Fatal("a name two labels below the domain has a certificate")
	}
	statuses := keeper.Statuses("g1")
	if len(statuses) != 1 || statuses[0].State != dstack.CertificateValid || statuses[0].Name != "*.example.com" {
		t.Fatalf("statuses %+v", statuses)
	}
}
