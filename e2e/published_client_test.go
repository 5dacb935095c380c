package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// TestPublishedClient_Commands types every command of the published client 0.18.10, as its
// users do.
func TestPublishedClient_Commands(t *testing.T) {
	runParallel(t)
	needPublishedClient(t)
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	dir := p.writeService("published", "- GREETING=hello")
	apply := []string{"apply", "-f", "service.dstack.yml", "-d"}

	p.run(dir, append(apply, "-y")...).expectExit(0).expectText("Pool", "default-pool", "Min resources", "Spot policy",
		"Creation policy", "reuse-or-create", "Termination policy", "destroy-after-idle", "local", "Run published submitted, detaching...")
	p.waitForStatus("published", "running")
	h.expectStatus(h.serviceURL("published", "/"), 200)
	p.run(dir, "ps", "-v").expectExit(0).expectText("INSTANCE", "running")
	p.run(dir, "logs", "published").expectExit(0)
	p.run(dir, "logs", "-d", "published").expectExit(0)

	p.answer("n\n", dir, apply...).expectExit(0).expectText("Run published already exists. Override the run?", "Exiting...")
	p.answer("y\n", dir, apply...).expectExit(1).expectText("Cannot delete active runs: ['published']", "stop it first: dstack stop published")
	p.run(dir, "delete", "-f", "service.dstack.yml", "-y").expectExit(1).expectText("Cannot delete active runs")
	p.run(dir, "stop", "published", "-y").expectExit(0).expectText("Stopped")
	p.waitForStatus("published", "terminated")
	p.run(dir, "delete", "-f", "service.dstack.yml", "-y").expectExit(0).expectText("Run published deleted")
	p.run(dir, "delete", "-f", "service.dstack.yml", "-y").expectExit(1).expectText("Run published does not exist")

	for _, list := range [][]string{{"volume", "list"}, {"fleet", "list"}, {"gateway", "list"}, {"volume"}, {"fleet"}, {"gateway"}, {"ps"}} {
		p.run(dir, list...).expectExit(0)
	}
	p.run(dir, "logs", "nothing").expectExit(1).expectText("Run nothing not found")
	p.run(dir, "stop", "nothing", "-y").expectExit(1).expectText("Run nothing not found")
}

// TestPublishedClient_Config configures the client with right and wrong answers.
func TestPublishedClient_Config(t *testing.T) {
	runParallel(t)
	needPublishedClient(t)
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	config := func(project, url, token string) *result {
		return p.run(p.ownHome, "config", "--project", project, "--url", url, "--token", token, "--no-default")
	}
	config("main", h.serverURL(), "wrong").expectExit(1).expectText("Forbidden. Ensure the token is valid.")
	config("nope", h.serverURL(), h.token).expectExit(1).expectText("Project 'nope' not found.")
	config("main", "http://127.0.0.1:9", h.token).expectExit(1).expectText("Failed to connect to dstack server")
	config("main", h.serverURL(), h.token).expectExit(0)
	p.run(p.ownHome, "config", "--project", "main", "--remove").expectExit(0)
	p.run(p.ownHome, "ps").expectExit(1)
}

// TestPublishedClient_Options applies with the flags and files that users have.
func TestPublishedClient_Options(t *testing.T) {
	runParallel(t)
	needPublishedClient(t)
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	dir := p.writeService("optional", "- COLOUR")
	apply := []string{"apply", "-f", "service.dstack.yml", "-y", "-d"}

	p.run(dir, apply...).expectExit(1).expectText("Environment variable COLOUR is not set")
	apply = append(apply, "-e", "COLOUR=red")
	p.run(dir, append(apply, "--profile", "none")...).expectExit(1).expectText("No such profile: none")
	p.run(dir, append(apply, "-n", "Bad_Name")...).expectExit(1).expectText("Resource name should match regex '^[a-z][a-z0-9-]{1,40}$'")
	p.run(dir, append(apply, "--gpu", "1")...).expectExit(1).expectText("no machine suits", "has no GPU", "no machine of this server has a GPU")
	p.run(dir, append(apply, "-b", "aws")...).expectExit(1).expectText("no machine suits", "this server has the backends: local")
	p.run(dir, append(apply, "--instance", "attic")...).expectExit(1).expectText("its name is", "`instance_name` allows only attic")

	machine := strings.Fields(p.run(dir, "pool", "ps").expectExit(0).expectText("default-pool", "idle").lineWith("local"))[0]
	for _, flags := range [][]string{{"--pool", "team"}, {"--reuse"}, {"--dont-destroy"}, {"--idle-duration", "1h"}, {"--instance", machine}} {
		asking := append([]string{"apply", "-f", "service.dstack.yml", "-e", "COLOUR=red", "-d"}, flags...)
		p.answer("n\n", dir, asking...).expectExit(0).expectText("local", machine, "optional", "[y/n]", "Exiting...")
		p.run(dir, append(apply, flags...)...).expectExit(0).expectText("Run optional submitted")
		p.run(dir, "stop", "optional", "--abort", "-y").expectExit(0).expectText("Aborted")
		p.waitForStatus("optional", "terminated")
	}
	p.answer("n\n", dir, "apply", "-f", "service.dstack.yml", "-e", "COLOUR=red", "--pool", "team").expectText("Pool", "team")

	p.run(dir, append(apply, "-n", "renamed")...).expectExit(0).expectText("Run renamed submitted")
	p.waitForStatus("renamed", "running")
	if colour, _ := h.fetchInfo("renamed").lookUpEnv("COLOUR"); colour != "red" {
		t.Errorf("the replica has COLOUR=%q", colour)
	}
	p.run(dir, "pool", "ps").expectExit(0).expectText(machine, "busy")
	p.run(dir, "pool", "list").expectExit(0).expectText("default-pool", "1/1")
	p.run(dir, "pool", "ps", "--pool", "team").expectExit(1)
	p.answer("n\n", dir, "pool", "add").expectExit(0).expectText("default-pool", machine)
	p.run(dir, "pool", "add", "-y").expectExit(1).expectText("not supported yet: pools", "machines come from the backends in the server's config.yml")

	p.run(dir, "stop", "renamed", "--abort", "-y").expectExit(0)
	p.waitForStatus("renamed", "terminated")
	p.run(dir, "run", ".", "-f", "service.dstack.yml", "-y", "-d", "-e", "COLOUR=red", "-n", "older").expectExit(0).
		expectText("deprecated", "Run older submitted")
	p.run(dir, "stop", "older", "--abort", "-y").expectExit(0)

	h.writeFile(filepath.Join(dir, "args.dstack.yml"), strings.Replace(p.workloadConfig("args"), "commands:\n", "commands:\n- echo with ${{ run.args }}\n", 1))
	p.run(dir, "apply", "-f", "args.dstack.yml", "-y", "-d", "one", "two").expectExit(0)
	p.waitForStatus("args", "running")
	h.waitUntil(30*time.Second, "the arguments are in the logs", func() error {
		if r := p.run(dir, "logs", "args"); !strings.Contains(r.out, "with one two") {
			return errors.New(r.out)
		}
		return nil
	})
	h.writeFile(filepath.Join(dir, "task.dstack.yml"), "type: task\ncommands: [a]\n")
	p.run(dir, "apply", "-f", "task.dstack.yml", "-y", "-d").expectExit(1).expectText("not supported yet")
}

// lineWith returns the first line of the output that contains a word.
func (r *result) lineWith(word string) string {
	r.t.Helper()
	for line := range strings.Lines(r.out) {
		if strings.Contains(line, word) {
			return line
		}
	}
	r.t.Fatalf("%s: no line with %q in\n%s", r.line, word, r.out)
	return ""
}

// TestPublishedClient_Folders uploads what is in users' folders.
func TestPublishedClient_Folders(t *testing.T) {
	needPublishedClient(t)
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		p := newPublishedClient(h)
		config := strings.Replace(p.workloadConfig("folder"), "commands:\n", "commands:\n- find . | sort\n", 1)
		dir := h.newFolder(config)
		h.writeFile(filepath.Join(dir, "deep", "er", "data.txt"), "x")
		h.writeFile(filepath.Join(dir, "ignored.txt"), "x")
		h.writeFile(filepath.Join(dir, ".gitignore"), "ignored.txt\n")
		for link, target := range map[string]string{"inside": "deep/er", ".venv/bin/python": "/usr/bin/python3", "up": "../outside.txt"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Link(filepath.Join(dir, "deep", "er", "data.txt"), filepath.Join(dir, "second.txt")); err != nil {
			t.Fatal(err)
		}
		p.run(dir, "init", "--local").expectExit(0)
		p.run(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
		p.waitForStatus("folder", "running")
		h.waitUntil(30*time.Second, "the list of files", func() error {
			if r := p.run(dir, "logs", "folder"); !strings.Contains(r.out, "./deep/er/data.txt") || !strings.Contains(r.out, "./inside") || !strings.Contains(r.out, "./second.txt") ||
				strings.Contains(r.out, "ignored.txt") || strings.Contains(r.out, "python") || strings.Contains(r.out, "./up") {
				return errors.New(r.out + r.err)
			}
			return nil
		})
		h.expectEvent("folder", dstack.EventUpload, "", "", "links out of the uploaded folder are left out", ".venv/bin/python", "up")
		h.runCLI("events", "folder").expectExit(0).expectText("upload", ".venv/bin/python")

		if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.run(dir, "apply", "-f", "service.dstack.yml", "-n", "piped", "-y", "-d").expectExit(1).
			expectText(`the uploaded code is refused: "pipe" is neither a file, a folder nor a symbolic link`, ".dstackignore")
	})
}

// TestPublishedClient_Python runs programs with the client's Python API.
func TestPublishedClient_Python(t *testing.T) {
	runParallel(t)
	needPublishedClient(t)
	h := newHarness(t, "process")
	p := newPublishedClient(h)
	dir := p.writeService("programmed")
	program, err := filepath.Abs("clients/published_api.py")
	if err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{"local": "all done", "virtual": "all done"} {
		p.runPython(dir, program, name, workloadBinary, fmt.Sprint(findFreePort(t)), h.token).expectExit(0).expectText(says)
	}
}
