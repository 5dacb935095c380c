package sshserver_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/sshserver"
)

// opensshRig is a rig whose job has a key of ssh-keygen, and clients of OpenSSH.
type opensshRig struct {
	*rig
	dir  string
	host string
	port string
	key  string // the file of the private key
}

func newOpensshRig(t *testing.T, keyType ...string) *opensshRig {
	t.Helper()
	for _, program := range []string{"ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs ssh: this machine has no " + program)
		}
	}
	o := &opensshRig{rig: newRig(t, sshserver.Limits{}), dir: t.TempDir()}
	o.host, o.port, _ = net.SplitHostPort(o.addr)
	o.key = o.newKey("key", keyType...)
	public, err := os.ReadFile(o.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, ok := sshserver.ParseKey(string(public))
	if !ok {
		t.Fatalf("%s is not accepted", public)
	}
	o.jobs.setKey("job", key)
	return o
}

// newKey makes a key and returns the file of the private key.
func (o *opensshRig) newKey(name string, keyType ...string) string {
	o.t.Helper()
	file := filepath.Join(o.dir, name)
	args := append([]string{"-q", "-N", "", "-f", file}, keyType...)
	if text, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		o.t.Fatalf("ssh-keygen: %v: %s", err, text)
	}
	return file
}

// run runs ssh with a key, the options that the published client writes for a run, and more arguments.
func (o *opensshRig) run(key, input string, args ...string) (out, errOut string, code int) {
	o.t.Helper()
	return o.runWith(input, append([]string{"-F", "none", "-i", key, "-p", o.port, "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"}, args...)...)
}

// runWith runs ssh, which may not ask questions.
func (o *opensshRig) runWith(input string, args ...string) (out, errOut string, code int) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append([]string{"-o", "BatchMode=yes"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		o.t.Fatalf("ssh %v does not end: %v\n%s", args, err, stderr.String())
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func TestOpenSSH_ForwardsWithEveryKindOfKey(t *testing.T) {
	for _, keyType := range [][]string{{"-t", "rsa", "-b", "2048"}, {"-t", "ed25519"}, {"-t", "ecdsa"}} {
		t.Run(keyType[1], func(t *testing.T) {
			o := newOpensshRig(t, keyType...)
			out, errOut, code := o.run(o.key, "hello", "-W", "localhost:8000", "job@"+o.host)
			if out != "hellobye" || code != 0 {
				t.Errorf("got %q, exit %d\n%s", out, code, errOut)
			}
		})
	}
}

// TestOpenSSH_AttachesAsThePublishedClient opens the tunnel with the command of the published client, uses the
// forwarded port, and closes the tunnel as it does.
func TestOpenSSH_AttachesAsThePublishedClient(t *testing.T) {
	o := newOpensshRig(t, "-t", "rsa", "-b", "2048")
	config := filepath.Join(o.dir, "config")
	text := fmt.Sprintf("Host run\n    HostName %s\n    Port %s\n    User job\n    IdentityFile %s\n    IdentitiesOnly yes\n"+
		"    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n", o.host, o.port, o.key)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	local := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	socket := filepath.Join(o.dir, "control.sock")
	open := exec.Command("ssh", "-F", config, "-f", "-N", "-M", "-S", socket, "-i", o.key, "-L", fmt.Sprintf("%d:localhost:8000", local), "run")
	open.Stderr, err = os.Create(filepath.Join(o.dir, "stderr")) // ssh keeps it open in the background
	if err != nil {
		t.Fatal(err)
	}
	if err := open.Run(); err != nil {
		message, _ := os.ReadFile(filepath.Join(o.dir, "stderr"))
		t.Fatalf("the tunnel does not open: %v: %s", err, message)
	}
	closeTunnel := func() error { return exec.Command("ssh", "-S", socket, "-O", "exit", "run").Run() }
	defer func() { _ = closeTunnel() }()
	for range 3 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local))
		if err != nil {
			t.Fatal(err)
		}
		expectEcho(t, c)
	}
	if err := closeTunnel(); err != nil {
		t.Errorf("the tunnel does not close: %v", err)
	}
	o.eventually("the client has left", func() bool { return strings.Contains(o.log.String(), "has left") })
}

// TestOpenSSH_JumpsToTheJob: clients of later versions log in as root at the job's own SSH port, through a first
// connection that names the job.
func TestOpenSSH_JumpsToTheJob(t *testing.T) {
	o := newOpensshRig(t, "-t", "ed25519")
	config := filepath.Join(o.dir, "config")
	options := fmt.Sprintf("    IdentityFile %s\n    IdentitiesOnly yes\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n", o.key)
	text := fmt.Sprintf("Host run-host\n    HostName %s\n    Port %s\n    User job\n%s", o.host, o.port, options) +
		"Host run\n    HostName localhost\n    Port 10022\n    User root\n    ProxyJump run-host\n" + options
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut, code := o.runWith("hello", "-F", config, "-W", "localhost:8000", "root@run")
	if out != "hellobye" || code != 0 {
		t.Errorf("got %q, exit %d\n%s", out, code, errOut)
	}
}

// TestOpenSSH_IsRefused: what ssh can ask for besides forwarding to the job's ports is refused, with the reason.
func TestOpenSSH_IsRefused(t *testing.T) {
	o := newOpensshRig(t, "-t", "ed25519")
	stranger := o.newKey("stranger", "-t", "ed25519")
	o.jobs.setKey("theirs", "another key")
	for _, c := range []struct {
		name, key string
		args      []string
		want      string
	}{
		{"a wrong key", stranger, []string{"-N", "job@" + o.host}, "Permission denied (publickey)"},
		{"a wrong key gets the reason", stranger, []string{"-N", "job@" + o.host}, "no job accepts this key"},
		{"another job's name", o.key, []string{"-N", "theirs@" + o.host}, "Permission denied (publickey)"},
		{"a shell", o.key, []string{"job@" + o.host}, "dstack exec RUN"},
		{"a terminal", o.key, []string{"-tt", "job@" + o.host}, "dstack exec RUN"},
		{"a command", o.key, []string{"job@" + o.host, "id"}, "administratively prohibited"},
		{"a subsystem", o.key, []string{"-s", "job@" + o.host, "sftp"}, "administratively prohibited"},
		{"the agent", o.key, []string{"-A", "job@" + o.host, "id"}, "administratively prohibited"},
		{"a port of another job", o.key, []string{"-W", "localhost:8001", "job@" + o.host}, "port 8001 is not a port of the job"},
		{"the server's own SSH port", o.key, []string{"-W", "localhost:" + o.port, "job@" + o.host}, "is not a port of the job"},
		{"another machine", o.key, []string{"-W", "10.0.0.1:8000", "job@" + o.host}, "only ports of localhost"},
		{"a jump to another machine", o.key, []string{"-W", "169.254.169.254:80", "job@" + o.host}, "only ports of localhost"},
		{"a port on the server", o.key, []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:22", "job@" + o.host},
			"remote port forwarding failed"},
		{"a socket on the server", o.key, []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", o.dir + "/sock:localhost:22", "job@" + o.host},
			"remote port forwarding failed"},
		{"a device", o.key, []string{"-N", "-w", "0:0", "-o", "ExitOnForwardFailure=yes", "job@" + o.host}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errOut, code := o.run(c.key, "", c.args...)
			if code == 0 || out != "" || !strings.Contains(errOut, c.want) {
				t.Errorf("exit %d, %q, and not %q:\n%s", code, out, c.want, errOut)
			}
		})
	}
	if _, err := os.Stat(o.dir + "/sock"); err == nil {
		t.Error("the server made a socket for a client")
	}
}
