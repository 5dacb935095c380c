package certificate_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"dstack/internal/certificate"
	"dstack/internal/certificate/acmetest"
	"dstack/internal/certificate/dnstest"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// rig is a gateway's ports for names below example.com, an ACME server that connects to them, and the
// name server that both ask.
type rig struct {
	dns         *dnstest.Server
	http, https net.Listener
	acme        *acmetest.Server
	storage     certificate.Storage
}

// newRig starts a rig. change may change the options of the ACME server.
func newRig(t *testing.T, change func(*acmetest.Options)) *rig {
	t.Helper()
	r := &rig{dns: dnstest.Start(t, "example.com"), http: listen(t), https: listen(t), storage: acmetest.FileStorage{Dir: t.TempDir()}}
	r.dns.SetAddresses("*.example.com", "127.0.0.1")
	options := acmetest.Options{HTTPPort: portOf(r.http), HTTPSPort: portOf(r.https), DNS: r.dns.Addr}
	if change != nil {
		change(&options)
	}
	r.acme = acmetest.Start(t, options)
	return r
}

func (r *rig) options(t *testing.T) certificate.Options {
	t.Helper()
	roots, err := os.ReadFile(r.acme.RootFile)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.Options{Storage: r.storage, Addresses: []string{"192.0.2.7"},
		Log: slog.New(slog.DiscardHandler), ACME: certificate.ACME{Server: r.acme.Directory, Resolvers: r.dns.Addr, Roots: string(roots),
			HTTPPort: portOf(r.http), HTTPSPort: portOf(r.https)}}
}

// keep returns a keeper whose tasks run until the test ends.
func keep(t *testing.T, opts certificate.Options) *certificate.Keeper {
	t.Helper()
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

// serveHTTP answers at the port for http: challenges, and "service" otherwise.
func (r *rig) serveHTTP(t *testing.T, keeper *certificate.Keeper) {
	serve(t, r.http, keeper.ChallengeHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "service") //nolint:errcheck
	})))
}

// serveHTTPS answers "service" at the port for https.
func (r *rig) serveHTTPS(t *testing.T, keeper *certificate.Keeper) {
	serve(t, tls.NewListener(r.https, keeper.TLSConfig()), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "service") //nolint:errcheck
	}))
}

// connect makes a handshake for a name with the gateway. With roots nil, it believes any certificate.
func (r *rig) connect(name string, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", r.https.Addr().String(),
		&tls.Config{ServerName: name, RootCAs: roots, InsecureSkipVerify: roots == nil})
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck
	return conn.ConnectionState().PeerCertificates[0], nil
}

func (r *rig) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.acme.Roots(t))
	return pool
}

// perName is a domain with a certificate for each name.
func perName(names ...string) []certificate.Domain {
	return []certificate.Domain{{Gateway: "g1", Name: "example.com", Names: names, Certificate: &spec.Certificate{Type: spec.CertificateLetsEncrypt}}}
}

// wildcard is a domain with one certificate by DNS records that the rig's name server takes with a key.
func (r *rig) wildcard(key string) []certificate.Domain {
	return []certificate.Domain{{Gateway: "g1", Name: "example.com", Names: []string{"llama.example.com"},
		Certificate: &spec.Certificate{Type: spec.CertificateLetsEncrypt, DNS: &spec.DNSProvider{Provider: "rfc2136",
			Settings: map[string]string{"server": r.dns.Addr, "key_name": dnstest.KeyName, "key": key}}}}}
}

// statusOf returns the status of a name.
func statusOf(keeper *certificate.Keeper, name string) dstack.CertificateStatus {
	for _, s := range keeper.Statuses("g1") {
		if s.Name == name {
			return s
		}
	}
	return dstack.CertificateStatus{}
}

func waitForState(t *testing.T, keeper *certificate.Keeper, name string, state dstack.CertificateState) dstack.CertificateStatus {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		s := statusOf(keeper, name)
		if s.State == state {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not %s: %+v", name, state, keeper.Statuses("g1"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s: not %s", what)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck
	return listener
}

func portOf(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

func serve(t *testing.T, listener net.Listener, handler http.Handler) {
	t.Helper()
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener)            //nolint:errcheck
	t.Cleanup(func() { server.Close() }) //nolint:errcheck
}

// together runs cases at the same time, however few processors there are.
func together(t *testing.T, cases map[string]func(*testing.T)) {
	t.Helper()
	var group sync.WaitGroup
	for name, run := range cases {
		group.Go(func() { t.Run(name, run) })
	}
	group.Wait()
}
