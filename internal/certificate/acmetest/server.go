// Package acmetest starts pebble, an ACME server for tests, on the loopback
// interface.
package acmetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options configure a Server.
type Options struct {
	HTTPPort, HTTPSPort int               // where it connects to for challenges
	DNS                 string            // host:port of the name server that it asks
	Lifetime            time.Duration     // of certificates; 0: 90 days
	AccountKeys         map[string]string // by ID: accounts need one of these bindings
	Environment         []string          // further variables: PEBBLE_…
}

// Server is a running pebble.
type Server struct {
	Directory string // URL of the ACME directory
	RootFile  string // PEM file with the authority of its own https certificate

	program, config string
	options         Options
	address         string // host:port
	management      string // host:port
	client          *http.Client
	process         *exec.Cmd
	ended           chan error
	output          *lockedBuffer
}

// Start starts pebble, or skips the test where it is missing. It ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	program := os.Getenv("DSTACK_TEST_PEBBLE")
	if program == "" {
		reason := os.Getenv("DSTACK_TEST_WITHOUT_PEBBLE")
		if reason == "" {
			reason = "run the tests with `make test`, which brings it"
		}
		t.Skip("needs pebble: " + reason)
	}
	dir := t.TempDir()
	s := &Server{program: program, config: filepath.Join(dir, "pebble.json"), RootFile: filepath.Join(dir, "cert.pem"), options: o}
	for try := 1; ; try++ { // another program may take a port meanwhile
		s.address, s.management = freeAddress(t), freeAddress(t)
		s.Directory = "https://" + s.address + "/dir"
		if err := s.writeFiles(filepath.Join(dir, "key.pem")); err != nil {
			t.Fatal(err)
		}
		err := s.start()
		if err == nil {
			break
		}
		if try == 5 {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("pebble: %s", lastLines(s.output.String()))
		}
	})
	return s
}

// Stop ends pebble. It forgets all accounts and orders, and its authority.
func (s *Server) Stop() {
	if s.process != nil {
		s.process.Process.Kill() //nolint:errcheck,gosec // it is gone
		<-s.ended
		s.process = nil
	}
}

// Resume starts pebble at the same address again, and waits until it answers.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// start starts pebble and waits until it answers. If it does not, it is not running afterwards.
func (s *Server) start() error {
	s.output = &lockedBuffer{}
	s.process = exec.Command(s.program, "-config", s.config, "-dnsserver", s.options.DNS) //nolint:gosec // a test
	s.process.Env = append([]string{"PATH=" + os.Getenv("PATH"), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0"}, s.options.Environment...)
	s.process.Stdout, s.process.Stderr = s.output, s.output
	if err := s.process.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func(process *exec.Cmd, ended chan error) { ended <- process.Wait() }(s.process, s.ended)
	deadline := time.Now().Add(20 * time.Second)
	for {
		answer, err := s.client.Get(s.Directory)
		if err == nil {
			return answer.Body.Close()
		}
		select {
		case failure := <-s.ended:
			s.process = nil
			return fmt.Errorf("pebble ended: %w: %s", failure, lastLines(s.output.String()))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Stop()
			return fmt.Errorf("pebble does not answer: %w", err)
		}
	}
}

// Roots returns the authority that issues its certificates, in PEM.
func (s *Server) Roots(t testing.TB) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+s.management+"/roots/0", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// writeFiles writes the configuration, and a certificate for the server itself.
func (s *Server) writeFiles(keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	s.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	lifetime := s.options.Lifetime
	if lifetime == 0 {
		lifetime = 90 * 24 * time.Hour
	}
	settings := map[string]any{
		"listenAddress": s.address, "managementListenAddress": s.management, "certificate": s.RootFile, "privateKey": keyFile,
		"httpPort": s.options.HTTPPort, "tlsPort": s.options.HTTPSPort,
		"externalAccountBindingRequired": len(s.options.AccountKeys) > 0, "externalAccountMACKeys": s.options.AccountKeys, "keyAlgorithm": "ecdsa",
		"domainBlocklist": []string{"blocked.example"},
		"profiles":        map[string]any{"default": map[string]any{"description": "the only one", "validityPeriod": int(lifetime / time.Second)}},
	}
	text, err := json.Marshal(map[string]any{"pebble": settings})
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{s.RootFile: cert, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}), s.config: text} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freeAddress returns an address of the loopback interface whose port is free.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // the port is free again
	return listener.Addr().String()
}

func lastLines(output string) string {
	const limit = 4000
	if len(output) > limit {
		output = output[len(output)-limit:]
	}
	return output
}

// Count returns how many lines of pebble's log have a text, such as a request.
func (s *Server) Count(text string) int { return strings.Count(s.output.String(), text) }

// lockedBuffer is a buffer that is read while a process writes.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
