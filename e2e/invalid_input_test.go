package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestInvalidFiles checks that invalid files are refused before anything is
// submitted.
func TestInvalidFiles(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	good := h.workloadConfig("fine")
	for _, c := range []struct {
		name, file, text string
		code             int
		words            []string
	}{
		{"missing", "nowhere.dstack.yml", "", 2, []string{"cannot read nowhere.dstack.yml", "try"}},
		{"no YAML", "service.dstack.yml", "type: service\n  port: [8000\n", 2, []string{"service.dstack.yml:2:"}},
		{"empty", "service.dstack.yml", "", 2, []string{"service.dstack.yml"}},
		{"two problems", "service.dstack.yml", good + "comands:\n- true\nresources:\n  gpu: 16G\n", 2,
			[]string{"comands", "did you mean `commands`?", "16G", "2 problems in service.dstack.yml"}},
		{"no port", "service.dstack.yml", "type: service\ncommands:\n- true\n", 2, []string{"port", "service.dstack.yml:1:"}},
		{"other type", "service.dstack.yml", "type: task\ncommands:\n- true\n", 2, []string{"task", "service.dstack.yml:1:"}},
		{"no scaling", "service.dstack.yml", good + "replicas: 1..4\n", 2, []string{"service.dstack.yml:8:11", "scaling: {metric: rps, target: 10}"}},
		{"no range", "service.dstack.yml", good + "scaling: {metric: rps, target: 10}\n", 2, []string{"replicas: 1..4"}},
		{"no metric", "service.dstack.yml", good + "replicas: 1..4\nscaling: {metric: cpu, target: 10}\n", 2, []string{"cpu", "rps", "concurrency"}},
		{"empty commands", "service.dstack.yml", strings.Replace(good, "commands:\n", "commands:\n- ''\n- ' '\n", 1), 2,
			[]string{"service.dstack.yml:4:3", "`commands[0]`: the command is empty", "service.dstack.yml:5:3", "`commands[1]`"}},
		{"a long command", "service.dstack.yml", strings.Replace(good, "commands:\n", "commands:\n- echo "+strings.Repeat("x", 130_044)+"\n", 1), 2,
			[]string{"service.dstack.yml:4:3", "`commands[0]` has 130049 bytes", "130048"}},
		{"a long variable", "service.dstack.yml", good + "- LONG=" + strings.Repeat("x", 131_067) + "\n", 2,
			[]string{"service.dstack.yml:8:3", "`LONG` has 131072 bytes", "131071"}},
		{"a volume that does not exist", "service.dstack.yml", good + "volumes:\n- name: data\n  path: /data\n", 2,
			[]string{"there is no volume data in project main", "apply the configuration of a volume first: type: volume"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := h.newFolder(c.text)
			h.withT(t).runCLIIn(dir, "apply", "-f", c.file, "-y", "-d").expectError(c.code, c.words...)
		})
	}
	if all := h.listRuns(); len(all) > 0 {
		t.Errorf("a refused file was submitted: %+v", all)
	}
}

// TestInvalidCommandLine checks that invalid command lines are refused with a
// suggestion.
func TestInvalidCommandLine(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	for _, c := range []struct {
		line  string
		code  int
		words []string
	}{
		{"aply -f x.yml", 2, []string{"unknown command `aply`", "apply"}},
		{"ps --al", 2, []string{"unknown flag `--al`", "--all"}},
		{"apply service.dstack.yml", 2, []string{"-f"}},
		{"logs nobody", 1, []string{"nobody", "dstack ps"}},
		{"stop nobody -y", 1, []string{"nobody"}},
		{"ps --project nowhere", 2, []string{"nowhere", "main"}},
	} {
		h.runCLI(strings.Fields(c.line)...).expectError(c.code, c.words...)
	}
}

// TestFailedConnection checks commands without a server, with a wrong token and with
// an unknown project.
func TestFailedConnection(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	dir := h.newFolder(h.workloadConfig("nobody"))
	apply := []string{"apply", "-f", "service.dstack.yml", "-y", "-d"}

	h.extraEnv = []string{"DSTACK_URL=" + h.serverURL(), "DSTACK_TOKEN=wrong"}
	for _, args := range [][]string{{"ps"}, apply} {
		h.runCLIIn(dir, args...).expectError(1, "token", "dstack config")
	}
	h.extraEnv = []string{"DSTACK_URL=" + h.serverURL(), "DSTACK_TOKEN=" + h.token}
	for _, args := range [][]string{{"ps", "--project", "nowhere"}, append(apply, "--project", "nowhere")} {
		h.runCLIIn(dir, args...).expectError(1, "nowhere")
	}
	h.extraEnv = nil
	if all := h.listRuns(); len(all) > 0 {
		t.Errorf("a run was submitted: %+v", all)
	}
	h.stopServer()
	for _, args := range [][]string{{"ps"}, apply, {"logs", "nobody"}, {"stop", "nobody", "-y"}} {
		h.runCLIIn(dir, args...).expectError(1, "cannot reach the dstack server at "+h.serverURL(), "dstack server")
	}
}

// TestReplicasThatNeverServe runs services that never become ready. Each run fails
// with a reason and its last lines of output, and leaves nothing.
func TestReplicasThatNeverServe(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine, "DSTACK_SERVER_START_TIMEOUT=2s")
		port := findFreePort(t)
		service := func(name string, commands ...string) string {
			return fmt.Sprintf("type: service\nname: %s\nport: %d\ncommands:\n- %s\n", name, port, strings.Join(commands, "\n- "))
		}
		for _, c := range []struct {
			name, config string
			words        []string
		}{
			{"unknown-command", service("unknown-command", "no-such-command --serve"), []string{"code 127", "no-such-command: "}},
			{"exits", service("exits", "echo reading the model", "echo the model is not there >&2", "exit 7"),
				[]string{"code 7", "3 times in a row", "the model is not there"}},
			{"ends", service("ends", "echo done with it"), []string{"code 0", "done with it"}},
			{"closed", service("closed", "echo taking my time", "exec sleep 100"),
				[]string{fmt.Sprintf("port %d did not open within 2s", port), "taking my time"}},
		} {
			t.Run(c.name, func(t *testing.T) { h.withT(t).expectNeverReady(c.name, c.config, "logs", c.words...) })
		}
	})
}

// expectNeverReady applies a configuration that cannot become ready, and checks that
// the run fails, that the error names the command that tells more (logs only where there
// is output), and that the run leaves no process and no container.
func (h *harness) expectNeverReady(name, config, command string, words ...string) {
	h.t.Helper()
	dir := h.newFolder(config)
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m").
		expectError(1, append(words, name+" did not become ready", "dstack "+command+" "+name)...)
	h.waitUntil(20*time.Second, name+" has failed", func() error {
		if v := h.findRun(name); v.Status != api.StatusFailed {
			return fmt.Errorf("the run is %s: %s", v.Status, v.Reason)
		}
		return nil
	})
	h.waitUntil(20*time.Second, "nothing is left of "+name, h.checkNothingLeft)
	if kind := errorKindOf(h.t, h.expectResponse("GET", h.serviceURL(name, "/"), h.token, "", 404)); kind != "not_found" {
		h.t.Errorf("the error for a failed service is %q", kind)
	}
}

// TestMissingImages checks images that the registry does not have, a registry that
// does not answer, and an invalid image name.
func TestMissingImages(t *testing.T) {
	runParallel(t)
	needBaseImage(t)
	registry := needPiece(t, "registry", "DSTACK_TEST_REGISTRY")
	auth := fmt.Sprintf("registry_auth:\n  username: %s\n  password: %s",
		os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD"))
	h := newHarness(t, "docker")
	for _, c := range []struct {
		name, image, extra string
		words              []string
	}{
		{"unknown-image", registry + "/no/such:1", auth, []string{"no/such:1"}},
		{"unknown-tag", registry + "/" + strings.Replace(baseImage, ":", ":not-", 1), auth, []string{"not-py3.10"}},
		{"no-registry", fmt.Sprintf("127.0.0.1:%d/no/such:1", findFreePort(t)), "", []string{"no/such:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.withT(t).expectNeverReady(c.name, h.workloadConfig(c.name, "image: "+c.image, c.extra), "events", c.words...)
		})
	}
	dir := h.newFolder(h.workloadConfig("odd-image", "image: 'Not An Image'"))
	r := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	if r.code != 1 && r.code != 2 {
		t.Errorf("exit status %d for an invalid image name, want 1 or 2", r.code)
	}
	r.expectError(r.code, "Not An Image")
}

// TestTakenPort checks that a second service on a port of this machine is refused,
// and is not a crash loop. Processes share the machine's ports.
func TestTakenPort(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	config := h.workloadConfig("first")
	h.applyAndWait(h.newFolder(config))
	second := h.newFolder(strings.Replace(config, "name: first", "name: second", 1))
	h.runCLIIn(second, "apply", "-f", "service.dstack.yml", "-y").expectError(4, "is taken by first replica 0")
	h.expectStatus(h.serviceURL("first", "/"), 200)

	dir := h.newFolder(h.workloadConfig("twins", "replicas: 2"))
	start := time.Now()
	r := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	if r.code == 0 {
		t.Error("two replicas with the same port are ready on one machine")
	}
	r.expectError(r.code, "port")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the error took %s", took)
	}
}

// TestForeignPort checks that a port that another program uses is refused.
func TestForeignPort(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strings.TrimPrefix(l.Addr().String(), "127.0.0.1:")
	h.expectNeverReady("late", fmt.Sprintf("type: service\nname: late\nport: %s\nenv:\n- HOST=127.0.0.1\ncommands:\n- exec ./workload %s\n", port, port),
		"events", "port "+port)
}

// TestUploadLimit checks that a file that is too large for the upload is refused by
// name.
func TestUploadLimit(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	dir := h.newFolder(h.workloadConfig("large"))
	if err := os.Truncate(filepath.Join(dir, "workload"), 17<<20); err != nil {
		t.Fatal(err)
	}
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectError(2, "workload", ".dstackignore")
	h.writeFile(filepath.Join(dir, ".dstackignore"), "workload\n")
	h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
}
