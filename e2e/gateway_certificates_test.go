package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/certificate/acmetest"
	"dstack/internal/certificate/dnstest"
)

// TestGateway_CertificatesByACME: the real server obtains certificates from a real ACME server: one for each name, then,
// after a change in place, one wildcard by DNS records with a key that is a secret. Nothing fails in between.
func TestGateway_CertificatesByACME(t *testing.T) {
	runParallel(t)
	https, http := findFreePort(t), findFreePort(t)
	names := dnstest.Start(t, "example.test")
	names.SetAddresses("*.example.test", "127.0.0.1")
	acme := acmetest.Start(t, acmetest.Options{HTTPPort: http, HTTPSPort: https, DNS: names.Addr})
	h := newStoppedHarness(t, "process", fmt.Sprint("DSTACK_GATEWAY_HTTPS_PORT=", https), fmt.Sprint("DSTACK_GATEWAY_HTTP_PORT=", http),
		"DSTACK_GATEWAY_HOST=127.0.0.1", "DSTACK_ACME_SERVER="+acme.Directory, "DSTACK_ACME_CA_ROOT="+acme.RootFile,
		fmt.Sprint("DSTACK_ACME_HTTP_PORT=", http), fmt.Sprint("DSTACK_ACME_HTTPS_PORT=", https), "DSTACK_ACME_RESOLVERS="+names.Addr)
	h.startServer()
	h.extraEnv = append(h.extraEnv, "DSTACK_URL="+h.serverURL(), "DSTACK_TOKEN="+h.token)
	apply := func(certificate string) {
		t.Helper()
		dir := h.newFolderWith("gateway.dstack.yml", "type: gateway\nname: edge\nbackend: local\ndomain: example.test\ncertificate: "+certificate+"\n")
		h.runCLIIn(dir, "apply", "-f", "gateway.dstack.yml", "-y").expectExit(0)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(acme.Roots(t))
	connect := func(name string) (*x509.Certificate, error) {
		conn, err := tls.Dial("tcp", fmt.Sprint("127.0.0.1:", https), &tls.Config{ServerName: name, RootCAs: roots})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0], nil
	}

	dir := h.newFolderWith("service.dstack.yml", "type: service\nname: web\ncommands: [sleep 1000]\nport: 8000\nmodel: llama\n"+
		"replicas: 0..1\nscaling: {metric: rps, target: 1}\n") // it sleeps
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
	apply("{type: lets-encrypt}")
	for _, name := range []string{"web.example.test", "gateway.example.test"} {
		h.waitUntil(30*time.Second, "a certificate for "+name, func() error { _, err := connect(name); return err })
	}
	if _, err := connect("nothing.example.test"); err == nil {
		t.Error("a name without a service has a certificate")
	}

	const wildcard = "{type: lets-encrypt, dns: {provider: rfc2136, server: '%s', key_name: " + dnstest.KeyName + ", key: '${{ secrets.TSIG }}', resolver: '%s'}}"
	h.runCLI("secret", "set", "TSIG", dnstest.Key).expectExit(0)
	apply(fmt.Sprintf(wildcard, names.Addr, names.Addr))
	h.waitUntil(30*time.Second, "a wildcard", func() error {
		cert, err := connect("gateway.example.test")
		if err == nil && cert.DNSNames[0] != "*.example.test" {
			err = fmt.Errorf("it is for %s", cert.DNSNames)
		}
		return err
	})
	r := h.runCLI("gateway", "get", "edge", "-o", "json").expectExit(0)
	if !strings.Contains(r.out, "*.example.test") || strings.Contains(r.out, dnstest.Key) {
		t.Errorf("dstack gateway get prints %s", r.out)
	}

	// The database has the keys, and the secret of the DNS provider, sealed; no file has them in clear.
	files, err := filepath.Glob(filepath.Join(h.serverDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && (strings.Contains(string(text), "PRIVATE KEY") || strings.Contains(string(text), dnstest.Key)) {
			t.Errorf("%s has a key in clear", filepath.Base(file))
		}
	}
}
