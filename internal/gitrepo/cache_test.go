package gitrepo_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
)

func TestFetch_OnceForAllReplicas(t *testing.T) {
	r := newRig(t)
	hash := r.repo.Head()
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	before := r.host.Requests.Load()
	r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
	r.cache = r.newCache() // as after a restart of the server
	r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
	if after := r.host.Requests.Load(); after != before {
		t.Errorf("%d more requests, want none", after-before)
	}
}

func TestFetch_SharesNothingBetweenUsers(t *testing.T) {
	r := newRig(t)
	r.host.Token = "s3cret"
	hash := r.repo.Head()
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*gitrepo.Source){
		"user":    func(s *gitrepo.Source) { s.User = "bob" },
		"repo":    func(s *gitrepo.Source) { s.Repo = "other" },
		"project": func(s *gitrepo.Source) { s.Project = "other" },
	} {
		other := r.source()
		other.Token = ""
		change(&other)
		if dir, err := r.unpack(other, gitrepo.Checkout{Commit: onMain(hash)}); dstack.KindOf(err) != dstack.Unauthorized {
			t.Errorf("another %s got %q, %v", name, dir, err)
		}
	}
}

func TestFetch_MissingCommits(t *testing.T) {
	for name, isOld := range map[string]bool{"present hosts": false, "hosts without version 2 of the protocol": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.host.IsOld = isOld
			first := r.repo.Head()
			notPushed := r.repo.Commit(map[string]string{"app.txt": "local\n"})
			expectError(t, r.cache.Fetch(t.Context(), r.source(), onMain(notPushed)), dstack.NotFound, "has no commit "+notPushed[:12], "push it")

			r.repo.Git("reset", "--quiet", "--hard", first)
			r.repo.Git("commit", "--quiet", "--amend", "--message", "rewritten")
			r.repo.Git("push", "--quiet", "--force", "origin", "main")
			r.repo.GitBare("reflog", "expire", "--expire=now", "--all")
			r.repo.GitBare("gc", "--quiet", "--prune=now")
			expectError(t, r.cache.Fetch(t.Context(), r.source(), onMain(first)), dstack.NotFound, "the branch main was rewritten", "git fetch")
			if err := r.cache.Fetch(t.Context(), r.source(), onMain(r.repo.Head())); err != nil {
				t.Errorf("the rewritten branch: %v", err)
			}

			r.repo.Git("push", "--quiet", "origin", "main:other")
			r.repo.GitBare("update-ref", "-d", "refs/heads/main")
			gone := gitrepo.Commit{Hash: strings.Repeat("0", 39) + "1", Branch: "main"}
			expectError(t, r.cache.Fetch(t.Context(), r.source(), gone), dstack.NotFound, "has no commit", "push it")
		})
	}
}

// An old host gives out the tips of branches only: then the whole branch is fetched.
func TestFetch_CommitBehindTheTipOfAnOldHost(t *testing.T) {
	r := newRig(t)
	r.host.IsOld = true
	first := r.repo.Head()
	second := r.repo.Push(map[string]string{"app.txt": "two\n"})
	r.repo.Push(map[string]string{"app.txt": "three\n"})
	for hash, want := range map[string]string{first: "one\n", second: "two\n", r.repo.Head(): "three\n"} {
		dir := r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(hash)})
		if got := readFile(t, dir, "app.txt"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := git(t, dir, "rev-list", "--count", "HEAD"); got != "1" {
			t.Errorf("the folder has %s commits", got)
		}
	}
}

func TestCheckReachable_SaysWhyNot(t *testing.T) {
	r := newRig(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	_ = free.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case strings.HasPrefix(q.URL.Path, "/moved"):
			http.Redirect(w, q, r.url+"/info/refs?service=git-upload-pack", http.StatusMovedPermanently)
		case strings.HasPrefix(q.URL.Path, "/403"):
			http.Error(w, "no", http.StatusForbidden)
		case strings.HasPrefix(q.URL.Path, "/500"):
			http.Error(w, "no", http.StatusInternalServerError)
		default:
			_, _ = w.Write([]byte("<html>\x1b]0;evil\x07hello"))
		}
	}))
	defer broken.Close()
	for _, c := range []struct {
		name    string
		change  func(*gitrepo.Source)
		kind    dstack.Kind
		message string
		hint    string
	}{
		{"nobody listens", func(s *gitrepo.Source) { s.URL = "http://" + closed + "/a/b" }, dstack.Unavailable, "its host cannot be reached", "network of the server"},
		{"no such host", func(s *gitrepo.Source) { s.URL = "https://git.invalid/a/b" }, dstack.Unavailable, "git.invalid", "network of the server"},
		{"no such repository", func(s *gitrepo.Source) { s.URL += "x" }, dstack.NotFound, "there is no repository at its URL", "remote get-url"},
		{"no repository", func(s *gitrepo.Source) { s.URL = broken.URL + "/page/x" }, dstack.NotFound, "there is no repository at ", "remote get-url"},
		{"forbidden", func(s *gitrepo.Source) { s.URL = broken.URL + "/403/x" }, dstack.Unauthorized, "refuses these credentials", "--token"},
		{"a failing host", func(s *gitrepo.Source) { s.URL = broken.URL + "/500/x" }, dstack.Unavailable, "cannot be reached", "init --local"},
		{"moved", func(s *gitrepo.Source) { s.URL = broken.URL + "/moved/x" }, dstack.NotFound, "it has moved", "set-url"},
		{"the server's own machine", func(s *gitrepo.Source) { s.MayUseLoopback = false }, dstack.Invalid, "only global admins", "init --local"},
		{"any address", func(s *gitrepo.Source) { s.URL = "http://0.0.0.0/a/b" }, dstack.Invalid, "0.0.0.0", "init --local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := r.source()
			c.change(&s)
			err := r.cache.CheckReachable(t.Context(), s)
			expectError(t, err, c.kind, c.message, c.hint)
			if strings.ContainsAny(err.Error(), "\x1b\x07\n") {
				t.Errorf("control characters in %q", err)
			}
		})
	}
	if err := r.cache.CheckReachable(t.Context(), r.source()); err != nil {
		t.Errorf("a repository that can be read: %v", err)
	}
}

func TestCheckReachable_HostThatDoesNotAnswer(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.CheckTimeout = 300 * time.Millisecond })
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := r.source()
	s.URL = "http://" + silent.Addr().String() + "/a/b"
	began := time.Now()
	expectError(t, r.cache.CheckReachable(t.Context(), s), dstack.Timeout, "takes too long", "network of the server")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestFetch_StopsWithItsCaller(t *testing.T) {
	r := newRig(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := r.source()
	s.URL = "http://" + silent.Addr().String() + "/a/b"
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, context.Canceled)
	defer cancel()
	if err := r.cache.Fetch(ctx, s, onMain(r.repo.Head())); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(r.repo.Head())); err != nil {
		t.Errorf("the next fetch: %v", err)
	}
}

// A user whose repositories do not answer must not keep others from theirs, and the time in
// which nobody looks at a repository does not count as its own.
func TestCheckReachable_OneUserCannotHoldAllSlots(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.CheckTimeout = 2 * time.Second })
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	slow := r.source()
	slow.User, slow.URL = "mallory", "http://"+silent.Addr().String()+"/a/b"
	results := make(chan error, 8)
	var callers sync.WaitGroup
	for range cap(results) {
		callers.Go(func() { results <- r.cache.CheckReachable(t.Context(), slow) })
	}
	time.Sleep(500 * time.Millisecond) // they have come first
	began := time.Now()
	if err := r.cache.CheckReachable(t.Context(), r.source()); err != nil || time.Since(began) > time.Second {
		t.Errorf("another user waited %s and got %v", time.Since(began), err)
	}
	callers.Wait()
	close(results)
	kinds := map[dstack.Kind]int{}
	for err := range results {
		kinds[dstack.KindOf(err)]++
		if dstack.KindOf(err) == dstack.Unavailable {
			expectError(t, err, dstack.Unavailable, "the server is busy reading other repositories", "try again")
		}
	}
	if kinds[dstack.Timeout] < 2 || kinds[dstack.Unavailable] < 4 {
		t.Errorf("the slow ones got %v", kinds)
	}
}

func TestFetch_LimitsTheSize(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.MaxRepositoryBytes = 1 << 20 })
	gate := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.host.ServeHTTP(&slowWriter{ResponseWriter: w, gate: gate}, q)
	}))
	defer slow.Close()
	defer close(gate)
	hash := r.repo.Push(map[string]string{"big.bin": randomText(8 << 20)})
	s := r.source()
	s.URL = slow.URL + r.repo.Path
	expectError(t, r.cache.Fetch(t.Context(), s, onMain(hash)), dstack.TooLarge, "is larger than 1MB", "Git LFS")
}

// slowWriter stops after 4 MiB until the gate opens, so that a look at the size happens.
type slowWriter struct {
	http.ResponseWriter
	gate    chan struct{}
	written int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.written += len(p); w.written > 4<<20 {
		<-w.gate
	}
	n, err := w.ResponseWriter.Write(p)
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	return n, err
}

func TestFetch_KeepsAtMostMaxBytes(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.MaxBytes = 300 << 10 })
	hash := r.repo.Push(map[string]string{"big.bin": randomText(100 << 10)})
	for _, user := range []dstack.UserID{"a", "b", "c", "d", "e"} {
		s := r.source()
		s.User = user
		if err := r.cache.Fetch(t.Context(), s, onMain(hash)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // the file system's clock
	}
	folders, _ := filepath.Glob(filepath.Join(r.dir, "commits", "*", "*", "*"))
	if len(folders) == 0 || len(folders) > 2 {
		t.Errorf("%d folders are kept", len(folders))
	}
	last := r.source()
	last.User = "e"
	before := r.host.Requests.Load()
	r.mustUnpack(last, gitrepo.Checkout{Commit: onMain(hash)})
	if r.host.Requests.Load() != before {
		t.Error("the last used was removed")
	}
}

func TestForget_RemovesWhatWasFetched(t *testing.T) {
	r := newRig(t)
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(r.repo.Head())); err != nil {
		t.Fatal(err)
	}
	if err := r.cache.Forget(t.Context(), "project", "other", "app-12345678"); err != nil {
		t.Fatal(err)
	}
	if folders, _ := filepath.Glob(filepath.Join(r.dir, "commits", "*", "*", "*")); len(folders) != 0 {
		t.Errorf("left: %v", folders)
	}
	if err := r.cache.Forget(t.Context(), "project", "app-12345678"); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestForgetProject_RemovesAllRepos(t *testing.T) {
	r := newRig(t)
	for _, repo := range []string{"a", "b"} {
		for _, project := range []dstack.ProjectID{"gone", "kept"} {
			s := r.source()
			s.Project, s.Repo = project, repo
			if err := r.cache.Fetch(t.Context(), s, onMain(r.repo.Head())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.cache.ForgetProject(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if folders := foldersOf(r); len(folders) != 2 {
		t.Errorf("left: %v", folders)
	}
}

// A folder is removed only once nobody fetches into it.
func TestForget_WaitsForAFetch(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.CheckTimeout, o.FetchTimeout = 300*time.Millisecond, 2*time.Second })
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := r.source()
	s.URL = "http://" + silent.Addr().String() + "/a/b"
	var fetch sync.WaitGroup
	fetch.Go(func() { _ = r.cache.Fetch(t.Context(), s, onMain(r.repo.Head())) })
	for deadline := time.Now().Add(5 * time.Second); len(foldersOf(r)) == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := r.cache.Forget(t.Context(), "project", "app-12345678"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("during the fetch: %v", err)
	}
	if len(foldersOf(r)) != 1 {
		t.Error("the folder was removed while git used it")
	}
	fetch.Wait()
	if err := r.cache.Forget(t.Context(), "project", "app-12345678"); err != nil || len(foldersOf(r)) != 0 {
		t.Errorf("after the fetch: %v, %v", err, foldersOf(r))
	}
}

func TestNew_RemovesWhatAKilledProcessLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repos")
	left := filepath.Join(dir, "tmp", "work-1", "secret")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := gitrepo.New(gitrepo.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("it is still there")
	}
}

// A process that was replaced finishes what it began.
func TestNew_LeavesWhatALivingProcessUses(t *testing.T) {
	r := newRig(t)
	stream, err := r.cache.OpenFolder(t.Context(), r.source(), gitrepo.Checkout{Commit: onMain(r.repo.Head())})
	if err != nil {
		t.Fatal(err)
	}
	next := r.newCache()
	dir := t.TempDir()
	unpackTar(t, dir, stream)
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if got := git(t, dir, "status", "--porcelain"); got != "" {
		t.Errorf("the folder lacks files: %s", got)
	}
	r.cache = next
	r.mustUnpack(r.source(), gitrepo.Checkout{Commit: onMain(r.repo.Head())})
}

// A process that was killed while git held a lock leaves the lock file behind.
func TestFetch_AfterAKilledFetch(t *testing.T) {
	r := newRig(t)
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(r.repo.Head())); err != nil {
		t.Fatal(err)
	}
	folders, _ := filepath.Glob(filepath.Join(r.dir, "commits", "*", "*", "*"))
	for _, name := range []string{"shallow.lock", "config.lock", "packed-refs.lock"} {
		if err := os.WriteFile(filepath.Join(folders[0], name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash := r.repo.Push(map[string]string{"app.txt": "two\n"})
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Errorf("%v (%v)", err, errors.Unwrap(err))
	}
}
