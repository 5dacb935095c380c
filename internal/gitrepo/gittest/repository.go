// Package gittest has git repositories for tests, and serves them: over HTTP with git's own
// http-backend, and over SSH with git's own upload-pack.
package gittest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Repository is a bare repository with the branch main, and a clone of it.
type Repository struct {
	Root  string // the folder that the servers publish
	Path  string // of the bare repository in Root: /team/app.git
	Clone string

	t testing.TB
}

// NewRepository makes a repository with one commit, of a file app.txt.
func NewRepository(t testing.TB) *Repository {
	t.Helper()
	r := &Repository{Root: t.TempDir(), Path: "/team/app.git", Clone: filepath.Join(t.TempDir(), "app"), t: t}
	bare := filepath.Join(r.Root, filepath.FromSlash(r.Path))
	r.run("", "init", "--quiet", "--bare", "--initial-branch=main", bare)
	r.run("", "clone", "--quiet", bare, r.Clone)
	r.Git("checkout", "--quiet", "-B", "main")
	r.Commit(map[string]string{"app.txt": "one\n"})
	r.Git("push", "--quiet", "--set-upstream", "origin", "main")
	return r
}

// Git runs git in the clone and returns its output.
func (r *Repository) Git(args ...string) string {
	r.t.Helper()
	return strings.TrimSpace(r.run(r.Clone, args...))
}

// GitBare runs git in the bare repository.
func (r *Repository) GitBare(args ...string) string {
	r.t.Helper()
	return strings.TrimSpace(r.run(filepath.Join(r.Root, filepath.FromSlash(r.Path)), args...))
}

// Environ returns the environment for git commands of a test: without the settings of the
// machine and its user.
func Environ(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") {
			env = append(env, v)
		}
	}
	env = append(env, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=ann", "GIT_COMMITTER_EMAIL=ann@example.com")
	return append(env, more...)
}

func (r *Repository) run(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, Environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Write writes files into the clone. It deletes those with the text "-".
func (r *Repository) Write(files map[string]string) {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.Clone, filepath.FromSlash(name))
		if text == "-" {
			if err := os.Remove(path); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Commit commits files, and returns the hash of the commit. It pushes nothing.
func (r *Repository) Commit(files map[string]string) string {
	r.t.Helper()
	r.Write(files)
	r.Git("add", "--all")
	r.Git("commit", "--quiet", "--message", "change")
	return r.Head()
}

// Push commits files and pushes the commit. It returns its hash.
func (r *Repository) Push(files map[string]string) string {
	r.t.Helper()
	hash := r.Commit(files)
	r.Git("push", "--quiet", "--force", "origin", "main")
	return hash
}

// Head returns the hash of the clone's commit.
func (r *Repository) Head() string {
	r.t.Helper()
	return r.Git("rev-parse", "HEAD")
}

// Diff returns what the clone has changed since the pushed commit, as the client 0.18.10
// uploads it: the changes of tracked files, and all of those that are not tracked.
func (r *Repository) Diff() string {
	r.t.Helper()
	diff := r.run(r.Clone, "diff", "origin/main")
	for name := range strings.SplitSeq(r.Git("ls-files", "-z", "--others", "--exclude-standard"), "\x00") {
		if name == "" {
			continue
		}
		cmd := exec.Command("git", "diff", "--no-index", "--binary", "--", "/dev/null", name)
		cmd.Dir, cmd.Env = r.Clone, Environ()
		out, _ := cmd.Output() // it exits with 1 if there is a difference
		diff += string(out)
	}
	return diff
}
