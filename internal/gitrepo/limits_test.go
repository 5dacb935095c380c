package gitrepo_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
	"dstack/internal/gitrepo/gittest"
)

// makeTree writes a tree into the clone, which has one entry for each line of ls-tree.
func makeTree(r *rig, lines ...string) (tree string) {
	r.t.Helper()
	cmd := exec.Command("git", "mktree")
	cmd.Dir, cmd.Env, cmd.Stdin = r.repo.Clone, gittest.Environ(), strings.NewReader(strings.Join(lines, "\n"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git mktree: %v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func pushCommitOf(r *rig, tree string) (hash string) {
	r.t.Helper()
	hash = r.repo.Git("commit-tree", "-m", "tree", tree)
	r.repo.Git("push", "--quiet", "--force", "origin", hash+":refs/heads/main")
	return hash
}

// newBomb returns a tree with width to the power of depth entries, of a few bytes. Its last
// entries are empty folders or the file app.txt.
func newBomb(r *rig, width, depth int, isEmpty bool) (tree string) {
	r.t.Helper()
	line := "100644 blob " + r.repo.Git("rev-parse", "HEAD:app.txt")
	if isEmpty {
		line = "040000 tree " + makeTree(r)
	}
	for range depth {
		var lines []string
		for i := range width {
			lines = append(lines, fmt.Sprintf("%s\tf%d", line, i))
		}
		tree = makeTree(r, lines...)
		line = "040000 tree " + tree
	}
	return tree
}

func foldersOf(r *rig) []string {
	folders, _ := filepath.Glob(filepath.Join(r.dir, "commits", "*", "*", "*"))
	return folders
}

// A commit of a few bytes can stand for very many files.
func TestFetch_RefusesFewBytesThatStandForMany(t *testing.T) {
	for _, c := range []struct {
		name, limit string
		tree        func(r *rig) string
	}{
		{"files", "100000 files and folders", func(r *rig) string { return newBomb(r, 10, 9, false) }},
		{"folders without files", "100000 files and folders", func(r *rig) string { return newBomb(r, 10, 9, true) }},
		{"zeros", "is larger than 10MB", func(r *rig) string {
			file := filepath.Join(t.TempDir(), "zeros")
			if err := os.WriteFile(file, make([]byte, 11<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			return makeTree(r, "100644 blob "+r.repo.Git("hash-object", "-w", "--no-filters", file)+"\tzeros")
		}},
		{"a path", "a path has more than 4096 bytes", func(r *rig) string {
			return makeTree(r, "100644 blob "+r.repo.Git("rev-parse", "HEAD:app.txt")+"\t"+strings.Repeat("a", 5000))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(o *gitrepo.Options) { o.MaxFolderBytes = 10 << 20 })
			good := r.repo.Head()
			hash := pushCommitOf(r, c.tree(r))
			for range 2 { // the second must not find it complete
				expectError(t, r.cache.Fetch(t.Context(), r.source(), onMain(hash)), dstack.TooLarge, c.limit, "Git LFS")
			}
			r.repo.Git("push", "--quiet", "--force", "origin", good+":refs/heads/main")
			r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(good)})
		})
	}
}

func TestFetch_AcceptsCommitsAtTheLimits(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.MaxFolderBytes, o.MaxFolderEntries = 4+100, 3 })
	hash := r.repo.Push(map[string]string{"src/a.txt": strings.Repeat("a", 100)})
	r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
	hash = r.repo.Push(map[string]string{"src/a.txt": strings.Repeat("a", 101)})
	expectError(t, r.cache.Fetch(t.Context(), r.source(), onMain(hash)), dstack.TooLarge, "is larger than 104B", "Git LFS")
}

// Each commit is below the limit of one, and all of them together are not.
func TestFetch_LimitsTheSizeOfAllCommitsOfAUser(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.MaxRepositoryBytes = 1 << 20 })
	for i := range 4 {
		hash := r.repo.Push(map[string]string{fmt.Sprintf("%d.bin", i): randomText(600 << 10), fmt.Sprintf("%d.bin", i-1): ""})
		if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		if size := sizeOf(t, foldersOf(r)[0]); size > 1400<<10 {
			t.Errorf("after commit %d the folder has %d bytes", i, size)
		}
	}
}

// A failed fetch may leave something, too.
func TestFetch_KeepsNothingTooLargeAfterAFailure(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.MaxBytes, o.MaxFolderBytes = 300<<10, 150<<10 })
	hash := r.repo.Push(map[string]string{"big.bin": randomText(140 << 10)})
	for _, user := range []dstack.UserID{"a", "b"} {
		s := r.source()
		s.User = user
		if err := r.cache.Fetch(t.Context(), s, onMain(hash)); err != nil {
			t.Fatal(err)
		}
	}
	hash = r.repo.Push(map[string]string{"big.bin": randomText(200 << 10)})
	for _, user := range []dstack.UserID{"c", "d", "e"} {
		s := r.source()
		s.User = user
		expectError(t, r.cache.Fetch(t.Context(), s, onMain(hash)), dstack.TooLarge, "is larger than", "Git LFS")
	}
	if size := sizeOf(t, r.dir); size > 500<<10 {
		t.Errorf("%d bytes are kept", size)
	}
}

// The history of a branch is of no use if the commit is not in it.
func TestFetch_KeepsNoBranchWithoutItsCommit(t *testing.T) {
	r := newRig(t)
	r.host.IsOld = true
	r.repo.Push(map[string]string{"big.bin": randomText(500 << 10)})
	gone := gitrepo.Commit{Hash: strings.Repeat("0", 39) + "1", Branch: "main"}
	expectError(t, r.cache.Fetch(t.Context(), r.source(), gone), dstack.NotFound, "has no commit", "push it")
	if size := sizeOf(t, r.dir); size > 100<<10 {
		t.Errorf("%d bytes are kept", size)
	}
}

// The commit may have been removed between the fetch and the check, to make space.
func TestCheckDiff_FetchesACommitThatWasRemoved(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Head()
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	if err := r.cache.Forget(t.Context(), "project", "app-12345678"); err != nil {
		t.Fatal(err)
	}
	r.repo.Write(map[string]string{"app.txt": "two\n"})
	checkout := gitrepo.Checkout{Commit: onMain(hash), Diff: strings.NewReader(r.repo.Diff())}
	if err := r.cache.CheckDiff(t.Context(), r.source(), checkout); err != nil {
		t.Error(err)
	}
}

// fakeGit puts a script git first into the PATH. It answers git version as the present one.
func fakeGit(t *testing.T, version, script string) {
	t.Helper()
	dir := t.TempDir()
	text := "#!/bin/sh\nif [ \"$1\" = version ]; then echo '" + version + "'; exit; fi\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// The changes can be larger than the commit, which was checked.
func TestOpenFolder_LimitsTheSizeOfTheFolder(t *testing.T) {
	r := newRig(t)
	checkout := gitrepo.Checkout{Commit: onMain(r.repo.Head())}
	if err := r.cache.Fetch(t.Context(), r.source(), checkout.Commit); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	fakeGit(t, "git version 2.39.5", "[ \"$1\" = checkout ] && head -c 4000000 /dev/zero >big && sleep 20\nexec "+program+" \"$@\"")
	r.cache = r.newCache(func(o *gitrepo.Options) { o.MaxRepositoryBytes, o.MaxFolderBytes = 1<<20, 1<<20 })
	began := time.Now()
	_, err = r.unpack(r.source(), checkout)
	expectError(t, err, dstack.TooLarge, "is larger than 2MB, with the uploaded changes", "Git LFS")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if size := sizeOf(t, filepath.Join(r.dir, "tmp")); size != 0 {
		t.Errorf("%d bytes are left", size)
	}
}

func TestOpenFolder_LimitsTheTime(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Head()
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	r.repo.Write(map[string]string{"app.txt": "two\n"})
	r.cache = r.newCache(func(o *gitrepo.Options) { o.FetchTimeout = time.Nanosecond })
	_, err := r.unpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
	expectError(t, err, dstack.Timeout, "takes too long", "init --local")
	err = r.cache.CheckDiff(t.Context(), r.source(), gitrepo.Checkout{Commit: onMain(hash), Diff: strings.NewReader(r.repo.Diff())})
	expectError(t, err, dstack.Timeout, "takes too long", "init --local")
}

// Older versions ignore the address that the server checked.
func TestCheckReachable_RefusesAnOldGit(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ version, message string }{
		{"git version 2.36.6", "the server's git is version 2.36.6; version 2.37 or later is needed"},
		{"git version 1.99.0", "version 1.99.0;"},
		{"hello", "version hello;"},
	} {
		fakeGit(t, c.version, "exit 0")
		expectError(t, r.cache.CheckReachable(t.Context(), r.source()), dstack.Unsupported, c.message, "install git")
	}
	for _, version := range []string{"git version 2.37.0", "git version 2.37.1.windows.1", "git version 2.50.1 (Apple Git-155)", "git version 3.0.0-rc0"} {
		fakeGit(t, version, "exit 0")
		if err := r.cache.CheckReachable(t.Context(), r.source()); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// git can die without the programs that it has started.
func TestCheckReachable_EndsTheProgramsThatADeadGitLeft(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "pid")
	fakeGit(t, "git version 2.39.5", "sleep 60 & echo $! >"+file+"; echo 'fatal: repository not found' >&2; exit 128")
	began := time.Now()
	expectError(t, r.cache.CheckReachable(t.Context(), r.source()), dstack.NotFound, "there is no repository", "get-url")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(readFile(t, filepath.Dir(file), "pid")))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); isRunning(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the program that git started is still running")
		}
	}
}

// isRunning reports whether a process exists, other than as a zombie of whoever adopted it.
func isRunning(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func sizeOf(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		size += info.Size()
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return size
}
