package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// tlsFront is a proxy with TLS in front of a server, and a CONNECT proxy through
// which clients reach it under its names.
type tlsFront struct {
	certificate string        // the file of the certificate
	connect     string        // the URL of the CONNECT proxy
	server      *atomic.Value // of string: the URL of the server
}

// env returns the variables with which curl, Python and dstack use the front.
func (f tlsFront) env() []string {
	return []string{"HTTPS_PROXY=" + f.connect, "https_proxy=" + f.connect, "SSL_CERT_FILE=" + f.certificate,
		"CURL_CA_BUNDLE=" + f.certificate, "NO_PROXY=", "no_proxy="}
}

// startTLSFront starts a front for names. Its server is set later, so that the
// server can be stopped before the front.
func startTLSFront(t *testing.T, names ...string) tlsFront {
	t.Helper()
	server := &atomic.Value{}
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme = "http"
		r.Out.URL.Host = strings.TrimPrefix(server.Load().(string), "http://")
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}})
	certificate, text := newCertificate(t, names)
	front.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	front.StartTLS()
	t.Cleanup(front.Close)
	connect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		tunnel(w, front.Listener.Addr().String())
	}))
	t.Cleanup(connect.Close)
	f := tlsFront{certificate: filepath.Join(t.TempDir(), "ca.pem"), connect: connect.URL, server: server}
	if err := os.WriteFile(f.certificate, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// tunnel answers a CONNECT request by a connection to an address.
func tunnel(w http.ResponseWriter, address string) {
	there, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	if _, err := here.Write([]byte("HTTP/1.1 200 Connected\r\n\r\n")); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(there, buffered)
		_ = there.Close()
	}()
	_, _ = io.Copy(here, there)
	_ = here.Close()
	<-done
}

// newCertificate returns a self-signed certificate for names, and its PEM form.
func newCertificate(t *testing.T, names []string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dstack test"}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}
