package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needNewestClient skips the test without the newest published client, and returns the
// folder of its virtual environment.
func needNewestClient(t *testing.T) string {
	t.Helper()
	return needPiece(t, "newest", "DSTACK_TEST_NEWEST")
}

// newNewestClient returns the newest published client, configured for the project main of
// a server that runs.
func newNewestClient(h *harness) *publishedClient {
	h.t.Helper()
	p := startPublishedClient(h, needNewestClient(h.t))
	p.run(p.ownHome, "project", "add", "--name", "main", "--url", h.serverURL(), "--token", h.token, "-y").expectExit(0).
		expectText("Configuration updated")
	return p
}

// writeNewestService writes a service of the workload into a new folder. The client uploads
// nothing of it, so that the service names the program by its path.
func (p *publishedClient) writeNewestService(name string, lines ...string) string {
	p.t.Helper()
	return p.newFolder(strings.Replace(p.workloadConfig(name, lines...), "./workload", workloadBinary, 1))
}

// TestNewestClient_Commands types the commands of the newest published client, as its
// users do.
func TestNewestClient_Commands(t *testing.T) {
	runParallel(t)
	needNewestClient(t)
	h := newHarness(t, "process")
	p := newNewestClient(h)
	dir := p.writeNewestService("newest", "- GREETING=hello")
	apply := []string{"apply", "-f", "service.dstack.yml", "-d", "-y"}

	p.run(dir, apply...).expectExit(0).expectText("Project", "main", "Resources", "dstack (local)", "Run newest submitted, detaching...")
	p.waitForStatus("newest", "running")
	address := h.serverURL() + "/proxy/services/main/newest/"
	h.expectStatus(address, 200)
	if greeting, _ := h.fetchInfo("newest").lookUpEnv("GREETING"); greeting != "hello" {
		t.Errorf("the replica has GREETING=%q", greeting)
	}
	p.run(dir, "ps", "-v").expectExit(0).expectText("INSTANCE TYPE", "deployment=1", "dstack (local)", "running")
	p.run(dir, "ps", "--json").expectExit(0).expectText(`"url":"/proxy/services/main/newest/"`, `"status_message":"running"`)
	p.run(dir, "run", "get", "newest", "--json").expectExit(0).expectText(`"deployment_num": 1`)
	p.run(dir, "logs", "newest").expectExit(0).expectText("workload: listening on")
	p.run(dir, "logs", "-d", "newest").expectExit(0)

	p.run(dir, apply...).expectExit(0).expectText("Active run newest already exists. Detected no changes.", "Use --force to apply anyway.")
	p.run(dir, append(apply, "--max-price", "3")...).expectExit(0).expectText("can be updated in-place", "max_price", "Run newest updated, detaching...")
	p.answer("n\n", dir, apply[:4]...).expectExit(0).expectText("Update the run?", "Exiting...")
	p.run(dir, "ps", "-v").expectExit(0).expectText("deployment=2")

	p.run(dir, "event").expectExit(0).expectText("[👤admin] [run newest] applied: revision 1", "[job newest-0-0] status changed: starting → ready")
	p.run(dir, "event", "--target-run", "newest", "--since", "1h").expectExit(0).expectText("[run newest]").expectNoText("[job")
	p.run(dir, "event", "--include-target-type", "secret").expectExit(0).expectNoText("newest")

	p.run(dir, "stop", "newest", "-y").expectExit(0).expectText("Stopped")
	p.waitForStatus("newest", "stopped")
	p.run(dir, "delete", "-f", "service.dstack.yml", "-y").expectExit(0).expectText("Run newest deleted")
	p.run(dir, "delete", "-f", "service.dstack.yml", "-y").expectExit(1).expectText("Run newest does not exist")
	p.run(dir, "logs", "nothing").expectExit(1).expectText("Run nothing not found")
	p.run(dir, "stop", "nothing", "-y").expectExit(1).expectText("Run nothing not found")
}

// TestNewestClient_Lists lists what a project has, and asks for what it can not have: each
// refusal says what to do instead.
func TestNewestClient_Lists(t *testing.T) {
	runParallel(t)
	needNewestClient(t)
	h := newHarness(t, "process")
	p := newNewestClient(h)
	dir := p.writeNewestService("refused")
	p.run(dir, "offer").expectExit(0).expectText("cpu=1..", "dstack (local)", "$0")
	p.run(dir, "offer", "--gpu", "H100").expectExit(0).expectText("No matching instance offers")
	p.run(dir, "offer", "--json", "-b", "dstack").expectExit(0).expectText(`"total_offers":1`)
	p.run(dir, "fleet").expectExit(0).expectText("default", "instance=0", "idle")
	for _, list := range []string{"gateway", "volume", "export", "import"} {
		p.run(dir, list, "list").expectExit(0).expectText("NAME")
	}
	p.run(dir, "secret", "set", "TOKEN", "abc").expectExit(0).expectText("OK")
	p.run(dir, "secret", "list").expectExit(0).expectText("TOKEN", "******")
	p.run(dir, "secret", "get", "TOKEN").expectExit(0).expectText("TOKEN").expectNoText("abc")
	p.run(dir, "secret", "delete", "TOKEN", "-y").expectExit(0)
	p.run(dir, "secret", "get", "TOKEN").expectExit(1).expectText(`this project has no secret "TOKEN"`)
	p.run(dir, "project", "list", "-v").expectExit(0).expectText("main", "admin")
	p.run(dir, "project", "set-default", "main").expectExit(0)
	p.run(dir, "project", "add", "--name", "main", "--url", h.serverURL(), "--token", "wrong", "-y").expectExit(1).expectText("denied")
	p.run(dir, "project", "add", "--name", "nope", "--url", h.serverURL(), "--token", h.token, "-y").expectExit(1).expectText("404")

	for name, c := range map[string]struct{ text, says string }{
		"task":    {"type: task\ncommands: [a]\n", "this server runs services"},
		"dev":     {"type: dev-environment\nide: vscode\n", "this server runs services"},
		"fleet":   {"type: fleet\nname: rented\nnodes: 1\nreservation: r\n", "reservation"},
		"gateway": {"type: gateway\nname: front\nbackend: aws\nregion: r\ndomain: example.com\n", "backend: local for the server itself"},
		"invalid": {"type: service\nport: 80\ncommands: [a]\nprivileged: true\n", "containers run without additional privileges"},
	} {
		h.writeFile(filepath.Join(dir, name+".dstack.yml"), c.text)
		p.run(dir, "apply", "-f", name+".dstack.yml", "-y", "-d").expectExit(1).expectText("not supported yet", c.says).expectNoText("Traceback", "'detail'")
	}
	p.run(dir, "offer", "--group-by", "gpu,backend").expectExit(0).expectText("$/GPU").expectNoText("Traceback")
	p.run(dir, "apply", "-f", "service.dstack.yml", "--gpu", "1", "-y", "-d").expectExit(1).expectText("no machine suits", "has no GPU").expectNoText("no fleets")
	for _, args := range [][]string{{"metrics", "refused"}, {"login", "--url", h.serverURL()}, {"fleet", "delete", "default", "-y"},
		{"export", "create", "e", "--fleet", "default"}, {"init"}} {
		p.run(dir, args...).expectExit(1).expectNoText("Traceback", "404")
	}
}

// testAttachedNewest applies and attaches as everybody types it: the client shows the
// output of the run until Ctrl-C.
func testAttachedNewest(t *testing.T) {
	needNewestClient(t)
	h := newHarness(t, "process")
	p := newNewestClient(h)
	dir := p.writeNewestService("shown")
	apply := p.start(dir, "apply", "-f", "service.dstack.yml", "-y")
	apply.waitForOutput("shown provisioning completed (running)", h.serverURL()+"/proxy/services/main/shown/", "workload: listening on")
	apply.interrupt()
	apply.expectEnd(0, "Detached")
	attach := p.start(dir, "attach", "shown", "--logs")
	attach.waitForOutput("Attached to run shown", "workload: listening on")
	h.runCLI("stop", "shown", "-y").expectExit(0)
	attach.waitForOutput("workload: asked to stop")
}

// testAttachedNewestAPI runs a program with the client's Python API.
func testAttachedNewestAPI(t *testing.T) {
	needNewestClient(t)
	h := newHarness(t, "process")
	p := newNewestClient(h)
	program, err := filepath.Abs("clients/newest_api.py")
	if err != nil {
		t.Fatal(err)
	}
	p.runPython(p.ownHome, program, workloadBinary, fmt.Sprint(findFreePort(t)), h.token).expectExit(0).expectText("all done")
	h.waitUntil(20*time.Second, "nothing is left", func() error {
		if left := h.listProcesses(); len(left) > 0 {
			return errors.New(strings.Join(left, "; "))
		}
		return nil
	})
}
