package gitrepo

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"dstack/internal/human"
)

// maxPathBytes is more than systems allow.
const maxPathBytes = 4096

// checkTree returns an error if the files of a fetched commit are too many or too large. A
// few bytes can stand for very many of both.
func (c *Cache) checkTree(ctx context.Context, s Source, commit Commit) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	counter := &treeCounter{maxEntries: c.opts.MaxFolderEntries, maxBytes: c.opts.MaxFolderBytes, stop: func(limit string) {
		cancel(newCommitSizeError(s, limit))
	}}
	_, err := c.runLocal(ctx, gitCommand{dir: c.folderOf(s), stdout: counter,
		args: []string{"ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit.Hash}})
	if ctx.Err() != nil { // git may have ended before it was killed
		return context.Cause(ctx)
	}
	return err
}

// treeCounter reads the output of git ls-tree: for each file and folder a mode, a type, a
// hash, a size, a tab, its path and a zero byte. It keeps the text of one entry.
type treeCounter struct {
	maxEntries, maxBytes int64
	stop                 func(limit string)

	entry          []byte
	entries, bytes int64
	isStopped      bool
}

// Write implements io.Writer.
func (t *treeCounter) Write(p []byte) (int, error) {
	for rest := p; !t.isStopped && len(rest) > 0; {
		part, next, isComplete := bytes.Cut(rest, []byte{0})
		t.entry, rest = append(t.entry, part...), next
		if isComplete {
			t.count()
		}
		t.checkLimits()
		if isComplete {
			t.entry = t.entry[:0]
		}
	}
	return len(p), nil
}

func (t *treeCounter) count() {
	t.entries++
	head, _, _ := bytes.Cut(t.entry, []byte{'\t'})
	if fields := bytes.Fields(head); len(fields) == 4 { // folders and submodules have the size -
		if size, err := strconv.ParseInt(string(fields[3]), 10, 64); err == nil {
			t.bytes += min(size, t.maxBytes+1)
		}
	}
}

func (t *treeCounter) checkLimits() {
	limit := ""
	switch {
	case t.entries > t.maxEntries:
		limit = fmt.Sprintf("%d files and folders", t.maxEntries)
	case t.bytes > t.maxBytes:
		limit = human.Bytes(t.maxBytes)
	case len(t.entry) > maxPathBytes:
		limit = fmt.Sprintf("allowed: a path has more than %d bytes", maxPathBytes)
	default:
		return
	}
	t.isStopped = true
	t.stop(limit)
}
