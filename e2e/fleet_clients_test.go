package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// loopbackHost is OpenSSH's server on a port of this machine. Docker commands that run through it use the engine of the
// tests.
type loopbackHost struct {
	h    *harness
	dir  string
	port int
	cmd  *exec.Cmd
}

// startLoopbackHost starts the SSH server with a new host key, and makes a key that it accepts.
func (h *harness) startLoopbackHost() *loopbackHost {
	h.t.Helper()
	needPiece(h.t, "ssh", "DSTACK_TEST_SSH")
	needPiece(h.t, "docker", "DSTACK_TEST_DOCKER")
	l := &loopbackHost{h: h, dir: h.t.TempDir(), port: findFreePort(h.t)}
	l.makeKey("id")
	l.makeKey("host")
	l.start()
	h.t.Cleanup(l.stop)
	return l
}

func (l *loopbackHost) makeKey(name string) {
	l.h.t.Helper()
	_ = os.Remove(filepath.Join(l.dir, name))
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(l.dir, name)).CombinedOutput()
	if err != nil {
		l.h.t.Fatalf("%v: %s", err, out)
	}
}

func (l *loopbackHost) start() {
	l.h.t.Helper()
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd"
	}
	if os.Getuid() == 0 {
		_ = os.MkdirAll("/run/sshd", 0o755)
	}
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/id.pub\nPidFile none\nStrictModes no\nPermitRootLogin yes\nUsePAM no\nSetEnv DOCKER_HOST=%s\n",
		l.port, l.dir, l.dir, os.Getenv("DOCKER_HOST"))
	l.h.writeFile(filepath.Join(l.dir, "sshd_config"), config)
	l.cmd = exec.Command(program, "-D", "-e", "-f", filepath.Join(l.dir, "sshd_config"))
	if err := l.cmd.Start(); err != nil {
		l.h.t.Fatal(err)
	}
	l.h.waitUntil(10*time.Second, "sshd listens", func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// stop ends the SSH server and its connections.
func (l *loopbackHost) stop() {
	children, _ := exec.Command("pgrep", "-P", fmt.Sprint(l.cmd.Process.Pid)).Output()
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait()
	for _, pid := range strings.Fields(string(children)) {
		_ = exec.Command("kill", "-9", pid).Run()
	}
}

// writeFleet writes the fleet of the host into a new folder.
func (l *loopbackHost) writeFleet(lines ...string) string {
	return l.h.newFolderWith("fleet.dstack.yml", fmt.Sprintf("type: fleet\nname: boxes\n%sssh_config:\n  user: %s\n  port: %d\n  identity_file: %s/id\n  hosts: [127.0.0.1]\n",
		strings.Join(append(lines, ""), "\n"), currentUser(l.h.t), l.port, l.dir))
}

// newFolderWith writes one file into a new folder.
func (h *harness) newFolderWith(name, text string) string {
	h.t.Helper()
	dir := h.t.TempDir()
	h.writeFile(filepath.Join(dir, name), text)
	return dir
}

func currentUser(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestFleetClients applies, lists and deletes a fleet with our command line and with both published clients, and changes
// the key of its host.
func TestFleetClients(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	host := h.startLoopbackHost()
	dir := host.writeFleet("env: [MODE=fast]")
	apply := []string{"apply", "-f", "fleet.dstack.yml", "-y"}

	h.runCLIIn(dir, apply...).expectExit(0).expectText("127.0.0.1  ready   SSH, Docker ", "boxes is ready with 1 host")
	h.runCLIIn(dir, apply...).expectExit(0).expectText("boxes exists and nothing changed")

	// Another host key stops everything for the host, until the configuration names its fingerprint.
	host.stop()
	host.makeKey("host")
	host.start()
	h.runCLIIn(dir, append(apply, "--force")...).expectExit(4).expectText("failed  host key: ")
	if f := h.fetchFleet("boxes"); f.Hosts[0].Step != "host key" || f.Hosts[0].Status != api.HostStatusFailed {
		t.Errorf("%+v", f.Hosts[0])
	}
	out, err := exec.Command("ssh-keygen", "-lf", filepath.Join(host.dir, "host.pub")).Output()
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := strings.Fields(string(out))[1]
	h.runCLIIn(h.newFolderWith("fleet.dstack.yml", h.readText(filepath.Join(dir, "fleet.dstack.yml"))+"  host_key: "+fingerprint+"\n"), apply...).
		expectExit(0).expectText("boxes is ready with 1 host")
	if f := h.fetchFleet("boxes"); f.Hosts[0].HostKey != fingerprint {
		t.Errorf("pinned %s, want %s", f.Hosts[0].HostKey, fingerprint)
	}
	h.runCLI("fleet", "delete", "boxes", "-y").expectExit(0).expectText("boxes is deleted")

	if os.Getenv("DSTACK_TEST_PUBLISHED") != "" {
		p := newPublishedClient(h)
		p.run(dir, apply...).expectExit(0).expectText("boxes", "provisioning")
		h.waitUntil(30*time.Second, "the host is ready", func() error {
			if text := p.run(dir, "fleet", "list").out; !strings.Contains(text, "idle") {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
		p.run(dir, "fleet", "delete", "boxes", "-y").expectExit(0).expectText("Fleet boxes deleted")
	}
	if os.Getenv("DSTACK_TEST_NEWEST") != "" {
		n := newNewestClient(h)
		n.run(dir, apply...).expectExit(0).expectText("Fleet boxes does not exist yet.", "idle")
		n.run(dir, apply...).expectExit(0).expectText("No configuration changes detected.")
		n.run(host.writeFleet("env: [MODE=slow]"), apply...).expectExit(0).expectText("can be updated in-place")
		n.run(dir, "fleet", "get", "boxes", "--json").expectExit(0).expectText(`"MODE": "slow"`, `"ssh_key": null`)
		n.run(dir, "fleet", "delete", "boxes", "-y").expectExit(0)
	}
	if text := h.log.String(); strings.Contains(text, "PRIVATE KEY") {
		t.Error("the log of the server contains a key")
	}
}

// fetchFleet returns a fleet.
func (h *harness) fetchFleet(name string) (f api.FleetView) {
	h.t.Helper()
	h.runCLI("fleet", "get", name, "-o", "json").decode(&f)
	return f
}

func (h *harness) readText(path string) string {
	h.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}
