package sshserver

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestDeriveKeyPair(t *testing.T) {
	derive := func(secret string, owner ...string) KeyPair {
		t.Helper()
		pair, err := DeriveKeyPair([]byte(secret), owner...)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	pair := derive("secret", "ann", "token")
	signer, err := ssh.ParsePrivateKey([]byte(pair.Private))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))); got != pair.Public || !strings.HasPrefix(got, "ssh-ed25519 ") {
		t.Errorf("the private key is of %s, the public one is %s", got, pair.Public)
	}
	if again := derive("secret", "ann", "token"); again.Public != pair.Public {
		t.Error("the key is not always the same")
	}
	for name, other := range map[string]KeyPair{"secret": derive("other", "ann", "token"), "owner": derive("secret", "bob", "token"),
		"token": derive("secret", "ann", "new"), "parts": derive("secret", "anntoken", "")} {
		if other.Public == pair.Public {
			t.Errorf("another %s has the same key", name)
		}
	}
}
