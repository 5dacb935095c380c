package sshclient

import (
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// makeKey runs ssh-keygen and returns the private key and its path.
func makeKey(t *testing.T, args ...string) ([]byte, string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("needs ssh: this machine has no ssh-keygen")
	}
	path := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", append([]string{"-q", "-f", path}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return key, path
}

// Rule 13: keys of ssh-keygen are read, with and without a passphrase, and also with one that is not needed.
func TestRule13_ReadsKeys(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args       []string
		passphrase string
		change     func(string) string
	}{
		"ed25519":                     {args: []string{"-t", "ed25519", "-N", ""}},
		"rsa":                         {args: []string{"-t", "rsa", "-b", "1024", "-N", ""}},
		"ecdsa":                       {args: []string{"-t", "ecdsa", "-N", ""}},
		"old form":                    {args: []string{"-t", "rsa", "-b", "1024", "-m", "PEM", "-N", ""}},
		"PKCS#8":                      {args: []string{"-t", "rsa", "-b", "1024", "-m", "PKCS8", "-N", ""}},
		"a passphrase":                {args: []string{"-t", "ed25519", "-a", "1", "-N", "secret"}, passphrase: "secret"},
		"a passphrase, old form":      {args: []string{"-t", "rsa", "-b", "1024", "-m", "PEM", "-N", "secret"}, passphrase: "secret"},
		"a passphrase without need":   {args: []string{"-t", "ed25519", "-N", ""}, passphrase: "secret"},
		"lines of Windows, no end":    {args: []string{"-t", "ed25519", "-N", ""}, change: windowsLines},
		"text before and after a key": {args: []string{"-t", "ed25519", "-N", ""}, change: func(s string) string { return "\n\n" + s + "\n" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, path := makeKey(t, test.args...)
			if test.change != nil {
				key = []byte(test.change(string(key)))
			}
			signer, err := ParseKey(key, test.passphrase)
			if err != nil {
				t.Fatal(err)
			}
			public, err := os.ReadFile(path + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(public), publicKeyLine(signer.PublicKey())) {
				t.Errorf("another key: %s", publicKeyLine(signer.PublicKey()))
			}
			plain, err := DecryptKey(key, test.passphrase)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseKeys(string(plain))
			if err != nil || len(again) != 1 || !isSameKey(again[0].PublicKey(), signer.PublicKey()) {
				t.Errorf("without the passphrase: %v", err)
			}
		})
	}
}

func windowsLines(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(s, "\n", "\r\n"))
}

// Rule 13: what cannot be read is named, with what to do.
func TestRule13_RefusesKeys(t *testing.T) {
	t.Parallel()
	encrypted, path := makeKey(t, "-t", "ed25519", "-a", "1", "-N", "secret")
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, _ := makeKey(t, "-t", "rsa", "-b", "1024", "-m", "PKCS8", "-N", "secret")
	gcm, _ := makeKey(t, "-t", "ed25519", "-a", "1", "-N", "secret", "-Z", "aes256-gcm@openssh.com")
	for _, test := range []struct {
		name, key, passphrase, want, hint string
		needsPassphrase                   bool
	}{
		{name: "no passphrase", key: string(encrypted), want: "has a passphrase", needsPassphrase: true},
		{name: "a wrong passphrase", key: string(encrypted), passphrase: "x", want: "is another one", needsPassphrase: true},
		{name: "PKCS#8", key: string(pkcs8), passphrase: "secret", want: "(PKCS#8)", hint: "-Z aes256-ctr"},
		{name: "gcm", key: string(gcm), passphrase: "secret", want: "in a way that dstack cannot read", hint: "-Z aes256-ctr"},
		{name: "a public key", key: string(public), want: "this is a public key", hint: "without .pub"},
		{name: "a public key of RFC 4716", key: "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", want: "this is a public key"},
		{name: "PuTTY", key: "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", want: "(.ppk)", hint: "puttygen"},
		{name: "a security key", key: securityKey(t), want: "on a security key", hint: "ssh-keygen -t ed25519"},
		{name: "nothing", key: " \n", want: "is empty"},
		{name: "other text", key: "hello", want: "this is not a private key"},
		{name: "another block", key: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", want: "cannot read this type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseKey([]byte(test.key), test.passphrase)
			if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), test.want) || !strings.Contains(hintOf(err), test.hint) {
				t.Errorf("got %v, hint %q", err, hintOf(err))
			}
			if errors.Is(err, ErrPassphrase) != test.needsPassphrase {
				t.Errorf("needs a passphrase: %t", !test.needsPassphrase)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the passphrase is in %v", err)
			}
		})
	}
}

// securityKey returns a private key of a hardware token, as ssh-keygen writes it; without a token it cannot be made.
func securityKey(t *testing.T) string {
	private, _ := newKey(t)
	block := []byte(private)
	signer, err := ssh.ParsePrivateKey(block)
	if err != nil {
		t.Fatal(err)
	}
	return securityKeyBlock(signer.PublicKey())
}

// securityKeyBlock writes the parts of OpenSSH's format that say the type of the key.
func securityKeyBlock(public ssh.PublicKey) string {
	kind := "sk-ssh-ed25519@openssh.com"
	blob := ssh.Marshal(struct {
		Type, Key, Application string
	}{kind, string(public.Marshal()[len(public.Marshal())-32:]), "ssh:"})
	secret := ssh.Marshal(struct {
		Check1, Check2               uint32
		Type, Key, Application       string
		Flags                        byte
		Handle, Reserved, Comment    string
		Pad1, Pad2, Pad3, Pad4, Pad5 byte
	}{Type: kind, Key: "k", Application: "ssh:"})
	data := append([]byte("openssh-key-v1\x00"), ssh.Marshal(struct {
		Cipher, KDF, Options string
		Count                uint32
		Public, Secret       string
	}{"none", "none", "", 1, string(blob), string(secret)})...)
	return string(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: data}))
}

// Reading a file that is no key, or has very many, costs nothing.
func TestParseKeys_Bounds(t *testing.T) {
	private, _ := newKey(t)
	many := strings.Repeat(private, MaxKeyBytes/len(private))
	if _, err := parseKeys(many); err == nil || !strings.Contains(err.Error(), "more than five private keys") {
		t.Errorf("%v", err)
	}
	if _, err := parseKeys(many + private); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("%v", err)
	}
}
