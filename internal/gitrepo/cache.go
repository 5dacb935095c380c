// Package gitrepo reads git repositories with the program git: it checks that a repository
// can be reached, fetches single commits of it into a folder of the server, and makes the
// working folders of runs of them. The server fetches a commit once, before the run is
// submitted; its replicas start without the network and without the credentials.
package gitrepo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// Options configures a Cache. Dir is required.
type Options struct {
	Dir string // of the server, for the fetched commits
	Log *slog.Logger

	// MaxRepositoryBytes limits what is fetched of one repository, and MaxBytes what is
	// kept of all. Zero stands for the defaults.
	MaxRepositoryBytes, MaxBytes int64

	CheckTimeout, FetchTimeout time.Duration // zero: the defaults
}

const (
	defaultMaxRepositoryBytes = 2 << 30
	defaultMaxBytes           = 8 << 30
	defaultCheckTimeout       = 20 * time.Second
	defaultFetchTimeout       = 10 * time.Minute
	maxFetches                = 4 // at once
	maxCommits                = 50
)

// Cache holds the commits that were fetched. Each user of a project has copies of their
// own, because the credentials of one user must not show another what they can read. It is
// safe for concurrent use by one process.
type Cache struct {
	opts    Options
	dir     string
	fetches *semaphore.Weighted

	mu    sync.Mutex
	locks map[string]*folderLock
}

type folderLock struct {
	holder chan struct{} // of capacity 1; full: held
	users  int
}

// New returns a cache in the folder o.Dir. It removes what an earlier process was
// preparing when it was killed.
func New(o Options) (*Cache, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.MaxRepositoryBytes, defaultMaxRepositoryBytes)
	setDefault(&o.MaxBytes, defaultMaxBytes)
	setDefault(&o.CheckTimeout, defaultCheckTimeout)
	setDefault(&o.FetchTimeout, defaultFetchTimeout)
	c := &Cache{opts: o, dir: o.Dir, fetches: semaphore.NewWeighted(maxFetches), locks: map[string]*folderLock{}}
	if err := os.RemoveAll(c.tempDir()); err != nil {
		return nil, err
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Cache) tempDir() string { return filepath.Join(c.dir, "tmp") }

// makeDirs creates the folders that every command needs.
func (c *Cache) makeDirs() error {
	if err := os.MkdirAll(c.tempDir(), 0o700); err != nil {
		return fmt.Errorf("cannot use the folder of repositories: %w", err)
	}
	return nil
}

// folderOf returns the folder of what a user may read of a repo.
func (c *Cache) folderOf(s Source) string {
	return filepath.Join(c.dir, "commits", hashName(string(s.Project)), hashName(s.Repo), hashName(string(s.User)))
}

// hashName returns a name for a folder that no other text gets.
func hashName(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// CheckReachable returns an error for users if the source cannot be read.
func (c *Cache) CheckReachable(ctx context.Context, s Source) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.CheckTimeout)
	defer cancel()
	_, err := c.runRemote(ctx, s, gitCommand{args: []string{"ls-remote", "--quiet", "--exit-code", "--", s.URL, "HEAD", "refs/heads/*"}})
	if failed, ok := errors.AsType[*gitError](err); ok && failed.text == "" { // any page is a repository without branches
		return &dstack.Error{Kind: dstack.NotFound, Message: "there is no repository at " + s.URL + ", or it has no branches",
			Hint: "check its URL: git remote get-url origin; and push to it", Cause: err}
	}
	return explainFailure(err, s.URL)
}

// runRemote runs a command that reads a source.
func (c *Cache) runRemote(ctx context.Context, s Source, command gitCommand) (string, error) {
	if err := c.fetches.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer c.fetches.Release(1)
	if err := c.makeDirs(); err != nil {
		return "", err
	}
	a, err := c.openAccess(ctx, s)
	if err != nil {
		return "", err
	}
	defer a.close()
	command.access = a
	return runGit(ctx, command)
}

// runLocal runs a command that uses no network.
func (c *Cache) runLocal(ctx context.Context, command gitCommand) (string, error) {
	if err := c.makeDirs(); err != nil {
		return "", err
	}
	a, err := c.openLocalAccess()
	if err != nil {
		return "", err
	}
	defer a.close()
	command.access = a
	return runGit(ctx, command)
}

// Fetch fetches a commit of a source, unless it has been fetched before.
func (c *Cache) Fetch(ctx context.Context, s Source, commit Commit) error {
	if err := commit.Check(); err != nil {
		return err
	}
	unlock, err := c.lock(ctx, c.folderOf(s))
	if err != nil {
		return err
	}
	defer unlock()
	return c.fetchLocked(ctx, s, commit)
}

// refOf is the name under which a fetched commit is kept. It exists only once the commit is
// complete.
func refOf(commit Commit) string { return "refs/dstack/" + commit.Hash }

func (c *Cache) fetchLocked(ctx context.Context, s Source, commit Commit) error {
	folder := c.folderOf(s)
	if c.hasCommit(ctx, folder, commit) {
		now := time.Now()
		return os.Chtimes(folder, now, now)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.FetchTimeout)
	defer cancel()
	if err := c.prepareFolder(ctx, folder); err != nil {
		return err
	}
	ctx, stop := c.limitSize(ctx, folder, s)
	defer stop()
	_, err := c.runRemote(ctx, s, fetchCommand(folder, s.URL, "--depth=1", "+"+commit.Hash+":"+refOf(commit)))
	if failed, ok := errors.AsType[*gitError](err); ok && failed.has("unadvertised object") {
		err = c.fetchBranch(ctx, s, commit)
	} else if ok && failed.has("not our ref", "couldn't find remote ref", "bad object") {
		err = newMissingCommitError(s, commit, err)
	}
	if err != nil {
		removeTempFiles(folder)
		return explainFailure(err, s.URL)
	}
	c.trim(folder)
	return nil
}

func fetchCommand(folder, url string, args ...string) gitCommand {
	depth, refspec := args[0], args[1]
	return gitCommand{dir: folder, args: []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", depth, "--", url, refspec}}
}

// fetchBranch fetches the whole branch of a commit. It is for hosts that give out no
// commits by their hashes.
func (c *Cache) fetchBranch(ctx context.Context, s Source, commit Commit) error {
	folder, ref := c.folderOf(s), "refs/branches/"+commit.Branch
	_, err := c.runRemote(ctx, s, fetchCommand(folder, s.URL, "--depth=2147483647", "+refs/heads/"+commit.Branch+":"+ref))
	if failed, ok := errors.AsType[*gitError](err); ok && failed.has("couldn't find remote ref") {
		return newMissingCommitError(s, commit, err)
	}
	if err != nil {
		return err
	}
	if _, err := c.runLocal(ctx, gitCommand{dir: folder, args: []string{"merge-base", "--is-ancestor", commit.Hash, ref}}); err != nil {
		return newMissingCommitError(s, commit, err)
	}
	_, err = c.runLocal(ctx, gitCommand{dir: folder, args: []string{"update-ref", refOf(commit), commit.Hash}})
	return err
}

func newMissingCommitError(s Source, commit Commit, cause error) error {
	return &dstack.Error{Kind: dstack.NotFound, Cause: cause,
		Message: fmt.Sprintf("the repository %s has no commit %.12s: it was not pushed, or the branch %s was rewritten", s.URL, commit.Hash, commit.Branch),
		Hint:    "push it, or fetch and rebase, and apply again: git push; git fetch; git rebase"}
}

// hasCommit reports whether a commit has been fetched completely.
func (c *Cache) hasCommit(ctx context.Context, folder string, commit Commit) bool {
	if _, err := os.Stat(filepath.Join(folder, "HEAD")); err != nil {
		return false
	}
	_, err := c.runLocal(ctx, gitCommand{dir: folder, args: []string{"rev-parse", "--quiet", "--verify", refOf(commit) + "^{tree}"}})
	return err == nil
}

// prepareFolder creates the folder of a source. It empties one that has many commits, and
// one that a killed git has left locked: starting over is simpler and smaller than
// repairing it.
func (c *Cache) prepareFolder(ctx context.Context, folder string) error {
	refs, _ := os.ReadDir(filepath.Join(folder, "refs", "dstack"))
	locks, _ := filepath.Glob(filepath.Join(folder, "*.lock"))
	refLocks, _ := filepath.Glob(filepath.Join(folder, "refs", "*", "*.lock"))
	if len(refs) >= maxCommits || len(locks)+len(refLocks) > 0 {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	removeTempFiles(folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	_, err := c.runLocal(ctx, gitCommand{dir: folder, args: []string{"init", "--quiet", "--bare", "--template="}})
	return err
}

// removeTempFiles removes what a killed git has left of a fetch.
func removeTempFiles(folder string) {
	files, _ := filepath.Glob(filepath.Join(folder, "objects", "pack", "tmp_*"))
	for _, file := range files {
		_ = os.Remove(file)
	}
}

// sizeInterval is the time between two looks at the size of what is being fetched.
const sizeInterval = 500 * time.Millisecond

// limitSize returns a context that ends when the folder grows beyond the limit. The caller
// calls stop.
func (c *Cache) limitSize(ctx context.Context, folder string, s Source) (limited context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	before := measure(folder)
	var watch sync.WaitGroup
	watch.Go(func() {
		ticker := time.NewTicker(sizeInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if measure(folder)-before > c.opts.MaxRepositoryBytes {
				cancel(&dstack.Error{Kind: dstack.TooLarge,
					Message: fmt.Sprintf("one commit of the repository %s is larger than %s", s.URL, human.Bytes(c.opts.MaxRepositoryBytes)),
					Hint:    "keep data and models out of the repository, or in Git LFS; replicas can download them"})
				return
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		watch.Wait()
	}
}

// measure returns the size of the files below a folder.
func measure(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // files vanish while git writes
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

// trim removes the folders that were not used for the longest time, until the others fit
// into MaxBytes. It keeps the folder that the caller uses, and those in use.
func (c *Cache) trim(keep string) {
	folders, _ := filepath.Glob(filepath.Join(c.dir, "commits", "*", "*", "*"))
	type entry struct {
		path string
		used time.Time
		size int64
	}
	var all []entry
	var total int64
	for _, path := range folders {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		e := entry{path, info.ModTime(), measure(path)}
		total += e.size
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range all {
		if total <= c.opts.MaxBytes {
			return
		}
		if e.path == keep || !c.tryRemove(e.path) {
			continue
		}
		total -= e.size
	}
}

// tryRemove removes a folder that nobody uses.
func (c *Cache) tryRemove(folder string) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // do not wait
	unlock, err := c.lock(ctx, folder)
	if err != nil {
		return false
	}
	defer unlock()
	return os.RemoveAll(folder) == nil
}

// Forget removes what was fetched of repos of a project, for all users.
func (c *Cache) Forget(project dstack.ProjectID, repos ...string) error {
	var errs []error
	for _, repo := range repos {
		errs = append(errs, os.RemoveAll(filepath.Join(c.dir, "commits", hashName(string(project)), hashName(repo))))
	}
	return errors.Join(errs...)
}

// lock waits for the lock of a folder. The caller unlocks it.
func (c *Cache) lock(ctx context.Context, folder string) (unlock func(), err error) {
	c.mu.Lock()
	l := c.locks[folder]
	if l == nil {
		l = &folderLock{holder: make(chan struct{}, 1)}
		c.locks[folder] = l
	}
	l.users++
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(c.locks, folder)
		}
	}
	select {
	case l.holder <- struct{}{}:
		return func() { <-l.holder; leave() }, nil
	default:
	}
	select {
	case l.holder <- struct{}{}:
		return func() { <-l.holder; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
