package gitrepo_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
)

func TestOpenFolder_IsACloneOfTheCommit(t *testing.T) {
	r := newRig(t)
	r.repo.Push(map[string]string{"app.txt": "two\n", "src/main.py": "print(1)\n"})
	hash := r.repo.Push(map[string]string{"app.txt": "three\n"})
	dir := r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash), AuthorName: "Ann B", AuthorEmail: "ann@example.com"})
	if got := readFile(t, dir, "app.txt") + readFile(t, dir, "src/main.py"); got != "three\nprint(1)\n" {
		t.Errorf("the files are %q", got)
	}
	for _, c := range [][2]string{
		{"rev-parse HEAD", hash}, {"rev-parse --abbrev-ref HEAD", "main"}, {"status --porcelain", ""},
		{"rev-list --count HEAD", "1"}, {"rev-parse origin/main", hash}, {"rev-parse --abbrev-ref main@{upstream}", "origin/main"},
		{"config remote.origin.url", r.url}, {"config user.name", "Ann B"}, {"config user.email", "ann@example.com"},
	} {
		if got := git(t, dir, strings.Fields(c[0])...); got != c[1] {
			t.Errorf("git %s: %q, want %q", c[0], got, c[1])
		}
	}
	if entries, err := os.ReadDir(filepath.Join(r.dir, "tmp")); err != nil || len(entries) != 0 {
		t.Errorf("left in the temporary folder: %v, %v", entries, err)
	}
}

func TestOpenFolder_HasTheUploadedChanges(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Push(map[string]string{"gone.txt": "x\n", "run.sh": "echo 1\n", "old name.txt": strings.Repeat("line\n", 20)})
	r.repo.Write(map[string]string{"app.txt": "one\ntwo", "gone.txt": "-", "new/ä b.txt": "new\n", "empty.txt": "", "data.bin": "a\x00b\x01"})
	r.repo.Git("mv", "old name.txt", "name.txt")
	if err := os.Symlink("app.txt", filepath.Join(r.repo.Clone, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(r.repo.Clone, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	diff := r.repo.Diff()
	for name, text := range map[string]string{"as sent": diff, "without the last line end": strings.TrimSuffix(diff, "\n")} {
		checkout := gitrepo.Checkout{Commit: onMain(hash), Diff: strings.NewReader(text)}
		if err := r.cache.Fetch(t.Context(), r.source(), checkout.Commit); err != nil {
			t.Fatal(err)
		}
		if err := r.cache.CheckDiff(t.Context(), r.source(), checkout); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkout.Diff = strings.NewReader(text)
		dir := r.mustUnpack(r.source(), checkout)
		if got := readFile(t, dir, "app.txt") + readFile(t, dir, "new/ä b.txt") + readFile(t, dir, "empty.txt") + readFile(t, dir, "data.bin"); got != "one\ntwonew\na\x00b\x01" {
			t.Errorf("%s: the files are %q", name, got)
		}
		if _, err := os.Lstat(filepath.Join(dir, "gone.txt")); err == nil {
			t.Errorf("%s: the deleted file is there", name)
		}
		if target, err := os.Readlink(filepath.Join(dir, "link")); err != nil || target != "app.txt" {
			t.Errorf("%s: the link is %q, %v", name, target, err)
		}
		if info, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || info.Mode().Perm()&0o100 == 0 {
			t.Errorf("%s: run.sh cannot be executed: %v, %v", name, info, err)
		}
		if got := git(t, dir, "rev-parse", "HEAD"); got != hash {
			t.Errorf("%s: the changes are committed: HEAD is %s", name, got)
		}
	}
}

func TestCheckDiff_RefusesWhatCannotBeApplied(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Push(map[string]string{"data.bin": "\x00one"})
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	r.repo.Write(map[string]string{"data.bin": "\x00two"})
	for _, c := range []struct{ name, diff, message, hint string }{
		{"another file", "diff --git a/app.txt b/app.txt\n--- a/app.txt\n+++ b/app.txt\n@@ -1 +1 @@\n-other\n+two\n", "app.txt", "apply again"},
		{"a file that is not there", "diff --git a/no.txt b/no.txt\n--- a/no.txt\n+++ b/no.txt\n@@ -1 +1 @@\n-a\n+b\n", "no.txt", "apply again"},
		{"no diff", "hello\n", "No valid patches", "apply again"},
		{"a tar archive", "app/\x00\x00\x00", "No valid patches", "apply again"},
		{"outside of the folder", "diff --git a/../../x b/../../x\nnew file mode 100644\n--- /dev/null\n+++ b/../../x\n@@ -0,0 +1 @@\n+x\n", "../../x", "apply again"},
		{"in .git", "diff --git a/.git/config b/.git/config\nnew file mode 100644\n--- /dev/null\n+++ b/.git/config\n@@ -0,0 +1 @@\n+x\n", ".git/config", "apply again"},
		{"a binary file without its content", r.repo.Diff(), "data.bin", "push changed binary files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkout := gitrepo.Checkout{Commit: onMain(hash), Diff: strings.NewReader(c.diff)}
			err := r.cache.CheckDiff(t.Context(), r.source(), checkout)
			expectError(t, err, dstack.Invalid, "the uploaded changes cannot be applied to commit "+hash[:12], c.hint)
			if !strings.Contains(err.Error(), c.message) {
				t.Errorf("%v does not name %q", err, c.message)
			}
			checkout.Diff = strings.NewReader(c.diff)
			_, err = r.unpack(r.source(), checkout)
			expectError(t, err, dstack.Invalid, "the uploaded changes cannot be applied", c.hint)
		})
	}
}

func TestCheckDiff_AcceptsNoChanges(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Head()
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	for _, diff := range []string{"", "\n"} {
		checkout := gitrepo.Checkout{Commit: onMain(hash), Diff: strings.NewReader(diff)}
		if err := r.cache.CheckDiff(t.Context(), r.source(), checkout); err != nil {
			t.Error(err)
		}
		r.mustUnpack(r.source(), checkout)
	}
}

// A repository can name programs for its files. They must not run on the server.
func TestOpenFolder_RunsNothingOfTheRepository(t *testing.T) {
	r := newRig(t)
	canary := filepath.Join(t.TempDir(), "ran")
	hash := r.repo.Push(map[string]string{
		".gitattributes": "* filter=evil diff=evil\n*.txt filter=lfs\n",
		".gitconfig":     "[filter \"evil\"]\n\tsmudge = touch " + canary + "\n[core]\n\tfsmonitor = touch " + canary + "\n",
		".gitmodules":    "[submodule \"x\"]\n\tpath = x\n\turl = ext::touch " + canary + "\n",
		"big.txt":        "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 1\n",
	})
	dir := r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
	if _, err := os.Stat(canary); err == nil {
		t.Error("a program of the repository ran")
	}
	if !strings.HasPrefix(readFile(t, dir, "big.txt"), "version ") {
		t.Error("the file of Git LFS is not its pointer")
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, ".git", "hooks")); len(entries) != 0 {
		t.Errorf("hooks in the working folder: %v", entries)
	}
}

// Services go on after the user who applied them was deleted, with the credentials.
func TestOpenFolder_WithoutTheCredentials(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Head()
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	bare := r.source()
	bare.URL, bare.Token, bare.MayUseLoopback = "", "", false
	if got := readFile(t, r.mustUnpack(bare, gitrepo.Checkout{Commit: onMain(hash)}), "app.txt"); got != "one\n" {
		t.Errorf("%q", got)
	}
	if err := r.cache.Forget(t.Context(), "project", "app-12345678"); err != nil {
		t.Fatal(err)
	}
	_, err := r.unpack(bare, gitrepo.Checkout{Commit: onMain(hash)})
	expectError(t, err, dstack.NotFound, "was deleted, with the credentials for its repository, and the commit "+hash[:12], "apply it again")
}

func TestCheckAuthor(t *testing.T) {
	for _, c := range []struct {
		name, email, place string // empty: accepted
	}{
		{"", "", ""}, {"Ann Bö", "ann@example.com", ""}, {strings.Repeat("a", 1000), "", ""}, {strings.Repeat("a", 1001), "", "repo_config_name"},
		{"a\x00b", "", "repo_config_name"}, {"a\nb", "", "repo_config_name"}, {"Ann", "a\x00", "repo_config_email"},
		{"Ann", strings.Repeat("a", 1001), "repo_config_email"},
	} {
		err := gitrepo.Checkout{AuthorName: c.name, AuthorEmail: c.email}.CheckAuthor()
		if c.place == "" && err != nil {
			t.Errorf("%.20q: %v", c, err)
		} else if c.place != "" {
			expectError(t, err, dstack.Invalid, "repo_data."+c.place, "git config")
		}
	}
}
