package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// portConfig is a configuration that runs the workload on the port in PORT.
func portConfig(name, port string, lines ...string) string {
	text := fmt.Sprintf("type: service\nname: %s\ncommands:\n- exec ./workload $PORT\nport: %s\n", name, port)
	env := "env:\n- HOST=127.0.0.1\n"
	for _, l := range lines {
		if strings.HasPrefix(l, "- ") {
			env += l + "\n"
		} else {
			text += l + "\n"
		}
	}
	return text + env
}

// listPorts returns the ports of a run's replicas, as their environments tell, by process.
func (h *harness) listPorts(run string, replicas int) map[int]string {
	h.t.Helper()
	ports := map[int]string{}
	h.waitUntil(30*time.Second, fmt.Sprintf("%d replicas of %s answer", replicas, run), func() error {
		info := h.fetchInfo(run)
		ports[info.PID], _ = info.lookUpEnv("PORT")
		if len(ports) < replicas {
			return fmt.Errorf("only %v answered", ports)
		}
		return nil
	})
	return ports
}

// TestProcess_PortAuto runs three replicas without Docker, each on a port of its own, and
// replaces them one after the other while requests come in.
func TestProcess_PortAuto(t *testing.T) {
	h := newParallelHarness(t, "process")
	config := portConfig("several", "auto", "replicas: 3", "drain_timeout: 5s", "- VERSION=0")
	dir := h.newFolder(config)
	if v := h.applyAndWait(dir); v.Ready != 3 {
		t.Fatalf("%d replicas are ready", v.Ready)
	}
	used := map[string]bool{}
	for _, port := range h.listPorts("several", 3) {
		used[port] = true
	}
	if len(used) != 3 || used[""] || used["8000"] {
		t.Errorf("three replicas listen on the ports %v", used)
	}
	requests := h.startTraffic(20, h.serviceURL("several", "/who"))
	v := h.applyChange(dir, setVersion(config, 0, 1))
	if v.Ready != 3 || v.Revision != 2 {
		t.Errorf("after the update %d replicas are ready of revision %d", v.Ready, v.Revision)
	}
	if all := requests.expectNoFailure("requests"); len(all) < 10 {
		t.Errorf("only %d requests were sent", len(all))
	}
	h.waitForReplicas(30*time.Second, "several", 3)
	h.expectEvent("several", dstack.EventReplica, "ready", "draining", "replaced by revision 2")
}

// TestProcess_TwoServicesWithOneCommand runs two services with the same command and port
// on one machine. The command reads $PORT.
func TestProcess_TwoServicesWithOneCommand(t *testing.T) {
	h := newParallelHarness(t, "process")
	var ports []string
	for _, name := range []string{"one", "two"} {
		h.applyAndWait(h.newFolder(portConfig(name, "8000")))
		for _, port := range h.listPorts(name, 1) {
			ports = append(ports, port)
		}
	}
	if ports[0] == ports[1] || ports[0] == "8000" || ports[1] == "8000" {
		t.Errorf("the services listen on %v", ports)
	}
	h.killServer()
	h.startServer()
	for i, name := range []string{"one", "two"} {
		h.waitForReplicasOf(name, 1)
		if after, _ := h.fetchInfo(name).lookUpEnv("PORT"); after != ports[i] {
			t.Errorf("%s listens on %s after a restart of the server, before it on %s", name, after, ports[i])
		}
	}
}

// waitForReplicasOf waits until a run has as many ready replicas. Other runs may have some.
func (h *harness) waitForReplicasOf(run string, ready int) {
	h.t.Helper()
	h.waitUntil(30*time.Second, fmt.Sprintf("%d replicas of %s are ready", ready, run), func() error {
		if v := h.fetchRun(run); v.Ready != ready {
			return fmt.Errorf("%d are: %s", v.Ready, formatReplicas(v))
		}
		return nil
	})
}

// TestPortVariable checks that PORT is set in every engine, and that the configuration's
// own value wins.
func TestPortVariable(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		host := "- HOST=0.0.0.0"
		if engine == "process" {
			host = "- HOST=127.0.0.1"
		}
		port, second := findFreePort(t), findFreePort(t)
		for name, c := range map[string]struct{ config, want string }{
			"fixed": {fmt.Sprintf("commands: [exec ./workload %d]\nport: %d\nenv:\n%s\n", port, port, host), strconv.Itoa(port)},
			"auto":  {"commands: [exec ./workload $PORT]\nport: auto\nenv:\n" + host + "\n", map[string]string{"docker": "8000"}[engine]},
			"own":   {fmt.Sprintf("commands: [exec ./workload %d]\nport: %d\nenv:\n- PORT=mine\n%s\n", second, second, host), "mine"},
		} {
			h.applyAndWait(h.newFolder("type: service\nname: " + name + "\n" + c.config))
			got, found := h.fetchInfo(name).lookUpEnv("PORT")
			if !found || c.want != "" && got != c.want {
				t.Errorf("%s: PORT is %q, want %q", name, got, c.want)
			}
			h.stopRun(name)
		}
	})
}

// TestProcess_CannotReadServer checks that a replica cannot read what belongs to the
// server, also after a restart of the server, and that it is stopped and has logs as any
// other.
func TestProcess_CannotReadServer(t *testing.T) {
	h := newParallelHarness(t, "process")
	if h.serverShowsItself() {
		t.Log("this system does not let the server hide its folder")
		return
	}
	probe := `for f in ` + h.serverDir + `/data/sqlite.db ` + h.serverDir + `/config.yml ` + h.serverDir + `/* ` +
		h.serverDir + `/data/* ` + h.home + `/.dstack/config.yml /proc/SERVER/root` + h.serverDir + `/config.yml; do ` +
		`head -c 1 "$f" >/dev/null 2>&1 && echo "can read $f"; done; echo probed`
	probe = strings.Replace(probe, "SERVER", strconv.Itoa(h.cmd.Process.Pid), 1)
	dir := h.newFolder("")
	config := strings.Replace(portConfig("curious", "auto"), "commands:\n", "commands:\n- |\n  "+probe+"\n- test -x workload\n", 1)
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config)
	h.applyAndWait(dir)
	before := h.fetchInfo("curious").PID
	checkLogs := func() {
		t.Helper()
		h.waitUntil(20*time.Second, "the replica has probed", func() error {
			out := h.runCLI("logs", "curious").out
			if strings.Contains(out, "can read") {
				t.Fatalf("the replica reads what belongs to the server:\n%s", out)
			}
			if !strings.Contains(out, "probed") {
				return fmt.Errorf("its output is %q", out)
			}
			return nil
		})
	}
	checkLogs()
	h.killServer()
	h.startServer()
	h.waitForReplicasOf("curious", 1)
	if after := h.fetchInfo("curious").PID; after != before {
		t.Errorf("the process is %d after the restart, before it %d", after, before)
	}
	checkLogs()
	port, _ := h.fetchInfo("curious").lookUpEnv("PORT")
	command := "echo port $PORT; test -x workload && echo its folder; cat " + h.serverDir + "/config.yml 2>/dev/null"
	if out := h.runCLI("exec", "curious", "--", "sh", "-c", command).out; out != "port "+port+"\nits folder\n" {
		t.Errorf("a command beside the replica at port %s prints %q", port, out)
	}
	h.stopRun("curious")
}

// serverShowsItself reports whether the plan says that replicas can read the server's
// folder.
func (h *harness) serverShowsItself() bool {
	var p api.Preview
	h.postJSON(api.PathPreview, map[string]any{"run_spec": map[string]any{
		"run_name": "probe", "repo_id": "none", "repo_data": map[string]any{"repo_type": "virtual"},
		"working_dir": ".", "configuration_path": "probe.dstack.yml", "profile": map[string]any{"name": "default"}, "ssh_key_pub": "",
		"configuration": map[string]any{"type": "service", "port": 8000, "commands": []string{"true"}},
	}}, &p)
	return strings.Contains(strings.Join(p.Notes, " "), "cannot hide the server's folder")
}

// TestProcess_AreForGlobalAdmins applies a service as a member of the project: the command
// says why it is refused, and what would help.
func TestProcess_AreForGlobalAdmins(t *testing.T) {
	h := newParallelHarness(t, "process")
	h.applyAndWait(h.newFolder(portConfig("web", "auto")))
	var created struct {
		Creds struct {
			Token string `json:"token"`
		} `json:"creds"`
	}
	h.postJSON("/api/users/create", map[string]any{"username": "ann", "global_role": "user"}, new(any))
	h.postJSON("/api/users/refresh_token", map[string]any{"username": "ann"}, &created)
	h.postJSON("/api/projects/main/set_members", map[string]any{"members": []map[string]any{
		{"username": "ann", "project_role": "admin"},
	}}, new(any))
	member := &harness{t: t, engine: h.engine, home: t.TempDir(), serverDir: h.serverDir, port: h.port, token: created.Creds.Token}
	member.runCLI("config", "--url", h.serverURL(), "--project", "main", "--token", member.token).expectExit(0)
	for name, code := range map[string]int{"own": 4, "web": 1} {
		member.runCLIIn(member.newFolder(portConfig(name, "auto", "- VERSION=2")), "apply", "-f", "service.dstack.yml", "-y").
			expectError(code, "only global admins", "install Docker")
	}
	member.runCLI("exec", "web", "--", "id").expectError(1, "only global admins", "Docker")
	if v := h.fetchRun("web"); v.Revision != 1 || v.Ready != 1 {
		t.Errorf("the admin's run is at revision %d with %d ready replicas", v.Revision, v.Ready)
	}
}

// TestProcess_WarnsOfOpenPort checks that the list of runs names a port that other
// machines can reach.
func TestProcess_WarnsOfOpenPort(t *testing.T) {
	h := newParallelHarness(t, "process")
	if !canReadSockets() {
		return
	}
	h.applyAndWait(h.newFolder(strings.Replace(portConfig("open", "auto"), "127.0.0.1", "0.0.0.0", 1)))
	h.applyAndWait(h.newFolder(portConfig("local", "auto")))
	h.waitUntil(20*time.Second, "ps warns", func() error {
		if out := h.runCLI("ps", "open").out; !strings.Contains(out, "open to the network without a token") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out := h.runCLI("ps", "local").out; strings.Contains(out, "open to the network") {
		t.Errorf("a local port has a warning:\n%s", out)
	}
}

func canReadSockets() bool {
	_, err := os.Stat("/proc/self/net/tcp")
	return err == nil
}

// TestListensElsewhere checks that a service on another port, or on an address of its
// container only, is told apart while it starts and when it has failed.
func TestListensElsewhere(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine, "DSTACK_SERVER_START_TIMEOUT=15s")
		if !canReadSockets() {
			return
		}
		host := map[string]string{"docker": "0.0.0.0", "process": "127.0.0.1"}[engine]
		listens, wants := findFreePort(t), findFreePort(t)
		config := "type: service\nname: %s\ncommands: [exec ./workload %d]\nport: %d\nenv: [HOST=%s]\n"
		expected := map[string]string{"other": fmt.Sprintf("it listens on %d, not on %d", listens, wants)}
		h.submitConfig(h.newFolder(""), fmt.Sprintf(config, "other", listens, wants, host))
		if engine == "docker" {
			h.submitConfig(h.newFolder(""), fmt.Sprintf(config, "local", wants, wants, "127.0.0.1"))
			expected["local"] = "it listens only on 127.0.0.1 inside the container, not on all addresses: start it with --host 0.0.0.0"
		}
		for name, reason := range expected {
			h.waitUntil(time.Minute, name+" says where it listens", func() error {
				if out := h.runCLI("ps", name).out; !strings.Contains(foldSpaces(out), reason) {
					return fmt.Errorf("%s", out)
				}
				return nil
			})
			h.runCLI("explain", name).expectExit(0)
		}
		for name, reason := range expected {
			h.waitUntil(time.Minute, name+" has failed with it", func() error {
				if v := h.fetchRun(name); v.Status != api.StatusFailed || !strings.Contains(v.Reason, reason) {
					return fmt.Errorf("%s: %s", v.Status, v.Reason)
				}
				return nil
			})
		}
	})
}

func foldSpaces(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestSystemdUnit_EndsTheServerOnly checks the promise of the unit file: systemd ends the
// main process alone (KillMode=process), here with SIGTERM and with SIGKILL; the replicas
// go on, serve meanwhile, and belong to the next server. systemd itself does not run.
func TestSystemdUnit_EndsTheServerOnly(t *testing.T) {
	h := newParallelHarness(t, "process")
	unit := readUnit(t)
	if !strings.Contains(unit, "\nKillMode=process\n") {
		t.Error("the unit file does not say KillMode=process")
	}
	h.applyAndWait(h.newFolder(portConfig("stays", "auto", "replicas: 2")))
	before := h.listPorts("stays", 2)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		h.endServer(signal)
		for pid, port := range before {
			response, err := http.Get("http://127.0.0.1:" + port + "/")
			if err != nil {
				t.Fatalf("after %v, process %d does not answer: %v", signal, pid, err)
			}
			_ = response.Body.Close()
		}
		h.startServer()
		h.waitForReplicas(30*time.Second, "stays", 2)
		for pid, port := range h.listPorts("stays", 2) {
			if before[pid] != port {
				t.Errorf("after %v, process %d at port %s is new; before there were %v", signal, pid, port, before)
			}
		}
	}
}

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../packaging/systemd/dstack.service")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSystemdUnit_IsValid checks the unit file, alone and with the settings for the engine
// process, with systemd's own checker, which prints what it does not understand and exits
// with 0. Alone, it gives the server few rights.
func TestSystemdUnit_IsValid(t *testing.T) {
	checker := needPiece(t, "systemd", "DSTACK_TEST_SYSTEMD")
	const program = "/usr/local/bin/dstack"
	unit := readUnit(t)
	if !strings.Contains(unit, "ExecStart="+program+" server\n") {
		t.Fatal("the unit file does not start " + program)
	}
	dropIn, err := os.ReadFile("../packaging/systemd/process-engine.conf")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dstack.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, program, dstackBinary)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(checker, "security", "--offline=true", "--no-pager", "--threshold=20", path).CombinedOutput(); err != nil {
		t.Errorf("the server has more rights than an exposure of 2.0: %v\n%s", err, out)
	}
	for _, withDropIn := range []bool{false, true} {
		if withDropIn {
			if err := os.Mkdir(path+".d", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path+".d", "process-engine.conf"), dropIn, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command(checker, "verify", "--man=no", path).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "" {
			t.Errorf("with the drop-in %v: %v: %s", withDropIn, err, out)
		}
	}
}
