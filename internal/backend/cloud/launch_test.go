package cloud

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

func newTestHost(t *testing.T) dstack.RentedHost {
	t.Helper()
	keys, err := newMachineKeys()
	if err != nil {
		t.Fatal(err)
	}
	return dstack.RentedHost{Instance: "one", Login: dstack.SSHLogin{User: loginUser, PrivateKey: keys.login, HostKey: keys.hostPublic}, HostSecret: keys.host}
}

// A repeated launch has the same parameters, because clouds refuse a token that comes back with others.
func TestDescribeLaunch_IsTheSameAgain(t *testing.T) {
	b := newBackend(Options{Key: "aws", Type: "aws", Installation: installation})
	host := newTestHost(t)
	first, err := b.describeLaunch(newRequest("one", smallInNorth), host)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.describeLaunch(newRequest("one", smallInNorth), host)
	if err != nil || again.UserData != first.UserData || again.Token != first.Token || again.Name != first.Name {
		t.Errorf("%v; the second launch differs", err)
	}
	if other, _ := b.describeLaunch(newRequest("two", smallInNorth), host); other.Token == first.Token {
		t.Error("another instance has the same token")
	}
	if len(first.UserData) > maxScriptBytes-4096 {
		t.Errorf("the script has %d bytes", len(first.UserData))
	}
	if first.Name != "dstack-one" {
		t.Errorf("its name is %q", first.Name)
	}
}

// The key that the machine gets is the one that is pinned.
func TestNewMachineKeys_HostKeyIsPinned(t *testing.T) {
	host := newTestHost(t)
	signer, err := ssh.ParsePrivateKey([]byte(host.HostSecret))
	if err != nil {
		t.Fatal(err)
	}
	if public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))); public != host.Login.HostKey {
		t.Errorf("pinned %q, has %q", host.Login.HostKey, public)
	}
}

// A launch without the keys that were recorded is refused: the machine could not be reached.
func TestDescribeLaunch_NeedsKeys(t *testing.T) {
	b := newBackend(Options{Key: "aws", Type: "aws"})
	if _, err := b.describeLaunch(newRequest("one", smallInNorth), dstack.RentedHost{Instance: "one"}); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the error is %v", err)
	}
}

func TestMachineName(t *testing.T) {
	for id, want := range map[string]string{
		"0d1f2c3e-Aa": "dstack-0d1f2c3e-aa", "a_b/c": "dstack-a-b-c", strings.Repeat("x", 80): "dstack-" + strings.Repeat("x", maxNameBytes-7), "x/": "dstack-x",
	} {
		if got := machineName(dstack.InstanceID(id)); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

// Both scripts are valid for the shells that images have.
func TestScripts_Syntax(t *testing.T) {
	script, err := newBackend(Options{}).newLaunchScript(newRequest("one", smallInNorth), newTestHost(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"setup": script, "watch": watchScript} {
		for _, shell := range []string{"sh", "bash"} {
			check := exec.Command(shell, "-n")
			check.Stdin = strings.NewReader(text)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s -n of %s: %v: %s", shell, name, err, out)
			}
		}
	}
}
