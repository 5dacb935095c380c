package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestUploadedFiles compares the files in the replica's folder with those that git
// lists, without secrets, and with what the plan says.
func TestUploadedFiles(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	for _, c := range []struct {
		name    string
		files   map[string]string // tracked, if the content begins with "tracked"
		want    []string
		plan    []string
		notPlan string
	}{
		{
			name: "whitelist",
			files: map[string]string{".gitignore": "*\n!*/\n!*.py\n!*.yml\n!.gitignore\n", "app.py": "", "keys/prod/id_rsa": "",
				"keys/prod/.env": "", "models/sub/w.bin": ""},
			want: []string{".gitignore", "app.py"},
			plan: []string{"uploads      2 files"},
		},
		{
			name:    "taken-back",
			files:   map[string]string{".gitignore": "data/**\n!data/schema.json\n", "data/schema.json": "{}", "data/rows.csv": ""},
			want:    []string{".gitignore", "data/schema.json"},
			plan:    []string{"uploads      2 files"},
			notPlan: "left out",
		},
		{
			name:    "tracked",
			files:   map[string]string{".gitignore": "*.lock\n", "poetry.lock": "tracked", "uv.lock": ""},
			want:    []string{".gitignore", "poetry.lock"},
			notPlan: "left out",
		},
		{
			name: "secrets",
			files: map[string]string{".env": "tracked TOKEN=1", "tls/server.pem": "", ".venv/bin/x": "", "a/__pycache__/b.pyc": "",
				".env.example": "TOKEN=", "app.py": ""},
			want: []string{".env.example", "app.py"},
			plan: []string{"left out     .env (tracked by git), tls/server.pem, .venv/, a/__pycache__/",
				"write this into .dstackignore: !.env"},
		},
		{
			name: "asked-for",
			files: map[string]string{".env": "tracked TOKEN=1", ".dstackignore": "!.env\nnotes.txt\n", "notes.txt": "tracked", ".gitignore": "*.bin\n",
				"app.py": ""},
			want:    []string{".dstackignore", ".env", ".gitignore", "app.py"},
			notPlan: "left out",
		},
	} {
		dir, err := os.MkdirTemp(h.home, "code")
		if err != nil {
			t.Fatal(err)
		}
		runGit(t, dir, "init", "-q")
		for name, content := range c.files {
			h.writeFile(filepath.Join(dir, name), content)
			if strings.HasPrefix(content, "tracked") {
				runGit(t, dir, "add", "-f", name)
			}
		}
		port := findFreePort(t)
		h.writeFile(filepath.Join(dir, "service.dstack.yml"), fmt.Sprintf("type: service\nname: %s\ncommands:\n- find . -type f -o -type l | sort\n"+
			"- exec %s %d\nport: %d\nenv:\n- HOST=127.0.0.1\n", c.name, workloadBinary, port, port))
		applied := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m").expectExit(0).expectText(c.plan...)
		if c.notPlan != "" {
			applied.expectNoText(c.notPlan)
		}
		h.waitUntil(time.Minute, "the list of files", func() error {
			var got []string
			for line := range strings.Lines(h.runCLI("logs", c.name).expectExit(0).out) {
				if name, isFile := strings.CutPrefix(strings.TrimSpace(line), "./"); isFile {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				return fmt.Errorf("%s: the replica has %q, want %q", c.name, got, c.want)
			}
			return nil
		})
		h.runCLI("stop", c.name, "-y").expectExit(0)
	}
}

// runGit runs git without the user's configuration.
func runGit(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
