package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestAttachedClients runs the published clients that attach, one after the other: such a client chooses the first port from
// 10999 on that nobody listens on, and listens there a second later, so that two that choose at the same time would read each
// other's output. They are parts of one test, because a test that waits for another one takes the place of a third one.
func TestAttachedClients(t *testing.T) {
	runParallel(t)
	for _, c := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"apply", testAttachedApply},
		{"apply ends", testAttachedApplyEnds},
		{"apply aborts", testAttachedApplyAborts},
		{"API", testAttachedAPI},
		{"newest", testAttachedNewest},
		{"newest API", testAttachedNewestAPI},
	} {
		t.Run(c.name, func(t *testing.T) {
			needPiece(t, "ssh", "DSTACK_TEST_SSH")
			c.test(t)
		})
	}
}

// attachedClient is a command of the published client that goes on, with a user who reads and types.
type attachedClient struct {
	*publishedClient
	cmd   *exec.Cmd
	input io.WriteCloser
	out   safeBuffer
}

// start starts a command of the client's command line.
func (p *publishedClient) start(dir string, args ...string) *attachedClient {
	p.t.Helper()
	a := &attachedClient{publishedClient: p, cmd: p.newCommand(dir, filepath.Join(p.bin, "dstack"), args...)}
	a.cmd.Stdout, a.cmd.Stderr = &a.out, &a.out
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if a.input, err = a.cmd.StdinPipe(); err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = a.cmd.Process.Kill() })
	return a
}

func (a *attachedClient) waitForOutput(words ...string) {
	a.t.Helper()
	a.waitUntil(time.Minute, fmt.Sprintf("the client prints %q", words), func() error {
		for _, w := range words {
			if !strings.Contains(a.out.String(), w) {
				return errors.New(a.out.String())
			}
		}
		return nil
	})
}

// interrupt presses Ctrl-C.
func (a *attachedClient) interrupt() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGINT); err != nil {
		a.t.Fatal(err)
	}
}

func (a *attachedClient) enter(line string) {
	a.t.Helper()
	if _, err := io.WriteString(a.input, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
}

// expectEnd waits until the command ends.
func (a *attachedClient) expectEnd(code int, words ...string) {
	a.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- a.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(90 * time.Second):
		a.t.Fatalf("the client does not end:\n%s", a.out.String())
	}
	if got := a.cmd.ProcessState.ExitCode(); got != code {
		a.t.Errorf("exit status %d, want %d:\n%s", got, code, a.out.String())
	}
	for _, w := range append(words, "") {
		if !strings.Contains(a.out.String(), w) || strings.Contains(a.out.String(), "Traceback") {
			a.t.Errorf("no %q, or a traceback, in\n%s", w, a.out.String())
		}
	}
}

// testAttachedApply: `dstack apply` of the published client, as everybody types it, shows the output of the run;
// Ctrl-C asks whether to stop it.
func testAttachedApply(t *testing.T) {
	forEachEngine(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		p := newPublishedClient(h)
		dir := p.writeService("shown")
		apply := p.start(dir, "apply", "-f", "service.dstack.yml", "-y")
		apply.waitForOutput("shown provisioning completed (running)", "Service is published at", "workload: listening on")
		apply.interrupt()
		apply.waitForOutput("Stop the run before detaching?")
		apply.enter("n")
		apply.expectEnd(0, "Detached")
		h.expectStatus(h.serviceURL("shown", "/"), 200)

		logs := p.start(dir, "logs", "-a", "shown")
		logs.waitForOutput("workload: listening on")
		h.runCLI("stop", "shown", "-y").expectExit(0)
		logs.expectEnd(0, "workload: asked to stop")

		again := p.start(dir, "apply", "-f", "service.dstack.yml", "-y")
		again.waitForOutput("workload: listening on")
		again.interrupt()
		again.waitForOutput("Stop the run before detaching?")
		again.enter("y")
		again.expectEnd(0, "Stopped")
		if v := h.findRun("shown"); v.Status != api.StatusStopped {
			t.Errorf("the run is %s", v.Status)
		}
	})
}

// testAttachedApplyEnds: an attached apply ends with the run, and follows a replica that is started again.
func testAttachedApplyEnds(t *testing.T) {
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	dir := p.writeService("ends")
	apply := p.start(dir, "apply", "-f", "service.dstack.yml", "-y")
	apply.waitForOutput("workload: listening on")
	_, _ = h.sendRequest("POST", h.serviceURL("ends", "/exit"), h.token, "") // the response never arrives
	apply.waitUntil(time.Minute, "the client follows the next attempt", func() error {
		if n := strings.Count(apply.out.String(), "workload: listening on"); n != 2 {
			return fmt.Errorf("%d times:\n%s", n, apply.out.String())
		}
		return nil
	})
	h.runCLI("stop", "ends", "-y").expectExit(0)
	// The client's last message is about the first submission of the run.
	apply.expectEnd(1, "workload: asked to stop", "Run failed with error code CONTAINER_EXITED_WITH_ERROR")
}

// testAttachedApplyAborts: Ctrl-C at the question of an attached apply aborts the run.
func testAttachedApplyAborts(t *testing.T) {
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	apply := p.start(p.writeService("aborted"), "apply", "-f", "service.dstack.yml", "-y")
	apply.waitForOutput("workload: listening on")
	apply.interrupt()
	apply.waitForOutput("Stop the run before detaching?")
	apply.interrupt()
	apply.expectEnd(0, "Aborted")
	h.waitUntil(20*time.Second, "the run has been aborted", func() error {
		if v := h.findRun("aborted"); v.Status != api.StatusStopped {
			return fmt.Errorf("it is %s", v.Status)
		}
		return nil
	})
}

// publishedAttachment is what published_attach.py prints.
type publishedAttachment struct {
	Attached     bool
	Again        bool
	Hostname     string
	Forwarded    []int
	Lines        []string
	Mine, Theirs any
}

// testAttachedAPI: run.attach() of the Python API shows the output and reaches the run's port, and no port of
// another run.
func testAttachedAPI(t *testing.T) {
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	program, err := filepath.Abs("clients/published_attach.py")
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, name := range []string{"mine", "theirs"} {
		p.run(p.writeService(name), "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
		h.waitForReplicasOf(name, 1)
		ports = append(ports, strconv.Itoa(findPort(t, h, name)))
	}
	r := p.runPython(p.ownHome, program, "mine", ports[0], ports[1]).expectExit(0)
	var got publishedAttachment
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	if !got.Attached || !got.Again || got.Hostname != "127.0.0.1" || len(got.Forwarded) != 1 || got.Forwarded[0] != 10999 {
		t.Errorf("%+v", got)
	}
	if len(got.Lines) != 1 || !strings.HasPrefix(got.Lines[0], "workload: listening on") || !strings.HasSuffix(got.Lines[0], "\n") {
		t.Errorf("the output is %q", got.Lines)
	}
	if got.Mine != float64(200) || got.Theirs == float64(200) {
		t.Errorf("the run's own port answers %v, and that of the other run %v", got.Mine, got.Theirs)
	}
}

// findPort returns the port of a run's configuration.
func findPort(t *testing.T, h *harness, run string) int {
	t.Helper()
	port := h.fetchWireRun(run).RunSpec.Configuration.Port.Container
	if port == 0 {
		t.Fatalf("%s has no port", run)
	}
	return port
}

// fetchWireRun returns a run as published clients get it.
func (h *harness) fetchWireRun(name string) (run api.Run) {
	h.t.Helper()
	a := h.expectResponse("POST", h.serverURL()+"/api/project/main/runs/get", h.token, `{"run_name": "`+name+`"}`, 200)
	if err := json.Unmarshal([]byte(a.body), &run); err != nil {
		h.t.Fatal(err)
	}
	return run
}

// sshClient calls OpenSSH with the address that the server names for a run.
type sshClient struct {
	*harness
	key, knownHosts string
}

// run runs ssh for the job of a run and returns everything that it prints, and its exit status.
func (c sshClient) run(run string, args ...string) (string, int) {
	c.t.Helper()
	data := c.fetchWireRun(run).LatestJobSubmission.JobProvisioningData
	all := append([]string{"-F", "none", "-i", c.key, "-p", strconv.Itoa(data.SSHPort), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + c.knownHosts, data.Username + "@" + data.Hostname}, args...)
	cmd := exec.Command("ssh", all...)
	cmd.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// newSSHKey makes a key and returns the file of the private key, and the line of the public one.
func newSSHKey(t *testing.T) (file, line string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(text))
}

// submitWithKey submits a service as a published client does.
func (h *harness) submitWithKey(name, key string) {
	h.t.Helper()
	port := findFreePort(h.t)
	body, err := json.Marshal(map[string]any{"run_spec": map[string]any{
		"run_name": name, "repo_id": "none", "repo_data": map[string]any{"repo_type": "virtual"}, "repo_code_hash": nil,
		"working_dir": ".", "configuration_path": "(python)", "profile": map[string]any{"name": "default"}, "ssh_key_pub": key,
		"configuration": map[string]any{"type": "service", "name": name, "port": port,
			"commands": []string{fmt.Sprintf("exec %s %d", workloadBinary, port)}, "env": []string{"HOST=127.0.0.1"}},
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.expectResponse("POST", h.serverURL()+"/api/project/main/repos/init", h.token, `{"repo_id": "none", "repo_info": {"repo_type": "virtual"}}`, 200)
	h.expectResponse("POST", h.serverURL()+"/api/project/main/runs/submit", h.token, string(body), 200)
	h.waitForReplicasOf(name, 1)
}

// TestAttach_KeysAndPorts: with the real ssh, a run's key reaches its own job's port only, also after a restart of the
// server, which keeps its port and host key.
func TestAttach_KeysAndPorts(t *testing.T) {
	runParallel(t)
	needPiece(t, "ssh", "DSTACK_TEST_SSH")
	h := newHarness(t, "process")
	key, line := newSSHKey(t)
	otherKey, otherLine := newSSHKey(t)
	h.submitWithKey("mine", line)
	h.submitWithKey("theirs", otherLine)
	mine, theirs := findPort(t, h, "mine"), findPort(t, h, "theirs")
	c := sshClient{h, key, filepath.Join(h.home, "known_hosts")}
	forward := func(port int) []string { return []string{"-W", "localhost:" + strconv.Itoa(port)} }
	check := func() {
		t.Helper()
		if out, code := c.run("mine", forward(mine)...); code != 0 || !strings.Contains(out, "200 OK") {
			t.Errorf("the run's own port: exit %d\n%s", code, out)
		}
		for _, refused := range []struct {
			what, key, run string
			args           []string
			want           string
		}{
			{"another run's port", key, "mine", forward(theirs), "is not a port of the job"},
			{"the server's port", key, "mine", forward(h.port), "is not a port of the job"},
			{"a shell", key, "mine", nil, "dstack exec RUN"},
			{"another run's job", key, "theirs", forward(theirs), "Permission denied (publickey)"},
			{"another run's key", otherKey, "mine", forward(mine), "Permission denied (publickey)"},
		} {
			d := c
			d.key = refused.key
			if out, code := d.run(refused.run, refused.args...); code == 0 || !strings.Contains(out, refused.want) {
				t.Errorf("%s: exit %d\n%s", refused.what, code, out)
			}
		}
	}
	check()
	before := h.fetchWireRun("mine").LatestJobSubmission.JobProvisioningData.SSHPort
	h.stopServer()
	h.startServer()
	h.waitForReplicasOf("mine", 1)
	if after := h.fetchWireRun("mine").LatestJobSubmission.JobProvisioningData.SSHPort; after != before {
		t.Errorf("the port was %d and is %d", before, after)
	}
	check() // ssh refuses a changed host key
	h.stopRun("mine")
	if out, code := c.run("mine", forward(mine)...); code == 0 || !strings.Contains(out, "the job does not run now") {
		t.Errorf("the port of a stopped run: exit %d\n%s", code, out)
	}
	if left := regexp.MustCompile(`level=(WARN|ERROR).*SSH`).FindString(h.log.String()); left != "" {
		t.Errorf("the server logs %s", left)
	}
}

// TestAttach_Settings: the port can be chosen, and the SSH server be turned off.
func TestAttach_Settings(t *testing.T) {
	runParallel(t)
	port := findFreePort(t)
	needPiece(t, "ssh", "DSTACK_TEST_SSH")
	_, line := newSSHKey(t)
	h := newHarness(t, "process", "DSTACK_SERVER_SSH_PORT="+strconv.Itoa(port))
	h.submitWithKey("chosen", line)
	if data := h.fetchWireRun("chosen").LatestJobSubmission.JobProvisioningData; data.SSHPort != port || data.Dockerized {
		t.Errorf("the address is %+v", data)
	}
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		t.Error(err)
	} else {
		greeting := make([]byte, 8)
		_, _ = io.ReadFull(conn, greeting)
		if string(greeting) != "SSH-2.0-" {
			t.Errorf("the greeting is %q", greeting)
		}
		_ = conn.Close()
	}
	h.stopServer()
	h.extraEnv = []string{"DSTACK_SERVER_SSH_PORT=off"}
	h.startServer()
	if data := h.fetchWireRun("chosen").LatestJobSubmission.JobProvisioningData; data.SSHPort != 22 || data.Username != "root" {
		t.Errorf("with off, the address is %+v", data)
	}
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
		_ = conn.Close()
		t.Error("with off, something listens")
	}
	if _, err := os.Stat(filepath.Join(h.serverDir, "ssh-port")); err == nil {
		t.Error("a chosen port is kept as if it were a free one")
	}
}
