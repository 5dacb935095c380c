package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// The bounds on one attempt's output on disk: the oldest goes first.
const (
	maxJournalBytes = 8 << 20
	maxJournalFiles = 2
	maxLineBytes    = 32 << 10 // what is longer becomes several lines
)

// journal is the output of one attempt, written by its keeper. A full disk
// loses output, and says how much once there is room again; it never stops
// the process.
type journal struct {
	mu        sync.Mutex
	dir       folder
	file      *os.File
	num       int
	size      int64
	pending   []byte // whole lines
	clock     engine.MonotonicClock
	lastLines []string

	lostLines     int   // lines that no line on disk tells of
	lossCause     error // of the loss
	noticePending bool  // unsent begins with a line about it
}

const maxLastLines, maxLastLineBytes = 10, 2 << 10

func openJournal(dir folder) (*journal, error) {
	j := &journal{dir: dir}
	return j, j.openFile(1)
}

func journalName(num int) string { return "log." + strconv.Itoa(num) }

func (j *journal) openFile(num int) error {
	f, err := os.OpenFile(j.dir.path(journalName(num)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.num, j.size = f, num, 0
	_ = os.Remove(j.dir.path(journalName(num - maxJournalFiles)))
	return nil
}

// add takes a line. It reaches the disk with the next flush.
func (j *journal) add(stream string, text []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addLossNotice()
	text = bytes.TrimSuffix(text, []byte("\r"))
	j.appendLine(time.Now(), stream, text)
	line := string(text[:min(len(text), maxLastLineBytes)])
	if j.lastLines = append(j.lastLines, line); len(j.lastLines) > maxLastLines {
		j.lastLines = j.lastLines[1:]
	}
	if len(j.pending) > 256<<10 {
		j.writePending()
	}
}

func (j *journal) appendLine(at time.Time, stream string, text []byte) {
	j.pending = strconv.AppendInt(j.pending, j.clock.Next(at).UnixMicro(), 10)
	j.pending = append(j.pending, ' ', stream[3], ' ') // stdOut, stdErr
	j.pending = append(append(j.pending, text...), '\n')
}

// flush brings to disk what was added.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writePending()
}

// finish flushes; nothing is added any more.
func (j *journal) finish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writePending()
	j.addLossNotice()
	j.writePending()
}

// addLossNotice begins unsent with a line about what was lost.
func (j *journal) addLossNotice() {
	if j.lostLines > 0 && !j.noticePending {
		j.noticePending = true
		j.appendLine(time.Now(), "stderr", fmt.Appendf(nil, "dstack: %d lines of output are missing here: %v", j.lostLines, j.lossCause))
	}
}

func (j *journal) writePending() {
	if len(j.pending) == 0 {
		return
	}
	if j.size > 0 && j.size+int64(len(j.pending)) > maxJournalBytes {
		if err := j.openFile(j.num + 1); err != nil {
			j.recordLoss(0, err)
			return
		}
	}
	n, err := j.file.Write(j.pending)
	if err == nil {
		j.lostLines, j.noticePending, j.pending = 0, false, j.pending[:0]
		j.size += int64(n)
		return
	}
	n = bytes.LastIndexByte(j.pending[:n], '\n') + 1 // whole lines only: readers count on it
	j.size += int64(n)
	_ = j.file.Truncate(j.size)
	_, _ = j.file.Seek(j.size, io.SeekStart)
	j.recordLoss(n, err)
}

// recordLoss counts what of unsent was not written, from the n-th byte on.
func (j *journal) recordLoss(n int, err error) {
	lines := bytes.Count(j.pending[n:], []byte("\n"))
	switch {
	case j.noticePending && n == 0:
		lines += j.lostLines - 1
	case !j.noticePending:
		lines += j.lostLines
	}
	j.lostLines, j.lossCause, j.noticePending, j.pending = lines, err, false, j.pending[:0]
}

// copyLastLines returns the last lines.
func (j *journal) copyLastLines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lastLines...)
}

// parseLine reads a line as append writes it.
func parseLine(line []byte) (dstack.LogLine, bool) {
	micros, rest, ok := bytes.Cut(line, []byte(" "))
	at, err := strconv.ParseInt(string(micros), 10, 64)
	if !ok || err != nil || len(rest) < 2 {
		return dstack.LogLine{}, false
	}
	stream := "stdout"
	if rest[0] == 'e' {
		stream = "stderr"
	}
	return dstack.LogLine{At: time.UnixMicro(at).UTC(), Stream: stream, Text: bytes.Clone(rest[2:])}, true
}

// listJournals returns the numbers of the files there are, lowest first.
func listJournals(dir folder) []int {
	names, _ := filepath.Glob(dir.path("log.*"))
	var nums []int
	for _, name := range names {
		if n, err := strconv.Atoi(filepath.Ext(name)[1:]); err == nil {
			nums = append(nums, n)
		}
	}
	return nums
}
