package sshclient

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// Rule 11: the type of the pinned key decides which key the server has to show, although it has one of each type.
func TestOpenSSH_Rule11_PinnedKeyOfEachType(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		login := s.login()
		login.HostKey = publicKeyLine(s.hostKey(kind)) + " a comment"
		run(t, newTestClient(t, Options{Login: login}))
	}
}

// Rule 11: fingerprints do not say which type of key they belong to.
func TestOpenSSH_Rule11_FingerprintOfEachType(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		login := s.login()
		login.HostKey, login.Fingerprints = "", []string{"SHA256:other", s.fingerprint(kind)}
		pinned := ""
		c := newTestClient(t, Options{Login: login, Pin: func(_ context.Context, key string) error { pinned = key; return nil }})
		run(t, c)
		if want := publicKeyLine(s.hostKey(kind)); pinned != want || c.State().HostKey != want {
			t.Errorf("%s: pinned %q, state %q", kind, pinned, c.State().HostKey)
		}
	}
	login := s.login()
	login.HostKey, login.Fingerprints = "", []string{"SHA256:other"}
	expectError(t, newTestClient(t, Options{Login: login}), dstack.Forbidden, dstack.HostStepHostKey, "none of the configured fingerprints: SHA256:other")
}

// A fingerprint in the configuration is newer than the pinned key: so the user accepts a new host key.
func TestOpenSSH_FingerprintReplacesPinnedKey(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "HostKey host_ecdsa")
	login := s.login()
	login.Fingerprints = []string{strings.TrimPrefix(s.fingerprint("ecdsa"), "SHA256:") + "="}
	pins := 0
	run(t, newTestClient(t, Options{Login: login, Pin: func(_ context.Context, key string) error {
		pins++
		if key != publicKeyLine(s.hostKey("ecdsa")) {
			t.Errorf("pinned %q", key)
		}
		return nil
	}}))
	if pins != 1 {
		t.Errorf("%d pins", pins)
	}
	login.HostKey = publicKeyLine(s.hostKey("ecdsa"))
	run(t, newTestClient(t, Options{Login: login, Pin: func(context.Context, string) error {
		t.Error("the same key is pinned again")
		return nil
	}}))
}

// The first key that is seen is pinned, and holds for later connections of the client.
func TestOpenSSH_FirstKeyIsPinned(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	login := s.login()
	login.HostKey = ""
	pins := 0
	c := newTestClient(t, Options{Login: login, Pin: func(context.Context, string) error { pins++; return nil }})
	run(t, c)
	run(t, c.Bulk())
	if want := publicKeyLine(s.hostKey("ed25519")); c.State().HostKey != want || pins != 1 {
		t.Errorf("pinned %d times, %q", pins, c.State().HostKey)
	}
	s.stop()
	s.changeHostKey()
	s.start()
	c.mu.Lock()
	_ = c.links[0].net.Close()
	c.mu.Unlock()
	eventually(t, "the connection is lost", func() bool { return !c.State().IsConnected })
	expectError(t, c, dstack.Forbidden, dstack.HostStepHostKey, "HAS CHANGED")
}

func TestPinFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err  error
		kind dstack.Kind
		want string
	}{
		"for some reason": {errors.New("disk full"), dstack.Unavailable, "cannot be stored"},
		"with words":      {&dstack.Error{Kind: dstack.Conflict, Message: "the fleet is gone"}, dstack.Conflict, "the fleet is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			login := s.login()
			login.HostKey = ""
			c := newTestClient(t, Options{Login: login, Pin: func(context.Context, string) error { return test.err }})
			expectError(t, c, test.kind, dstack.HostStepHostKey, test.want)
			if _, opened := s.counts(); opened != 0 {
				t.Errorf("%d logins", opened)
			}
		})
	}
}

// Rules 9 and 11: a changed key stops the login, with a pause.
func TestOpenSSH_Rule11_ChangedKey(t *testing.T) {
	t.Parallel()
	s := newSSHD(t)
	login := s.login()
	old := s.fingerprint("ed25519")
	s.changeHostKey()
	s.start()
	limits := newTestLimiter()
	limits.pauses.refused, limits.pauses.maxRefused = 30_000_000_000, 30_000_000_000
	for range 3 {
		c := newTestClient(t, Options{Login: login, Limits: limits})
		_, err := c.Run(t.Context(), "true", nil)
		for _, want := range []string{"HAS CHANGED", old, s.fingerprint("ed25519"), s.address} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
		expectError(t, c, dstack.Forbidden, dstack.HostStepHostKey, "dstack does not log in")
	}
	if strings.Count(s.log.String(), "Connection from") != 1 || s.logins() != 0 {
		t.Errorf("the log of sshd: %s", s.log)
	}
}

// Rule 11: a server without a key of the pinned type is told apart from one with another key.
func TestOpenSSH_Rule11_AnotherType(t *testing.T) {
	t.Parallel()
	s := startSSHD(t, "HostKey host_rsa")
	expectError(t, s.client(), dstack.Forbidden, dstack.HostStepHostKey, "no host key of the pinned type ssh-ed25519 any more: it offers rsa-sha2-512")
}

func TestHostKey_StoredOneCannotBeRead(t *testing.T) {
	s := newFakeServer(t)
	login := s.login()
	login.HostKey = "no key"
	expectError(t, newTestClient(t, Options{Login: login}), dstack.Forbidden, dstack.HostStepHostKey, "cannot be read")
	if accepted, _ := s.counts(); accepted != 0 {
		t.Errorf("%d connections", accepted)
	}
}

// No SHA-1: an ssh-rsa key is proven with rsa-sha2.
func TestHostKeyAlgorithms(t *testing.T) {
	for kind, want := range map[string]string{
		ssh.KeyAlgoED25519: "ssh-ed25519", ssh.KeyAlgoECDSA256: "ecdsa-sha2-nistp256", ssh.KeyAlgoRSA: "rsa-sha2-512 rsa-sha2-256",
	} {
		if got := strings.Join(hostKeyAlgorithms(kind), " "); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

// Whatever answers at an address may offer algorithms with any names, up to 256 KiB of them.
func TestListOffered(t *testing.T) {
	got := listOffered([]string{"rsa-sha2-512", "\x1b[2Jevil\n", strings.Repeat("x", 100_000)})
	if !strings.HasPrefix(got, `rsa-sha2-512, "\x1b[2Jevil\n", xxx`) || len(got) > 310 {
		t.Errorf("%d bytes: %.100s", len(got), got)
	}
}
