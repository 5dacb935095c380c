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

// attemptSnapshot is the state of an attempt at one moment. Its files only grow
// or are removed afterwards.
type attemptSnapshot struct {
	dir      string
	segments []segment
	finished bool
	changed  <-chan struct{} // closed when there are more lines, or the attempt is finished or removed
	removed  <-chan struct{} // closed when the attempt is removed
}

// readCursor is the position of a reader.
type readCursor struct {
	after, before int64 // range of times in microseconds, both exclusive; before 0: no end
	segment       int64 // start of the current segment
	offset        int64 // in the current segment
}

// readSnapshot yields the lines of a snapshot after the cursor. It returns
// false if the sequence is over: the consumer has stopped, the end of the range
// was reached, or a read failed.
func (c *readCursor) readSnapshot(ctx context.Context, v attemptSnapshot, yield func(dstack.LogLine, error) bool) bool {
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

// readSegment yields the lines of a segment up to size, because another
// goroutine may append to the file. It returns false if the sequence is over.
func (c *readCursor) readSegment(ctx context.Context, file string, size int64, yield func(dstack.LogLine, error) bool) bool {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return true // it was evicted
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
			c.offset += int64(len(text)) // an incomplete line is not skipped: it will be truncated and overwritten
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
