package sshserver_test

import (
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"dstack/internal/sshserver"
)

func TestParseKey(t *testing.T) {
	signer := newSigner(t)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	rsaLine := func(bits int) string {
		t.Helper()
		t.Setenv("GODEBUG", "rsa1024min=0") // so that the test can make a short one
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		public, err := ssh.NewPublicKey(&private.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return string(ssh.MarshalAuthorizedKey(public))
	}
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"a key", line, true},
		{"with a comment", line + " dstack", true},
		{"with spaces around", "  " + line + " a comment \n", true},
		{"RSA, as the published client makes it", rsaLine(2048), true},
		{"short RSA", rsaLine(1024), false},
		{"nothing", "", false},
		{"spaces", " \n", false},
		{"what clients without a key send", "none", false},
		{"half a key", line[:len(line)-9], false},
		{"no base64", "ssh-ed25519 ???", false},
		{"two keys", line + "\n" + line, false},
		{"with options", `from="10.0.0.0/8" ` + line, false},
		{"a comment line first", "# mine\n" + line, false},
		{"a certificate", string(ssh.MarshalAuthorizedKey(newCertificate(t, signer).PublicKey())), false},
		{"a private key", "-----BEGIN OPENSSH PRIVATE KEY-----", false},
		{"too long", line + " " + strings.Repeat("x", 20_000), false},
	} {
		key, ok := sshserver.ParseKey(c.text)
		if ok != c.ok || ok && !strings.HasPrefix(c.name, "RSA") && key != keyOf(signer) || !ok && key != "" {
			t.Errorf("%s: %t, %q", c.name, ok, key)
		}
	}
}
