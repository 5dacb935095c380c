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

// fileOpener opens a segment for appending. It is a field of Store so that tests
// can have a disk that fills up.
type fileOpener func(path string) (io.WriteCloser, error)

func openFile(path string) (io.WriteCloser, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// splitLines makes pieces of the lines that are too long, not within a character.
func splitLines(lines []dstack.LogLine, most int) []dstack.LogLine {
	pieces := make([]dstack.LogLine, 0, len(lines))
	for _, line := range lines {
		for len(line.Text) > most {
			end := most
			for end > most-utf8.UTFMax && !utf8.RuneStart(line.Text[end]) {
				end--
			}
			pieces = append(pieces, dstack.LogLine{At: line.At, Stream: line.Stream, Text: line.Text[:end]})
			line.Text = line.Text[end:]
		}
		pieces = append(pieces, line)
	}
	return pieces
}

// segmentSize is where a new file begins: small beside the limit, so that
// little goes at once, and not so small that there are too many.
func (s *Store) segmentSize() int64 {
	return max(min(s.limit/8, 1<<20), s.limit/(maxSegments/2))
}

// appendLines appends lines and says how many. After an error those before it are
// kept, and nothing of the rest is.
func (r *runLogs) appendLines(s *Store, a *attemptLogs, lines []dstack.LogLine) (written int, err error) {
	for written < len(lines) {
		b := buildBatch(a, lines[written:], s.segmentSize())
		if err = r.writeBatch(s, a, b); err != nil {
			break
		}
		a.last = b.last
		written += b.lines
	}
	if written > 0 {
		a.notify()
	}
	return written, err
}

// segmentBatch is what goes into one segment by one write.
type segmentBatch struct {
	text        []byte
	first, last int64
	lines       int
	fresh       bool // into a new segment
}

// buildBatch takes as many lines as the newest segment has room for, or a new
// one; at least one.
func buildBatch(a *attemptLogs, lines []dstack.LogLine, most int64) segmentBatch {
	b := segmentBatch{last: a.last, fresh: true}
	room := most
	if n := len(a.segments); n > 0 && a.segments[n-1].size+minEncodedSize(lines[0]) <= most {
		b.fresh, room = false, most-a.segments[n-1].size
	}
	for _, line := range lines {
		at := max(toMicros(line.At), b.last+1)
		text := encodeLine(b.text, at, line)
		if b.lines > 0 && int64(len(text)) > room {
			break
		}
		if b.lines == 0 {
			b.first = at
		}
		b.text, b.last = text, at
		b.lines++
	}
	return b
}

// minEncodedSize is what a line takes on disk, unless something in it must be
// escaped.
func minEncodedSize(line dstack.LogLine) int64 {
	return int64(len("1795435201000000 o \n") + len(line.Text))
}

// writeBatch writes a batch, or nothing of it. Older output makes room for it.
func (r *runLogs) writeBatch(s *Store, a *attemptLogs, b segmentBatch) error {
	if err := r.makeRoom(s.limit - int64(len(b.text))); err != nil {
		return err
	}
	if err := os.MkdirAll(r.attemptDir(a), 0o700); err != nil {
		return err
	}
	seg := segment{start: b.first}
	if n := len(a.segments); n > 0 && !b.fresh {
		seg = a.segments[n-1]
	} else {
		b.fresh = true // the newest went to make room
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
	r.total += int64(len(b.text))
	if b.fresh {
		a.segments = append(a.segments, seg)
	} else {
		a.segments[len(a.segments)-1] = seg
	}
	return nil
}

// truncateTo takes back what was written in part.
func truncateTo(file string, size int64) error {
	if size == 0 {
		return os.Remove(file)
	}
	return os.Truncate(file, size)
}

// makeRoom deletes the oldest segments of a run, whichever attempt's they
// are, until at most this many bytes are left.
func (r *runLogs) makeRoom(most int64) error {
	for {
		count := 0
		var oldest *attemptLogs
		for _, a := range r.attempts {
			count += len(a.segments)
			if len(a.segments) > 0 && (oldest == nil || a.segments[0].start < oldest.segments[0].start) {
				oldest = a
			}
		}
		if oldest == nil || (r.total <= most && count < maxSegments) {
			return nil
		}
		if err := r.readEnd(oldest); err != nil {
			return err
		}
		gone := oldest.segments[0]
		if err := os.Remove(filepath.Join(r.attemptDir(oldest), gone.fileName())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		oldest.segments = oldest.segments[1:]
		r.total -= gone.size
		if len(oldest.segments) == 0 && oldest.finished {
			if err := r.removeAttempt(oldest); err != nil {
				return err
			}
		}
	}
}

// removeAttempt removes what is left of a finished attempt without output.
func (r *runLogs) removeAttempt(a *attemptLogs) error {
	delete(r.attempts, a.id)
	return os.RemoveAll(r.attemptDir(a))
}
