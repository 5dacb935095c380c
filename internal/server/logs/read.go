package logs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"dstack/internal/dstack"
)

// snapshot is what an attempt had at one moment. Its files only grow or go away.
type snapshot struct {
	dir      string
	segments []segment
	finished bool
	more     <-chan struct{} // closed when there is more than this
	gone     <-chan struct{} // closed when it was removed
}

// cursor is how far a reader has come.
type cursor struct {
	after, before int64 // microseconds; before 0: no end
	segment       int64 // start of the segment it is in
	offset        int64 // in that segment
}

// readSnapshot yields what a view has beyond the cursor. It returns false when the
// reader wants no more, or cannot have it.
func (c *cursor) readSnapshot(ctx context.Context, v snapshot, yield func(dstack.LogLine, error) bool) bool {
	for i, seg := range v.segments {
		if seg.start < c.segment || (i+1 < len(v.segments) && v.segments[i+1].start <= c.after+1) {
			continue
		}
		if seg.start != c.segment {
			c.segment, c.offset = seg.start, 0
		}
		if c.offset >= seg.size {
			continue
		}
		if !c.readSegment(ctx, filepath.Join(v.dir, seg.fileName()), seg.size, yield) {
			return false
		}
		if ctx.Err() != nil {
			return true
		}
	}
	return true
}

// readSegment yields the lines up to size: beyond it somebody may be writing.
func (c *cursor) readSegment(ctx context.Context, file string, size int64, yield func(dstack.LogLine, error) bool) bool {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return true // it was the oldest, and made room
	}
	if err != nil {
		yield(dstack.LogLine{}, newDiskError("read", err))
		return false
	}
	defer f.Close()
	lines := bufio.NewReaderSize(io.NewSectionReader(f, c.offset, size-c.offset), 64<<10)
	for ctx.Err() == nil {
		text, err := lines.ReadBytes('\n')
		if len(text) > 0 && text[len(text)-1] == '\n' {
			c.offset += int64(len(text)) // not past what a crash left: new lines will begin there
		}
		if line, at, ok := decodeLine(text); ok && at > c.after {
			if c.before > 0 && at >= c.before {
				return false
			}
			c.after = at
			if !yield(line, nil) {
				return false
			}
		}
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			yield(dstack.LogLine{}, newDiskError("read", err))
			return false
		}
	}
	return true
}
