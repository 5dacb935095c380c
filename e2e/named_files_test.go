package e2e

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/gitrepo/gittest"
)

// waitForPrinted waits until a run has printed lines.
func (h *harness) waitForPrinted(run string, lines ...string) {
	h.t.Helper()
	h.waitUntil(time.Minute, fmt.Sprintf("%s prints %q", run, lines), func() error {
		r := h.runCLI("logs", run).expectExit(0)
		for _, line := range lines {
			if !strings.Contains(r.out, line) {
				return errors.New(r.out + r.err)
			}
		}
		return nil
	})
}

// TestNamedFiles applies a service with `files`: replicas get them at their paths and nothing
// else, and a changed file replaces the replicas.
func TestNamedFiles(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		dir := filepath.Join(h.home, "project")
		target, host := "etc/conf", "127.0.0.1"
		if engine == "docker" {
			target, host = "/etc/app/conf", "0.0.0.0"
		}
		port := findFreePort(t)
		h.writeFile(filepath.Join(dir, "deploy", "service.dstack.yml"), fmt.Sprintf(`type: service
name: named
files:
- ../conf:%s
- %s:workload
- ~/app.txt:data/app.txt
commands:
- find . -type f | sort
- cat %s/app.yml data/app.txt
- exec ./workload %d
port: %d
env:
- HOST=%s
`, target, workloadBinary, target, port, port, host))
		for name, text := range map[string]string{"conf/app.yml": "setting: one\n", "conf/.env": "TOKEN=canary", "conf/ignored.txt": "no", "conf/.gitignore": "ignored.txt\n", "other.txt": "not named"} {
			h.writeFile(filepath.Join(dir, name), text)
		}
		h.writeFile(filepath.Join(h.home, "app.txt"), "of the home\n")
		apply := []string{"apply", "-f", "deploy/service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m"}
		h.runCLIIn(dir, apply...).expectExit(0).
			expectText("uploads      2 files, ", "../conf → "+target, "~/app.txt → data/app.txt", "nothing else of the folder", "left out     ../conf/.env",
				"write this into ../conf/.dstackignore: !.env")
		h.waitForPrinted("named", "./workload", "./data/app.txt", "setting: one", "of the home")
		out := h.runCLI("logs", "named").expectExit(0).expectNoText("other.txt", "ignored.txt", "canary", ".env", "service.dstack.yml")
		if engine == "process" {
			out.expectText("./etc/conf/app.yml")
		}
		h.runCLIIn(dir, apply...).expectExit(0).expectText("nothing changed")

		h.writeFile(filepath.Join(dir, "conf", "app.yml"), "setting: two\n")
		h.runCLIIn(dir, apply...).expectExit(0).expectText("files.0")
		h.waitForPrinted("named", "setting: two")

		if err := os.Remove(filepath.Join(h.home, "app.txt")); err != nil {
			t.Fatal(err)
		}
		h.runCLIIn(dir, apply...).expectExit(2).expectText("service.dstack.yml:6:", "cannot upload ~/app.txt", "no such file")
		if engine == "process" {
			h.writeFile(filepath.Join(dir, "outside.dstack.yml"), "type: service\nname: outside\nfiles: ['conf:/etc/app']\ncommands: [a]\nport: 8000\n")
			h.runCLIIn(dir, "apply", "-f", "outside.dstack.yml", "-y").expectExit(4).
				expectText("/etc/app is outside", "write a path inside of the working directory")
		}
	})
}

// TestNamedRepo applies with `repos`: a clone with changes, and a private repository by its URL,
// whose token `dstack init` registers.
func TestNamedRepo(t *testing.T) {
	runParallel(t)
	repo, ca := gittest.NewRepository(t), filepath.Join(t.TempDir(), "ca.pem")
	host := &gittest.HTTPHandler{Root: repo.Root, Token: "ghp_canary"}
	server := httptest.NewTLSServer(host)
	t.Cleanup(server.Close)
	if err := os.WriteFile(ca, gittest.EncodeCertificate(server.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, "process", "SSL_CERT_FILE="+ca)
	address := server.URL + repo.Path
	repo.Git("remote", "set-url", "origin", address)
	port := findFreePort(t)
	config := func(name, repo string) string {
		return fmt.Sprintf("type: service\nname: %s\nrepos:\n- %s\ncommands:\n- cat app/app.txt\n- ls -A app\n- exec %s %d\nport: %d\nenv:\n- HOST=127.0.0.1\n",
			name, repo, workloadBinary, port, port)
	}
	h.writeFile(filepath.Join(repo.Clone, "service.dstack.yml"), config("local", ".:app"))
	apply := []string{"apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m"}
	h.runCLIIn(repo.Clone, apply...).expectExit(2).expectText("the server cannot read the repository", "credentials")
	h.runCLIIn(repo.Clone, "init", "--repo", ".", "--token", "wrong").expectExit(2)
	h.runCLIIn(repo.Clone, "init", "--repo", ".", "--token", host.Token).expectExit(0).expectText("the server can read " + address).expectNoText(host.Token)

	repo.Write(map[string]string{"app.txt": "changed\n", "new.txt": "untracked\n", "bin.dat": "\x00\x01", ".env": "TOKEN=canary", "sub/.venv/x": ""})
	h.runCLIIn(repo.Clone, apply...).expectExit(0).expectText("clones       "+address+" main@"+repo.Head()[:8]+" + ", "→ app", "left out     .env, sub/.venv/", "nothing else of the folder")
	h.waitForPrinted("local", "changed", "new.txt", "bin.dat")
	h.runCLI("logs", "local").expectNoText(".env", "sub")
	h.runCLIIn(repo.Clone, apply...).expectExit(0).expectText("nothing changed")
	h.runCLI("stop", "local", "-y").expectExit(0)

	dir := filepath.Join(h.home, "elsewhere")
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config("url", address+":app"))
	h.runCLIIn(dir, apply...).expectExit(0).expectText("clones       " + address + " → app")
	h.waitForPrinted("url", "one")
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config("url", "{url: '"+address+"', branch: gone, path: app}"))
	h.runCLIIn(dir, apply...).expectExit(2).expectText(`has no branch "gone"`)
	h.writeFile(filepath.Join(dir, "service.dstack.yml"), config("url", ".:app"))
	h.runCLIIn(dir, apply...).expectExit(2).expectText("is not in a git repository", "files: [.]")
}
