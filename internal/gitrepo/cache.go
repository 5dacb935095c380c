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
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// Options configures a Cache. Dir is required.
type Options struct {
	Dir string // of the server, for the fetched commits
	Log *slog.Logger

	// MaxRepositoryBytes limits what is kept of one repository of a user, and MaxBytes what
	// is kept of all. MaxFolderBytes and MaxFolderEntries limit the files of one commit,
	// which can be many more bytes than those that are fetched. Zero stands for the defaults.
	MaxRepositoryBytes, MaxBytes, MaxFolderBytes, MaxFolderEntries int64

	// MaxDiffMemory limits the memory that git has for the changes of a checkout, on Linux: a
	// small binary patch can declare a huge file. Zero stands for the default.
	MaxDiffMemory uint64

	CheckTimeout, FetchTimeout time.Duration // zero: the defaults

	// Proxy returns the proxy for a request, or nil; it is http.ProxyFromEnvironment if it
	// is nil itself.
	Proxy func(*http.Request) (*url.URL, error)
}

const (
	defaultMaxRepositoryBytes = 2 << 30
	defaultMaxBytes           = 8 << 30
	defaultMaxFolderBytes     = 4 << 30
	defaultMaxFolderEntries   = 100_000
	defaultMaxDiffMemory      = 1 << 30
	defaultCheckTimeout       = 20 * time.Second
	defaultFetchTimeout       = 10 * time.Minute
	maxCommits                = 50
)

// Cache holds the commits that were fetched. Each user of a project has copies of their
// own, because the credentials of one user must not show another what they can read. It is
// safe for concurrent use by one process. Another process may use the folder while it
// finishes what it began.
type Cache struct {
	opts  Options
	dir   string
	inUse *os.File // its lock tells other processes that this one uses the folder; never closed

	mu    sync.Mutex
	seats map[string]*seats
}

// New returns a cache in the folder o.Dir. It removes what an earlier process was
// preparing when it was killed, unless a process still uses the folder.
func New(o Options) (*Cache, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.MaxRepositoryBytes, defaultMaxRepositoryBytes)
	setDefault(&o.MaxBytes, defaultMaxBytes)
	setDefault(&o.MaxFolderBytes, defaultMaxFolderBytes)
	setDefault(&o.MaxFolderEntries, defaultMaxFolderEntries)
	setDefault(&o.MaxDiffMemory, defaultMaxDiffMemory)
	setDefault(&o.CheckTimeout, defaultCheckTimeout)
	setDefault(&o.FetchTimeout, defaultFetchTimeout)
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	c := &Cache{opts: o, dir: o.Dir, seats: map[string]*seats{}}
	if err := c.claimFolder(); err != nil {
		return nil, fmt.Errorf("cannot use the folder of repositories: %w", err)
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
	release, err := c.takeSlot(ctx, s, c.opts.CheckTimeout)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.opts.CheckTimeout)
	defer cancel()
	_, err = c.runRemote(ctx, s, gitCommand{args: []string{"ls-remote", "--quiet", "--exit-code", "--", s.URL, "HEAD", "refs/heads/*"}})
	if failed, ok := errors.AsType[*gitError](err); ok && failed.text == "" { // any page is a repository without branches
		return &dstack.Error{Kind: dstack.NotFound, Message: "there is no repository at " + s.URL + ", or it has no branches",
			Hint: "check its URL: git remote get-url origin; and push to it", Cause: err}
	}
	return explainFailure(err, s.URL)
}

// runRemote runs a command that reads a source. The caller has a slot.
func (c *Cache) runRemote(ctx context.Context, s Source, command gitCommand) (string, error) {
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
	if s.URL == "" {
		return &dstack.Error{Kind: dstack.NotFound, Hint: "apply it again, as a user who can read the repository",
			Message: fmt.Sprintf("the user who applied this run was deleted, with the credentials for its repository, and the commit %.12s is no longer on this server",
				commit.Hash)}
	}
	release, err := c.takeSlot(ctx, s, c.opts.FetchTimeout)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.opts.FetchTimeout)
	defer cancel()
	defer c.trim(folder) // also after a failure, which may leave something
	isEmpty, err := c.prepareFolder(ctx, folder)
	if err != nil {
		return err
	}
	err = c.fillCommit(ctx, s, commit)
	if dstack.KindOf(err) == dstack.TooLarge && !isEmpty { // other commits may have taken the space
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
		if _, err := c.prepareFolder(ctx, folder); err != nil {
			return err
		}
		err = c.fillCommit(ctx, s, commit)
	}
	if dstack.KindOf(err) == dstack.TooLarge {
		return errors.Join(err, os.RemoveAll(folder))
	}
	return err
}

// incomingRef is the name of a commit that has not been checked.
const incomingRef = "refs/incoming/commit"

// fillCommit fetches a commit into the folder of its source, checks it, and names it.
func (c *Cache) fillCommit(ctx context.Context, s Source, commit Commit) error {
	folder := c.folderOf(s)
	limited, stop := c.limitSize(ctx, folder, c.opts.MaxRepositoryBytes, newCommitSizeError(s, human.Bytes(c.opts.MaxRepositoryBytes)))
	defer stop()
	ctx = limited
	_, err := c.runRemote(ctx, s, fetchCommand(folder, s.URL, "--depth=1", "+"+commit.Hash+":"+incomingRef))
	if failed, ok := errors.AsType[*gitError](err); ok && failed.has("unadvertised object") {
		err = c.fetchBranch(ctx, s, commit)
	} else if ok && failed.has("not our ref", "couldn't find remote ref", "bad object") {
		err = newMissingCommitError(s, commit, err)
	}
	if err != nil {
		removeTempFiles(folder)
		return explainFailure(err, s.URL)
	}
	if measureFolder(folder) > c.opts.MaxRepositoryBytes { // quicker than the looks at its size
		return newCommitSizeError(s, human.Bytes(c.opts.MaxRepositoryBytes))
	}
	if err := c.checkTree(ctx, s, commit); err != nil {
		return explainFailure(err, s.URL)
	}
	_, err = c.runLocal(ctx, gitCommand{dir: folder, args: []string{"update-ref", refOf(commit), commit.Hash}})
	return err
}

func newCommitSizeError(s Source, limit string) error {
	return &dstack.Error{Kind: dstack.TooLarge,
		Message: fmt.Sprintf("one commit of the repository %s is larger than %s", s.URL, limit),
		Hint:    "keep data and models out of the repository, or in Git LFS; replicas can download them"}
}

func fetchCommand(folder, url string, args ...string) gitCommand {
	depth, refspec := args[0], args[1]
	return gitCommand{dir: folder, args: []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", depth, "--", url, refspec}}
}

// fetchBranch fetches the whole branch of a commit. It is for hosts that give out no
// commits by their hashes. A failure removes the folder: the history that was fetched is of
// no use.
func (c *Cache) fetchBranch(ctx context.Context, s Source, commit Commit) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.folderOf(s)))
		}
	}()
	folder, ref := c.folderOf(s), "refs/branches/"+commit.Branch
	_, err = c.runRemote(ctx, s, fetchCommand(folder, s.URL, "--depth=2147483647", "+refs/heads/"+commit.Branch+":"+ref))
	if failed, ok := errors.AsType[*gitError](err); ok && failed.has("couldn't find remote ref") {
		return newMissingCommitError(s, commit, err)
	}
	if err != nil {
		return err
	}
	if _, err := c.runLocal(ctx, gitCommand{dir: folder, args: []string{"merge-base", "--is-ancestor", commit.Hash, ref}}); err != nil {
		return newMissingCommitError(s, commit, err)
	}
	return nil
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

// prepareFolder creates the folder of a source, and reports whether it has no commits. It
// empties one that has many commits or is too large, and one that a killed git has left
// locked: starting over is simpler and smaller than repairing it.
func (c *Cache) prepareFolder(ctx context.Context, folder string) (isEmpty bool, err error) {
	removeTempFiles(folder)
	refs, _ := os.ReadDir(filepath.Join(folder, "refs", "dstack"))
	locks, _ := filepath.Glob(filepath.Join(folder, "*.lock"))
	refLocks, _ := filepath.Glob(filepath.Join(folder, "refs", "*", "*.lock"))
	if len(refs) >= maxCommits || len(locks)+len(refLocks) > 0 || measureFolder(folder) > c.opts.MaxRepositoryBytes {
		if err := os.RemoveAll(folder); err != nil {
			return false, err
		}
	}
	packs, _ := filepath.Glob(filepath.Join(folder, "objects", "pack", "*.pack"))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return false, err
	}
	_, err = c.runLocal(ctx, gitCommand{dir: folder, args: []string{"init", "--quiet", "--bare", "--template="}})
	return len(packs) == 0, err
}

// removeTempFiles removes what a killed git has left of a fetch.
func removeTempFiles(folder string) {
	files, _ := filepath.Glob(filepath.Join(folder, "objects", "pack", "tmp_*"))
	for _, file := range files {
		_ = os.Remove(file)
	}
}
