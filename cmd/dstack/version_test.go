package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestDevelopmentVersion(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "3f1c7b2a9d04e5f60718293a4b5c6d7e8f901234"}
	clean := debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, c := range []struct {
		name     string
		settings []debug.BuildSetting
		want     string
	}{
		{"a clean clone", []debug.BuildSetting{revision, clean}, "0.2.0-dev+3f1c7b2a9d04"},
		{"changed files", []debug.BuildSetting{revision, modified}, "0.2.0-dev+3f1c7b2a9d04-dirty"},
		{"the settings in another order", []debug.BuildSetting{modified, revision}, "0.2.0-dev+3f1c7b2a9d04-dirty"},
		{"a short revision", []debug.BuildSetting{{Key: "vcs.revision", Value: "3f1c"}}, "0.2.0-dev+3f1c"},
		{"no clone", nil, "0.2.0-dev"},
	} {
		if got := developmentVersion(c.settings); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestCurrentVersion_OfABuild builds version.go in a Git repository of its own, as a developer and as a release does.
func TestCurrentVersion_OfABuild(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile("version.go")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		c := exec.Command(name, args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOWORK=off", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	built := func(flags ...string) string {
		binary := filepath.Join(t.TempDir(), "built")
		run("go", append([]string{"build", "-buildvcs=auto", "-o", binary}, flags...)...)
		return run(binary)
	}
	write("go.mod", "module dstack\n\ngo 1.26\n")
	write("version.go", string(source))
	write("main.go", "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(currentVersion()) }\n")

	if got := built(); got != "0.2.0-dev" {
		t.Errorf("outside of a clone: %q", got)
	}
	run("git", "init", "-q")
	run("git", "add", ".")
	run("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "first")
	want := "0.2.0-dev+" + run("git", "rev-parse", "HEAD")[:12]
	if got := built(); got != want {
		t.Errorf("in a clone: %q, want %q", got, want)
	}
	write("go.mod", "module dstack\n\ngo 1.26 // changed\n")
	if got := built(); got != want+"-dirty" {
		t.Errorf("in a clone with changes: %q, want %q", got, want+"-dirty")
	}
	if got := built("-ldflags", "-X main.version=1.2.3"); got != "1.2.3" {
		t.Errorf("a release: %q", got)
	}
}
