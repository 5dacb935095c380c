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

// TestBadFiles refuses files before anybody is asked anything.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	good := h.workload("fine")
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
		{"volumes", "service.dstack.yml", good + "volumes:\n- name: data\n  path: /data\n", 2, []string{"not supported yet: volumes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := h.folder(c.text)
			h.in(t).cliIn(dir, "apply", "-f", c.file, "-y", "-d").refuses(c.code, c.words...)
		})
	}
	if all := h.psAll(); len(all) > 0 {
		t.Errorf("a refused file made a run: %+v", all)
	}
}

// TestBadCommandLine refuses what cannot be meant, and says what could.
func TestBadCommandLine(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
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
		h.cli(strings.Fields(c.line)...).refuses(c.code, c.words...)
	}
}

// TestBadConnection: no server, a wrong token, a project that is not there.
func TestBadConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	dir := h.folder(h.workload("nobody"))
	apply := []string{"apply", "-f", "service.dstack.yml", "-y", "-d"}

	h.extra = []string{"DSTACK_URL=" + h.url(), "DSTACK_TOKEN=wrong"}
	for _, args := range [][]string{{"ps"}, apply} {
		h.cliIn(dir, args...).refuses(1, "token", "dstack config")
	}
	h.extra = []string{"DSTACK_URL=" + h.url(), "DSTACK_TOKEN=" + h.token}
	for _, args := range [][]string{{"ps", "--project", "nowhere"}, append(apply, "--project", "nowhere")} {
		h.cliIn(dir, args...).refuses(1, "nowhere")
	}
	h.extra = nil
	if all := h.psAll(); len(all) > 0 {
		t.Errorf("there is a run: %+v", all)
	}
	h.stop()
	for _, args := range [][]string{{"ps"}, apply, {"logs", "nobody"}, {"stop", "nobody", "-y"}} {
		h.cliIn(dir, args...).refuses(1, "cannot reach the dstack server at "+h.url(), "dstack server")
	}
}

// TestBadReplicas are services that never serve. Each ends by itself, tells
// why with the last lines of its output, and leaves nothing.
func TestBadReplicas(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		h := newHouse(t, engine, "DSTACK_SERVER_START_TIMEOUT=2s")
		port := freePort(t)
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
			t.Run(c.name, func(t *testing.T) { h.in(t).neverReady(c.name, c.config, 1, c.words...) })
		}
	})
}

// neverReady applies what cannot become ready, and looks that nothing is
// left half done: no run that goes on, no process, no container.
func (h *house) neverReady(name, config string, code int, words ...string) {
	h.t.Helper()
	dir := h.folder(config)
	h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m").
		refuses(code, append(words, name+" did not become ready", "dstack logs "+name)...)
	h.eventually(20*time.Second, name+" has failed", func() error {
		if v := h.run(name); v.Status != api.StatusFailed {
			return fmt.Errorf("it is %s: %s", v.Status, v.Reason)
		}
		return nil
	})
	h.eventually(20*time.Second, "nothing is left of "+name, h.nothingLeft)
	if kind := kindOf(h.t, h.expect("GET", h.service(name, "/"), h.token, "", 404)); kind != "not_found" {
		h.t.Errorf("a service that failed is refused as %q", kind)
	}
}

// TestBadImages: the registry answers that there is none, nobody answers, and
// no registry could be meant.
func TestBadImages(t *testing.T) {
	t.Parallel()
	needBase(t)
	registry := need(t, "registry", "DSTACK_TEST_REGISTRY")
	auth := fmt.Sprintf("registry_auth:\n  username: %s\n  password: %s",
		os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD"))
	h := newHouse(t, "docker")
	for _, c := range []struct {
		name, image, more string
		words             []string
	}{
		{"unknown-image", registry + "/no/such:1", auth, []string{"no/such:1"}},
		{"unknown-tag", registry + "/" + strings.Replace(baseImage, ":", ":not-", 1), auth, []string{"not-py3.10"}},
		{"no-registry", fmt.Sprintf("127.0.0.1:%d/no/such:1", freePort(t)), "", []string{"no/such:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.in(t).neverReady(c.name, h.workload(c.name, "image: "+c.image, c.more), 1, c.words...)
		})
	}
	dir := h.folder(h.workload("odd-image", "image: 'Not An Image'"))
	r := h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	if r.code != 1 && r.code != 2 {
		t.Errorf("exit status %d for an image that cannot be one, want 1 or 2", r.code)
	}
	r.refuses(r.code, "Not An Image")
}

// TestTakenPort: processes share this machine's ports; a second service on a
// port is told so, and is no crash loop.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	config := h.workload("first")
	h.apply(h.folder(config))
	second := h.folder(strings.Replace(config, "name: first", "name: second", 1))
	h.cliIn(second, "apply", "-f", "service.dstack.yml", "-y").refuses(4, "is taken by first replica 0")
	h.answers(h.service("first", "/"), 200)

	dir := h.folder(h.workload("twins", "replicas: 2"))
	began := time.Now()
	r := h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m")
	if r.code == 0 {
		t.Error("two replicas with one port are ready on one machine")
	}
	r.refuses(r.code, "port")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s to say so", took)
	}
}

// TestForeignPort: a program that dstack knows nothing of has the port.
func TestForeignPort(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strings.TrimPrefix(l.Addr().String(), "127.0.0.1:")
	h.neverReady("late", fmt.Sprintf("type: service\nname: late\nport: %s\nenv:\n- HOST=127.0.0.1\ncommands:\n- exec ./workload %s\n", port, port),
		1, "port "+port)
}

// TestStrangeFiles refuses an upload by the names of what cannot travel.
func TestStrangeFiles(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "process")
	dir := h.folder(h.workload("large"))
	if err := os.Truncate(filepath.Join(dir, "workload"), 17<<20); err != nil {
		t.Fatal(err)
	}
	h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").refuses(2, "workload", ".dstackignore")
	h.write(filepath.Join(dir, ".dstackignore"), "workload\n")
	h.cliIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").exits(0)
}
