package gitrepo

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// Checkout is the working folder of a run: a commit, with the changes that were not
// committed or pushed.
type Checkout struct {
	Commit
	AuthorName, AuthorEmail string    // the user.name and user.email of the folder; empty: none
	Diff                    io.Reader // in git's format; nil: none
}

// maxAuthorBytes is more than names and addresses have.
const maxAuthorBytes = 1000

// CheckAuthor returns an error for users if git cannot take the author's name or email.
func (c Checkout) CheckAuthor() error {
	for _, field := range []struct{ place, text string }{
		{"repo_data.repo_config_name", c.AuthorName}, {"repo_data.repo_config_email", c.AuthorEmail},
	} {
		if len(field.text) > maxAuthorBytes || strings.ContainsFunc(field.text, unicode.IsControl) {
			return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%s has control characters or more than %d bytes", field.place, maxAuthorBytes),
				Hint: "correct it in the clone: git config user.name NAME; git config user.email EMAIL"}
		}
	}
	return nil
}

// CheckDiff returns an error for users if the diff of a checkout does not fit its commit. It
// fetches the commit, if needed.
func (c *Cache) CheckDiff(ctx context.Context, s Source, checkout Checkout) error {
	diff, err := readDiff(checkout.Diff)
	if err != nil || diff == "" {
		return err
	}
	unlock, err := c.lock(ctx, c.folderOf(s))
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.fetchLocked(ctx, s, checkout.Commit); err != nil { // it may have been removed to make space
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.FetchTimeout)
	defer cancel()
	index, err := os.CreateTemp(c.tempDir(), "index-")
	if err != nil {
		return err
	}
	defer os.Remove(index.Name())
	if err := errors.Join(index.Close(), os.Remove(index.Name())); err != nil {
		return err
	}
	env := []string{"GIT_INDEX_FILE=" + index.Name()}
	folder := c.folderOf(s)
	if _, err := c.runLocal(ctx, gitCommand{dir: folder, env: env, args: []string{"read-tree", refOf(checkout.Commit)}}); err != nil {
		return explainFailure(err, s.URL)
	}
	_, err = c.runLocal(ctx, gitCommand{dir: folder, env: env, stdin: strings.NewReader(diff), memory: c.opts.MaxDiffMemory,
		args: []string{"apply", "--cached", "--check", "--whitespace=nowarn", "-"}})
	return explainDiffFailure(err, checkout.Commit)
}

// maxDiffBytes is more than an upload may have.
const maxDiffBytes = 256 << 20

// readDiff returns the text of a diff, or "" if it has no changes.
func readDiff(diff io.Reader) (string, error) {
	if diff == nil {
		return "", nil
	}
	text, err := io.ReadAll(io.LimitReader(diff, maxDiffBytes))
	if err != nil {
		return "", fmt.Errorf("the uploaded changes cannot be read: %w", err)
	}
	if strings.TrimSpace(string(text)) == "" {
		return "", nil
	}
	if !strings.HasSuffix(string(text), "\n") { // git takes a last line without an end for a damaged diff
		text = append(text, '\n')
	}
	return string(text), nil
}

func explainDiffFailure(err error, commit Commit) error {
	failed, ok := errors.AsType[*gitError](err)
	if errors.Is(err, context.DeadlineExceeded) {
		return &dstack.Error{Kind: dstack.Timeout, Cause: err, Hint: "apply again with smaller changes: commit and push the others",
			Message: fmt.Sprintf("the server takes too long to apply the uploaded changes to commit %.12s", commit.Hash)}
	}
	if !ok {
		return err
	}
	hint := "apply again from the clone, so that they are uploaded again"
	if failed.has("cannot apply binary patch") {
		hint = "commit and push changed binary files, or name them in .gitignore"
	}
	if failed.has("out of memory") {
		return &dstack.Error{Kind: dstack.TooLarge, Cause: err, Hint: "commit and push large files, or name them in .gitignore",
			Message: fmt.Sprintf("the uploaded changes need too much memory to be applied to commit %.12s", commit.Hash)}
	}
	first, _, _ := strings.Cut(failed.text, "\n") // the lines after it repeat it
	return &dstack.Error{Kind: dstack.Invalid, Cause: err, Hint: hint,
		Message: fmt.Sprintf("the uploaded changes cannot be applied to commit %.12s%s", commit.Hash, quoteText(first))}
}

// OpenFolder fetches the commit of a checkout, if needed, and returns its working folder as
// a tar stream: a clone with that commit alone, on its branch, with the changes applied and
// not committed. The caller closes it.
func (c *Cache) OpenFolder(ctx context.Context, s Source, checkout Checkout) (io.ReadCloser, error) {
	if err := checkout.Check(); err != nil {
		return nil, err
	}
	diff, err := readDiff(checkout.Diff)
	if err != nil {
		return nil, err
	}
	if err := c.makeDirs(); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(c.tempDir(), "work-")
	if err != nil {
		return nil, err
	}
	if err := c.fillFolder(ctx, s, checkout, work, diff); err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	return newFolderReader(work), nil
}

// fillFolder makes the clone. The check of the tree and the limits of time and size bound
// what a commit and a diff can write.
func (c *Cache) fillFolder(ctx context.Context, s Source, checkout Checkout, work, diff string) error {
	unlock, err := c.lock(ctx, c.folderOf(s))
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.fetchLocked(ctx, s, checkout.Commit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.FetchTimeout)
	defer cancel()
	limit := c.opts.MaxRepositoryBytes + c.opts.MaxFolderBytes
	ctx, stop := c.limitSize(ctx, work, limit, newCommitSizeError(s, human.Bytes(limit)+", with the uploaded changes"))
	defer stop()
	if err := c.cloneCommit(ctx, s, checkout, work); err != nil {
		return explainFailure(err, s.URL)
	}
	unlock()
	if err := c.checkOut(ctx, s, checkout, work); err != nil {
		return explainFailure(err, s.URL)
	}
	if diff == "" {
		return nil
	}
	_, err = c.runLocal(ctx, gitCommand{dir: work, args: []string{"apply", "--whitespace=nowarn", "-"},
		stdin: strings.NewReader(diff), memory: c.opts.MaxDiffMemory})
	return explainDiffFailure(err, checkout.Commit)
}

// checkOut writes the files of a clone, and its settings.
func (c *Cache) checkOut(ctx context.Context, s Source, checkout Checkout, work string) error {
	remote := "refs/remotes/origin/" + checkout.Branch
	commands := [][]string{
		{"config", "remote.origin.fetch", "+refs/heads/" + checkout.Branch + ":" + remote},
		{"checkout", "--quiet", "-B", checkout.Branch, remote},
	}
	if s.URL != "" {
		commands = append(commands, []string{"config", "remote.origin.url", s.URL})
	}
	if checkout.AuthorName != "" {
		commands = append(commands, []string{"config", "user.name", checkout.AuthorName})
	}
	if checkout.AuthorEmail != "" {
		commands = append(commands, []string{"config", "user.email", checkout.AuthorEmail})
	}
	for _, args := range commands {
		if _, err := c.runLocal(ctx, gitCommand{dir: work, args: args}); err != nil {
			return err
		}
	}
	return nil
}

// cloneCommit makes a repository in work that has the commit of a checkout and nothing
// else. The caller holds the lock of the folder that has it.
func (c *Cache) cloneCommit(ctx context.Context, s Source, checkout Checkout, work string) error {
	init := []string{"init", "--quiet", "--template=", "--initial-branch=" + checkout.Branch}
	if _, err := c.runLocal(ctx, gitCommand{dir: work, args: init}); err != nil {
		return err
	}
	_, err := c.runLocal(ctx, fetchCommand(work, "file://"+c.folderOf(s), "--depth=1", "+"+refOf(checkout.Commit)+":refs/remotes/origin/"+checkout.Branch))
	return err
}

// folderReader streams a folder as a tar archive, and deletes it when it is closed.
type folderReader struct {
	*io.PipeReader
	dir     string
	packing sync.WaitGroup
}

func newFolderReader(dir string) *folderReader {
	r, w := io.Pipe()
	f := &folderReader{PipeReader: r, dir: dir}
	f.packing.Go(func() { _ = w.CloseWithError(packFolder(w, dir)) })
	return f
}

// Close implements io.Closer.
func (f *folderReader) Close() error {
	_ = f.PipeReader.CloseWithError(errors.New("the reader of the folder has ended"))
	f.packing.Wait()
	return os.RemoveAll(f.dir)
}

// packFolder writes the folders, files and symbolic links below dir to w.
func packFolder(w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	out := tar.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		return packEntry(out, root, name, d)
	})
	return errors.Join(err, out.Close())
}

func packEntry(out *tar.Writer, root *os.Root, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode().Type() == fs.ModeSymlink {
		if link, err = root.Readlink(filepath.FromSlash(name)); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	header.Name = name
	if err := out.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, file)
	return errors.Join(err, file.Close())
}
