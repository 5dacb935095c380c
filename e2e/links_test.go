package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUpload_LinksTravelAsLinks applies a folder with links, a named pipe and a virtual
// environment. Links in the folder are links for the replica; the plan names what is left
// out.
func TestUpload_LinksTravelAsLinks(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		commands := `commands:
- readlink current
- cat current/version
- "[ ! -L data ] && [ ! -e data ] && [ ! -L tool ] && [ ! -e pipe ] && echo nothing else"
`
		dir := h.newFolder(strings.Replace(h.workloadConfig("linked"), "commands:\n", commands, 1))
		h.writeFile(filepath.Join(dir, "releases", "1", "version"), "first\n")
		h.writeFile(filepath.Join(h.home, "datasets", "big"), "canary of the dataset")
		for link, target := range map[string]string{
			"current": "releases/1", "data": filepath.Join(h.home, "datasets"), "tool": "python", "python": "/usr/bin/python3",
		} {
			if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectExit(0)
		for _, want := range []string{
			"data is a link out of the folder, to " + filepath.Join(h.home, "datasets") + ": left out", "pipe is a named pipe: left out",
			"tool is a link to python, which leads out of the folder, to /usr/bin/python3: left out",
		} {
			if !strings.Contains(r.err, want) {
				t.Errorf("the plan has no %q:\n%s", want, r.err)
			}
		}
		h.waitUntil(time.Minute, "the logs have all lines", func() error {
			r := h.runCLI("logs", "linked")
			if !strings.Contains(r.out, "releases/1\nfirst\nnothing else\n") {
				return fmt.Errorf("%q, %q", r.out, r.err)
			}
			return nil
		})
		if found := h.findFilesWith("canary of the dataset"); len(found) > 0 {
			t.Errorf("a link was followed: %v", found)
		}
	})
}
