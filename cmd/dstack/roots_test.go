package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestReadMozillaRoots(t *testing.T) {
	if readMozillaRoots().Equal(x509.NewCertPool()) {
		t.Error("there are no authorities")
	}
}

// TestTrustAuthorities runs this test in processes of their own, because fallback roots are set once in a process.
func TestTrustAuthorities(t *testing.T) {
	if file := os.Getenv("TEST_SYSTEM_ROOTS"); file != "" {
		systemRootFiles = []string{file}
		trustAuthorities()
		defer func() {
			if isSet := recover() != nil; isSet != (os.Getenv("TEST_WANT") == "fallback") { // a second call panics
				t.Errorf("fallback roots are set: %t", isSet)
			}
		}()
		x509.SetFallbackRoots(x509.NewCertPool())
		return
	}
	dir := t.TempDir()
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	for file, text := range map[string]string{full: "-----BEGIN CERTIFICATE-----", empty: ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, roots, certFile, want string }{
		{"the system has some", full, "", "system"},
		{"the system has none", filepath.Join(dir, "missing"), "", "fallback"},
		{"the system's file is empty", empty, "", "fallback"},
		{"the user names a file, which may be missing", full, filepath.Join(dir, "missing"), "fallback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTrustAuthorities$")
			cmd.Env = append(os.Environ(), "TEST_SYSTEM_ROOTS="+c.roots, "SSL_CERT_FILE="+c.certFile, "TEST_WANT="+c.want)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
