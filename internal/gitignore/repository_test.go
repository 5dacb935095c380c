package gitignore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// worktree is a folder with a home beside it.
type worktree struct {
	testing.TB
	home, dir string
}

func newWorktree(t testing.TB, initArgs ...string) *worktree {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &worktree{t, filepath.Join(root, "home"), filepath.Join(root, "dir")}
	for _, dir := range []string{w.home, w.dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.git(append([]string{"init", "-q"}, initArgs...)...)
	return w
}

func (w *worktree) git(args ...string) string {
	w.Helper()
	return runGit(w.TB, w.home, w.dir, "", append([]string{"-c", "protocol.file.allow=always"}, args...)...)
}

// write writes files, whose names are relative to the working tree.
func (w *worktree) write(names ...string) {
	w.Helper()
	for _, name := range names {
		name, content, _ := strings.Cut(name, "=")
		writeFile(w.TB, filepath.Join(w.dir, name), content)
	}
}

// check compares the files of a folder with those that git lists, and with want.
func (w *worktree) check(dir string, want ...string) {
	w.Helper()
	got, notes := listFiles(w.TB, w.home, dir)
	if len(notes) > 0 {
		w.Errorf("notes %q", notes)
	}
	if byGit := listWithGit(w.TB, w.home, dir); !slices.Equal(got, byGit) {
		w.Errorf("got %q, git lists %q", got, byGit)
	}
	if !slices.Equal(got, want) {
		w.Errorf("got %q, want %q", got, want)
	}
}

func TestFolder_ReadsTheIndex(t *testing.T) {
	long := strings.Repeat("long/", 850) + "name"
	names := []string{"a.lock", "b.lock", "sub/c.lock", "sub/deep/d.lock", "a/b.lock"}
	for _, c := range []struct {
		name string
		init []string
		then [][]string
	}{
		{name: "version 2"},
		{name: "version 3", then: [][]string{{"add", "-f", "-N", "later.lock"}, {"update-index", "--skip-worktree", "a.lock"}}},
		{name: "version 4", then: [][]string{{"update-index", "--index-version", "4"}}},
		{name: "split", then: [][]string{{"update-index", "--split-index"}, {"rm", "-q", "--cached", "b.lock"}, {"add", "-f", "later.lock"}}},
		{name: "split, version 4", then: [][]string{{"update-index", "--index-version", "4", "--split-index"}, {"rm", "-q", "--cached", "sub/c.lock"}}},
		{name: "split, replaced", then: [][]string{{"update-index", "--split-index"}, {"update-index", "--chmod=+x", "a.lock"}, {"add", "-f", "later.lock"}}},
		{name: "sha256", init: []string{"--object-format=sha256"}},
		{name: "without a checksum", then: [][]string{{"-c", "index.skipHash=true", "update-index", "--force-write-index"}}},
		{name: "with a fsmonitor and an untracked cache", then: [][]string{{"-c", "core.untrackedCache=true", "update-index", "--untracked-cache"}}},
		{name: "conflicts", then: [][]string{{"commit", "-qm", "one"}, {"checkout", "-qb", "other"}, {"rm", "-q", "--cached", "a.lock"}, {"commit", "-qm", "two"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorktree(t, c.init...)
			w.write(names...)
			w.write("other.lock", "later.lock", ".gitignore=*.lock\n")
			w.git(append([]string{"add", "-f"}, names...)...)
			for _, args := range c.then {
				w.git(args...)
			}
			want := listWithGit(t, w.home, w.dir)
			if len(want) < 4 || slices.Contains(want, "other.lock") {
				t.Errorf("git lists %q", want)
			}
			w.check(w.dir, want...)
		})
	}
	t.Run("long names", func(t *testing.T) {
		content := indexWith(t, long)
		file, err := parseIndex(content, sha1Size)
		if err != nil || len(file.entries) != 1 || file.entries[0].name != long {
			t.Errorf("got %v", err)
		}
	})
}

// indexWith returns an index with a file of that name, made by git.
func indexWith(t testing.TB, name string) []byte {
	w := newWorktree(t)
	runGit(t, w.home, w.dir, "100644 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 0\t"+name+"\n", "update-index", "--add", "--index-info")
	content, err := os.ReadFile(filepath.Join(w.dir, ".git", "index"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestFolder_ReadsASparseIndex(t *testing.T) {
	w := newWorktree(t)
	w.write("in/a.lock", "out/b.lock", "c.lock", ".gitignore=*.lock\n")
	w.git("add", "-f", ".")
	w.git("commit", "-qm", "one")
	w.git("sparse-checkout", "set", "--cone", "--sparse-index", "in")
	w.write("in/other.lock")
	w.check(w.dir, ".gitignore", "c.lock", "in/a.lock")
}

// A split index holds an entry that has changed without its name.
func TestReadIndex_ReplacesEntriesOfASplitIndex(t *testing.T) {
	w := newWorktree(t)
	w.write("a", "lib", "z")
	w.git("add", ".")
	w.git("update-index", "--split-index")
	w.git("update-index", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",lib")
	got, err := readIndex(filepath.Join(w.dir, ".git"), settings{hashSize: sha1Size})
	if err != nil || !slices.Equal(got.names, []string{"a", "z"}) || !slices.Equal(got.submodules, []string{"lib"}) {
		t.Errorf("got %+v (%v)", got, err)
	}
}

// Without the index, ignored files are left out, and the user is told.
func TestFolder_NotesAnUnreadableIndex(t *testing.T) {
	for _, content := range []string{"DIRC", "XXXX0000000000000000000000000000000000000000", "DIRC\x00\x00\x00\x09" + strings.Repeat("0", 40)} {
		w := newWorktree(t)
		w.write("a.lock", "b", ".gitignore=*.lock\n", ".git/index="+content)
		got, notes := listFiles(t, w.home, w.dir)
		if want := []string{".gitignore", "b"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(notes) != 1 || !strings.Contains(notes[0], "the files that git tracks in "+w.dir+" cannot be read") {
			t.Errorf("notes %q", notes)
		}
	}
}

func TestFolder_ReadsExcludesFiles(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  []string // relative to the working tree
		config []string
	}{
		{name: "the default", files: []string{"../home/.config/git/ignore=*.x\n"}},
		{name: "~/.gitconfig", files: []string{"../home/.gitconfig=[core]\n\texcludesFile = ~/my ignore\n", "../home/my ignore=*.x\n"}},
		{name: "~/.config/git/config", files: []string{"../home/.config/git/config=[Core]\nExcludesFile=\"~/i\"\n", "../home/i=*.x\n"}},
		{name: "the repository's", config: []string{"core.excludesFile", "my/ignored"}, files: []string{"my/ignored=*.x\n"}},
		{name: "the later one wins", config: []string{"core.excludesFile", "~/two"},
			files: []string{"../home/.gitconfig=[core]\nexcludesFile = ~/one\n", "../home/one=*\n", "../home/two=*.x\n"}},
		{name: "info/exclude comes after it", files: []string{"../home/.config/git/ignore=*.x\n*.y\n", ".git/info/exclude=!*.y\n"}},
		{name: "included", files: []string{"../home/.gitconfig=[include]\n\tpath = .work/config\n",
			"../home/.work/config=[core]\nexcludesFile = ~/.work/ignored\n", "../home/.work/ignored=*.x\n"}},
		{name: "included by folder", files: []string{"../home/.gitconfig=[includeIf \"gitdir:**/dir/\"]\n\tpath = ~/w\n",
			"../home/w=[core]\nexcludesFile = ~/i\n", "../home/i=*.x\n"}},
		{name: "included by folder and case", files: []string{"../home/.gitconfig=[includeIf \"gitdir/i:DIR/.GIT\"]\n\tpath = ~/w\n",
			"../home/w=[core]\nexcludesFile = ~/i\n", "../home/i=*.x\n"}},
		{name: "not included by folder", files: []string{"../home/.gitconfig=[includeIf \"gitdir:~/\"]\n\tpath = ~/w\n",
			"../home/w=[core]\nexcludesFile = ~/i\n", "../home/i=*\n", ".gitignore=*.x\n"}},
		{name: "included by branch", files: []string{"../home/.gitconfig=[includeIf \"onbranch:fea/**\"]\n\tpath = ~/w\n",
			"../home/w=[core]\nexcludesFile = ~/i\n", "../home/i=*.x\n", ".git/HEAD=ref: refs/heads/fea/a/b\n"}},
		{name: "none", config: []string{"core.excludesFile", ""}, files: []string{"../home/.config/git/ignore=*\n", ".gitignore=*.x\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorktree(t)
			w.write(append(c.files, "a.x", "a.y")...)
			if c.config != nil {
				w.git(append([]string{"config"}, c.config...)...)
			}
			got, notes := listFiles(t, w.home, w.dir)
			if want := listWithGit(t, w.home, w.dir); !slices.Equal(got, want) || slices.Contains(want, "a.x") || !slices.Contains(want, "a.y") {
				t.Errorf("got %q, git lists %q", got, want)
			}
			if len(notes) > 0 {
				t.Errorf("notes %q", notes)
			}
		})
	}
}

func TestFolder_ReadsTheConfigurationThatVariablesName(t *testing.T) {
	w := newWorktree(t)
	w.write("a.x", "b.y", "../sys=[core]\nexcludesFile = ~/i\n", "../glob=[core]\nignoreCase = true\n", "../home/i=*.X\n",
		"../home/.gitconfig=[core]\nexcludesFile = ~/unused\n")
	env := Environment{Home: w.home, Getenv: func(name string) string {
		return map[string]string{"GIT_CONFIG_SYSTEM": w.dir + "/../sys", "GIT_CONFIG_GLOBAL": w.dir + "/../glob"}[name]
	}}
	folder, err := OpenFolder(w.dir, env)
	if err != nil {
		t.Fatal(err)
	}
	if got := listFolder(t, folder, w.dir, ""); !slices.Equal(got, []string{"b.y"}) {
		t.Errorf("got %q", got)
	}
}

func TestFolder_NotesWhatItCannotRead(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{"[includeIf \"hasconfig:remote.*.url:x\"]\n\tpath = ~/w\n", `dstack does not know the condition "hasconfig:remote.*.url:x"`},
		{"[core]\n\texcludesFile = ~other/i\n", "the path ~other/i in git's configuration is not used"},
		{"[core\n", ".gitconfig cannot be read: line 2 is no section"},
		{"[include]\npath = ~/.gitconfig\n", "include each other too often"},
	} {
		w := newWorktree(t)
		w.write("../home/.gitconfig="+c.config, "../home/w=[core]\nexcludesFile = ~/i\n")
		if _, notes := listFiles(t, w.home, w.dir); len(notes) != 1 || !strings.Contains(notes[0], c.want) {
			t.Errorf("%q: notes %q", c.config, notes)
		}
	}
	w := newWorktree(t)
	w.write("rules=*\n", "sub/a")
	if err := os.Symlink("../rules", filepath.Join(w.dir, "sub", ".gitignore")); err != nil {
		t.Fatal(err)
	}
	got, notes := listFiles(t, w.home, w.dir)
	if len(got) != 3 || len(notes) != 1 || notes[0] != "sub/.gitignore is a symbolic link; git and dstack do not read it" {
		t.Errorf("got %q, notes %q", got, notes)
	}
}

func TestFolder_InOtherWorkingTrees(t *testing.T) {
	main := newWorktree(t)
	main.write("a.lock", "b.lock", "c.txt", ".gitignore=*.lock\n")
	main.git("add", "-f", "a.lock", ".gitignore")
	main.git("commit", "-qm", "one")
	main.write(".git/info/exclude=*.txt\n")
	main.git("worktree", "add", "-q", "../second")
	second := &worktree{t, main.home, filepath.Join(main.dir, "..", "second")}
	second.dir = filepath.Clean(second.dir)
	second.write("b.lock", "c.txt", "d.lock", "e.x", "f")
	second.git("add", "-f", "d.lock")
	second.check(second.dir, ".gitignore", "a.lock", "d.lock", "e.x", "f")
	second.git("config", "extensions.worktreeConfig", "true")
	second.git("config", "--worktree", "core.excludesFile", "~/of-second")
	second.write("../home/of-second=*.x\n")
	second.check(second.dir, ".gitignore", "a.lock", "d.lock", "f")
	main.write("e.x")
	main.check(main.dir, ".gitignore", "a.lock", "e.x")
}

// What is in a submodule is listed as git lists it there.
func TestFolder_InSubmodules(t *testing.T) {
	lib := newWorktree(t)
	lib.write("lib.c", "lib.lock", ".gitignore=*.o\n*.lock\n")
	lib.git("add", "-f", ".")
	lib.git("commit", "-qm", "one")
	w := newWorktree(t)
	w.write("main.c", ".gitignore=*.c\n/ignored/\n")
	w.git("submodule", "--quiet", "add", lib.dir, "vendor/lib")
	w.git("submodule", "--quiet", "add", "--force", lib.dir, "ignored/lib")
	w.write("vendor/lib/new.c", "vendor/lib/new.o", "ignored/other")
	want := []string{".gitignore", ".gitmodules", "ignored/lib/.gitignore", "ignored/lib/lib.c", "ignored/lib/lib.lock",
		"vendor/lib/.gitignore", "vendor/lib/lib.c", "vendor/lib/lib.lock", "vendor/lib/new.c"}
	w.check(w.dir, want...)
	w.check(filepath.Join(w.dir, "vendor", "lib"), ".gitignore", "lib.c", "lib.lock", "new.c")
}

func TestFolder_InNestedRepositories(t *testing.T) {
	w := newWorktree(t)
	w.write(".gitignore=*.log\n/ignored/\n", "nested/a.log", "nested/b.o", "nested/.gitignore=*.o\n", "ignored/nested/c", "odd/.git/HEAD", "odd/d")
	runGit(t, w.home, filepath.Join(w.dir, "nested"), "", "init", "-q")
	runGit(t, w.home, filepath.Join(w.dir, "ignored", "nested"), "", "init", "-q")
	w.check(w.dir, ".gitignore", "nested/.gitignore", "nested/a.log", "odd/d")
}

func TestFolder_OutsideOfARepository(t *testing.T) {
	home, dir := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{"a.log": "", "b": "", "sub/.gitignore": "b\n", "sub/b": "", "sub/c": "", ".gitignore": "*.log\n", ".DS_Store": ""} {
		writeFile(t, filepath.Join(dir, name), content)
	}
	writeFile(t, filepath.Join(home, ".config", "git", "ignore"), ".DS_Store\n")
	got, notes := listFiles(t, home, dir)
	if want := []string{".gitignore", "b", "sub/.gitignore", "sub/c"}; !slices.Equal(got, want) || len(notes) > 0 {
		t.Errorf("got %q, want %q, notes %q", got, want, notes)
	}
}

// Who applies in an ignored folder means its files.
func TestFolder_ThatIsIgnoredItself(t *testing.T) {
	for _, c := range []struct{ rules, note string }{
		{"/build/\n*.log\n", "git ignores build;"},
		{"*\n!.bashrc\n*.log\n", "git ignores build;"}, // a home folder with a repository for its settings
		{"build/*\n*.log\n", "git ignores build/app;"},
		{"**/app\n/build/**\n!*\n*.log\napp/\n", "git ignores build/app;"},
	} {
		w := newWorktree(t)
		w.write(".gitignore="+c.rules, "build/app/a", "build/app/b.log", "build/app/sub/c", "build/app/.gitignore=d\n", "build/app/d")
		got, notes := listFiles(t, w.home, filepath.Join(w.dir, "build", "app"))
		if !slices.Equal(got, []string{".gitignore", "a", "sub/c"}) || len(notes) != 1 || !strings.HasPrefix(notes[0], c.note) {
			t.Errorf("%q: got %q, notes %q", c.rules, got, notes)
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add(indexWith(f, "a/b"), true)
	f.Add([]byte("DIRC\x00\x00\x00\x04\x00\x00\x00\x01"), false)
	f.Fuzz(func(_ *testing.T, content []byte, isSHA1 bool) {
		size := sha256Size
		if isSHA1 {
			size = sha1Size
		}
		_, _ = parseIndex(content, size) // no panic
	})
}
