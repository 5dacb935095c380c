package installationca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := New(t0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve starts a server, and returns its address.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

// shake makes a TLS connection, and returns the state of its client.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", serve(t, server), client)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func TestAuthority_ServersOfOneInstallationAreKnownByItsFingerprint(t *testing.T) {
	a := newAuthority(t)
	stored, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other, err := Parse(stored) // that of another server
	if err != nil || other.Fingerprint() != a.Fingerprint() {
		t.Fatalf("%v, %s instead of %s", err, other.Fingerprint(), a.Fingerprint())
	}
	client, err := clientConfig(strings.ToUpper(a.Fingerprint()), at(t0))
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*Authority{a, other} {
		state, err := shake(t, server.serverConfig(at(t0), nil), client)
		if err != nil || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "http/1.1" && state.NegotiatedProtocol != "h2" {
			t.Errorf("%+v, %v", state, err)
		}
	}
}

func TestClientConfig_RefusesOthers(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := foreign.issue(key, nil, t0)
	if err != nil {
		t.Fatal(err)
	}
	// A foreign server adds the authority's certificate, which is public, to its own chain.
	stolen := &tls.Config{Certificates: []tls.Certificate{{Certificate: append(chain[:1:1], a.certificate.Raw), PrivateKey: key}}}
	tests := []struct {
		name   string
		server *tls.Config
		now    time.Time
	}{
		{"another installation", foreign.serverConfig(at(t0), nil), t0},
		{"another installation that shows the authority's certificate", stolen, t0},
		{"an expired certificate", a.serverConfig(at(t0.Add(-serverTime-time.Second)), nil), t0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client, err := clientConfig(a.Fingerprint(), at(test.now))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := shake(t, test.server, client); err == nil || !strings.Contains(err.Error(), "not a server of this installation") {
				t.Errorf("connected, %v", err)
			}
		})
	}
	for _, wrong := range []string{"", "abc", strings.Repeat("g", 64), a.Fingerprint() + "00"} {
		if _, err := ClientConfig(wrong); err == nil {
			t.Errorf("the fingerprint %q is accepted", wrong)
		}
	}
}

// A client without the authority's certificate in the chain cannot be asked to trust the leaf alone.
func TestVerify_ChainWithoutTheAuthority(t *testing.T) {
	a := newAuthority(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.issue(key, nil, t0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if verifyServer([]*x509.Certificate{leaf}, a.Fingerprint(), t0) == nil || verifyServer(nil, a.Fingerprint(), t0) == nil {
		t.Error("verified")
	}
	if verifyServer([]*x509.Certificate{leaf}, fingerprintOf(leaf), t0) == nil {
		t.Error("a certificate of a server is taken for an authority")
	}
}

func TestServerConfig_RenewsItsCertificate(t *testing.T) {
	now := t0
	config := newAuthority(t).serverConfig(func() time.Time { return now }, nil)
	serial := func() string {
		t.Helper()
		c, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil || now.After(leaf.NotAfter) {
			t.Fatalf("%v, until %s", err, leaf.NotAfter)
		}
		return leaf.SerialNumber.String()
	}
	first := serial()
	if now = t0.Add(serverTime - renewalTime - time.Second); serial() != first {
		t.Error("renewed too early")
	}
	if now = t0.Add(serverTime - renewalTime); serial() == first {
		t.Error("not renewed")
	}
}

// Programs such as curl check the names instead of the fingerprint.
func TestServerConfig_Names(t *testing.T) {
	a, err := New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CertificatePEM())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	_, port, _ := net.SplitHostPort(serve(t, a.ServerConfig("localhost", "127.0.0.1")))
	for _, host := range []string{"127.0.0.1", "localhost"} {
		res, err := client.Get("https://" + net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if res.Body.Close(); res.ProtoMajor != 2 {
			t.Errorf("%s: %s", host, res.Proto)
		}
	}
	if _, err := client.Get("https://" + net.JoinHostPort("127.0.0.2", port)); err == nil {
		t.Error("127.0.0.2 is accepted")
	}
}

func TestParse_RefusesWhatIsNone(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	stored, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(stored), "-----END CERTIFICATE-----\n")
	for _, text := range []string{"", "x", string(a.CertificatePEM()), string(a.CertificatePEM()) + key} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("parsed: %s", text)
		}
	}
}
