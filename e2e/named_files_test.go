package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	forEachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
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
