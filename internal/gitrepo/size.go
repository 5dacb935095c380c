package gitrepo

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// sizeInterval is the time between two looks at the size of what is being fetched.
const sizeInterval = 500 * time.Millisecond

// limitSize returns a context that ends with an error when the folder has more bytes than
// the limit. The caller calls stop.
func (c *Cache) limitSize(ctx context.Context, folder string, limit int64, tooLarge error) (limited context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
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
			if measureFolder(folder) > limit {
				cancel(tooLarge)
				return
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		watch.Wait()
	}
}

// measureFolder returns the size of the files below a folder.
func measureFolder(dir string) (size int64) {
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
		e := entry{path, info.ModTime(), measureFolder(path)}
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

// Forget removes what was fetched of repos of a project, for all users. It waits for those
// who use a folder, at most CheckTimeout.
func (c *Cache) Forget(ctx context.Context, project dstack.ProjectID, repos ...string) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.CheckTimeout)
	defer cancel()
	var errs []error
	for _, repo := range repos {
		errs = append(errs, c.removeRepo(ctx, filepath.Join(c.dir, "commits", hashName(string(project)), hashName(repo))))
	}
	return errors.Join(errs...)
}

// ForgetProject removes what was fetched of all repos of a project, as Forget does.
func (c *Cache) ForgetProject(ctx context.Context, project dstack.ProjectID) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.CheckTimeout)
	defer cancel()
	folder := filepath.Join(c.dir, "commits", hashName(string(project)))
	repos, _ := filepath.Glob(filepath.Join(folder, "*"))
	var errs []error
	for _, repo := range repos {
		errs = append(errs, c.removeRepo(ctx, repo))
	}
	_ = os.Remove(folder) // if it is empty
	return errors.Join(errs...)
}

func (c *Cache) removeRepo(ctx context.Context, repo string) error {
	folders, _ := filepath.Glob(filepath.Join(repo, "*"))
	var errs []error
	for _, folder := range folders {
		unlock, err := c.lock(ctx, folder)
		if err == nil {
			err = os.RemoveAll(folder)
			unlock()
		}
		errs = append(errs, err)
	}
	_ = os.Remove(repo) // if it is empty
	return errors.Join(errs...)
}
