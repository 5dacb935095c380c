package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// FindTail finds the last n lines of an attempt that are after since and, unless until is
// zero, before until, without reading those before them. Reading after start yields exactly
// these lines; found is their number, n or fewer. With n 0, start is the time of the last
// line.
func (s *Store) FindTail(ctx context.Context, k Key, since, until time.Time, n int) (start time.Time, found int, err error) {
	view, err := s.snapshotAttempt(k)
	if err != nil {
		return since, 0, err
	}
	t := tailFinder{since: toMicros(since), until: toMicros(until), limit: n}
	t.start = t.since
	for i := len(view.segments) - 1; i >= 0 && !t.done; i-- {
		if ctx.Err() != nil {
			return since, 0, ctx.Err()
		}
		if i+1 < len(view.segments) && view.segments[i+1].start <= t.since+1 {
			break // all of its lines are before since
		}
		if err := t.searchSegment(filepath.Join(view.dir, view.segments[i].fileName()), view.segments[i].size); err != nil {
			return since, 0, newDiskError("read", err)
		}
	}
	if t.start == t.since {
		return since, t.found, nil // also if since is zero
	}
	return time.UnixMicro(t.start).UTC(), t.found, nil
}

// tailFinder counts lines from the end. Times are in microseconds.
type tailFinder struct {
	since, until int64 // both exclusive; until 0: no end
	limit        int

	start int64
	found int
	done  bool
}

// searchSegment counts the lines of a segment, up to size.
func (t *tailFinder) searchSegment(file string, size int64) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was evicted
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return readBackwards(f, size, func(text []byte) bool {
		_, at, ok := decodeLine(text)
		switch {
		case !ok || t.until > 0 && at >= t.until:
		case at <= t.since:
			t.done = true
		case t.found == t.limit:
			t.start, t.done = at, true
		default:
			t.found++
		}
		return !t.done
	})
}

const backwardsChunk = 64 << 10

// readBackwards yields the lines of the first size bytes of a file with their line breaks, the
// last one first, until yield returns false.
func readBackwards(f io.ReaderAt, size int64, yield func(line []byte) bool) error {
	var rest []byte // the end of the file from offset on that was not yielded, with a whole line at most
	for offset := size; offset > 0; {
		n := min(offset, backwardsChunk)
		offset -= n
		chunk := make([]byte, n, int(n)+len(rest))
		if _, err := f.ReadAt(chunk, offset); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		rest = append(chunk, rest...)
		for len(rest) > 0 {
			begin := bytes.LastIndexByte(rest[:len(rest)-1], '\n') + 1
			if begin == 0 && offset > 0 {
				break // the line begins in an earlier chunk
			}
			if !yield(rest[begin:]) {
				return nil
			}
			rest = rest[:begin]
		}
	}
	return nil
}
