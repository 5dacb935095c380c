package cloud

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// Containers reach nothing at the address of the metadata service but the name server, which Google Cloud has there.
func TestSetupScript_HidesMetadata(t *testing.T) {
	dir := t.TempDir()
	stub := "#!/bin/sh\n[ \"$1\" = -C ] && exit 1\necho \"$*\" >>'" + dir + "/rules'\n"
	if err := os.WriteFile(filepath.Join(dir, "iptables"), []byte(stub), 0o700); err != nil {
		t.Fatal(err)
	}
	_, function, _ := strings.Cut(setupScript, "\nhide_metadata() {")
	function, _, _ = strings.Cut(function, "\n}\n")
	script := exec.Command("sh", "-euc", "state="+quote(dir)+" metadata=169.254.169.254\nhas() { false; }\ntry() { shift; \"$@\"; }\n"+function)
	script.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rules, err := os.ReadFile(filepath.Join(dir, "rules"))
	want := "-I DOCKER-USER -d 169.254.169.254 -p tcp ! --dport 53 -j REJECT\n-I DOCKER-USER -d 169.254.169.254 -p udp ! --dport 53 -j REJECT\n" +
		"-I INPUT ! -i lo -d 169.254.169.254 -j REJECT\n"
	if err != nil || string(rules) != want {
		t.Errorf("%v: the rules are\n%s", err, rules)
	}
}

// The watch reads the setup and the notices of both clouds, with the headers that their metadata services want.
func TestWatchScript_ReadsNotices(t *testing.T) {
	dir := t.TempDir()
	stub := `#!/bin/sh
case "$*" in
*"-X PUT"*"X-aws-ec2-metadata-token-ttl-seconds: 300"*/latest/api/token) echo TOKEN ;;
*"X-aws-ec2-metadata-token: TOKEN"*/latest/meta-data/spot/instance-action) printf '{"action": "terminate",\n"time": "2026-11-29T14:10:00Z"}' ;;
*"Metadata-Flavor: Google"*/computeMetadata/v1/instance/preempted) echo TRUE ;;
*) exit 22 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(stub), 0o700); err != nil {
		t.Fatal(err)
	}
	for cloud, want := range map[string]string{"aws": `notice {"action": "terminate", "time": "2026-11-29T14:10:00Z"}`, "gcp": "notice TRUE"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		script := exec.CommandContext(ctx, "sh", "-c", "notices="+cloud+"\n"+watchScript)
		script.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := script.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := script.Start(); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for scanner := bufio.NewScanner(out); len(lines) < 3 && scanner.Scan(); {
			lines = append(lines, scanner.Text())
		}
		cancel()
		_ = script.Wait()
		if len(lines) < 3 || !strings.HasPrefix(lines[0], "setup ") || strings.TrimSpace(lines[1]) != want || lines[2] != "." {
			t.Errorf("%s: %q", cloud, lines)
		}
	}
}
