package logs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"dstack/internal/dstack"
)

// fileOpener opens a segment for appending. It is a field of Store so that
// tests can simulate a full disk.
type fileOpener func(path string) (io.WriteCloser, error)

func openFile(path string) (io.WriteCloser, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// splitLines splits lines whose text is longer than maxLength bytes. It does
// not split within a UTF-8 character.
func splitLines(lines []dstack.LogLine, maxLength int) []dstack.LogLine {
	pieces := make([]dstack.LogLine, 0, len(lines))
	for _, line := range lines {
		for len(line.Text) > maxLength {
			end := maxLength
			for end > maxLength-utf8.UTFMax && !utf8.RuneStart(line.Text[end]) {
				end--
			}
			pieces = append(pieces, dstack.LogLine{At: line.At, Stream: line.Stream, Text: line.Text[:end]})
			line.Text = line.Text[end:]
		}
		pieces = append(pieces, line)
	}
	return pieces
}

// segmentSize returns the size at which a new segment begins. It is small
// compared to the limit, so that evicting a segment loses little, but large
// enough that a run stays below maxSegments.
func (s *Store) segmentSize() int64 {
	return max(min(s.limit/8, 1<<20), s.limit/(maxSegments/2))
}

// appendLines appends lines and returns how many were written. After an error
// the first lines are stored, and nothing of the others.
func (r *runLogs) appendLines(s *Store, a *attemptLogs, lines []dstack.LogLine) (written int, err error) {
	for written < len(lines) {
		b := buildBatch(a, lines[written:], s.segmentSize())
		if err = r.writeBatch(s, a, b); err != nil {
			break
		}
		a.lastAt = b.lastAt
		written += b.lines
	}
	if written > 0 {
		a.wakeFollowers()
	}
	return written, err
}

// segmentBatch is the encoded lines that are written to one segment at once.
type segmentBatch struct {
	text            []byte
	firstAt, lastAt int64
	lines           int
	newSegment      bool // the lines begin a new segment
}

// buildBatch encodes as many lines as fit into the latest segment, or into a
// new one of maxBytes; at least one line.
func buildBatch(a *attemptLogs, lines []dstack.LogLine, maxBytes int64) segmentBatch {
	b := segmentBatch{lastAt: a.lastAt, newSegment: true}
	left := maxBytes
	if n := len(a.segments); n > 0 && a.segments[n-1].size+minEncodedSize(lines[0]) <= maxBytes {
		b.newSegment, left = false, maxBytes-a.segments[n-1].size
	}
	for _, line := range lines {
		at := max(toMicros(line.At), b.lastAt+1)
		text := encodeLine(b.text, at, line)
		if b.lines > 0 && int64(len(text)) > left {
			break
		}
		if b.lines == 0 {
			b.firstAt = at
		}
		b.text, b.lastAt = text, at
		b.lines++
	}
	return b
}

// minEncodedSize returns the encoded size of a line that needs no escaping.
func minEncodedSize(line dstack.LogLine) int64 {
	return int64(len("1795435201000000 o \n") + len(line.Text))
}

// writeBatch writes a batch completely or not at all. It evicts old segments to
// stay within the limit.
func (r *runLogs) writeBatch(s *Store, a *attemptLogs, b segmentBatch) error {
	if err := r.evictOldest(s.limit - int64(len(b.text))); err != nil {
		return err
	}
	if err := os.MkdirAll(r.attemptDir(a), 0o700); err != nil {
		return err
	}
	seg := segment{start: b.firstAt}
	if n := len(a.segments); n > 0 && !b.newSegment {
		seg = a.segments[n-1]
	} else {
		b.newSegment = true // the latest segment may have been evicted
	}
	file := filepath.Join(r.attemptDir(a), seg.fileName())
	f, err := s.open(file)
	if err != nil {
		return err
	}
	_, err = f.Write(b.text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, truncateTo(file, seg.size))
	}
	seg.size += int64(len(b.text))
	r.bytes += int64(len(b.text))
	if b.newSegment {
		a.segments = append(a.segments, seg)
	} else {
		a.segments[len(a.segments)-1] = seg
	}
	return nil
}

// truncateTo undoes a partial write: it truncates a file to its earlier size,
// or removes it if it was new.
func truncateTo(file string, size int64) error {
	if size == 0 {
		return os.Remove(file)
	}
	return os.Truncate(file, size)
}

// evictOldest deletes the oldest segments of a run, of whichever attempt, until
// it has at most maxBytes and fewer than maxSegments segments.
func (r *runLogs) evictOldest(maxBytes int64) error {
	for {
		count := 0
		var oldest *attemptLogs
		for _, a := range r.attempts {
			count += len(a.segments)
			if len(a.segments) > 0 && (oldest == nil || a.segments[0].start < oldest.segments[0].start) {
				oldest = a
			}
		}
		if oldest == nil || (r.bytes <= maxBytes && count < maxSegments) {
			return nil
		}
		if err := r.readEnd(oldest); err != nil {
			return err
		}
		evicted := oldest.segments[0]
		err := os.Remove(filepath.Join(r.attemptDir(oldest), evicted.fileName()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		oldest.segments = oldest.segments[1:]
		r.bytes -= evicted.size
		if len(oldest.segments) == 0 && oldest.finished {
			if err := r.removeAttempt(oldest); err != nil {
				return err
			}
		}
	}
}

// removeAttempt removes a finished attempt that has no segments left.
func (r *runLogs) removeAttempt(a *attemptLogs) error {
	delete(r.attempts, a.id)
	return os.RemoveAll(r.attemptDir(a))
}
