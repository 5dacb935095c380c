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

// Limits on the output of one attempt on disk. The oldest file is deleted first.
const (
	maxJournalBytes = 8 << 20 // of one file
	maxJournalFiles = 2
	maxLineBytes    = 32 << 10  // a longer line is split
	maxPendingBytes = 256 << 10 // more is written without waiting for a flush
)

// journal writes the output of one attempt to files; the keeper owns it. If the disk is
// full, output is lost but the attempt keeps running; once there is space again, the
// journal has a line that says how much was lost.
type journal struct {
	mu        sync.Mutex
	dir       folder
	file      *os.File
	num       int
	size      int64
	pending   []byte // complete lines that are not on disk yet
	clock     engine.MonotonicClock
	lastLines []string

	lostLines     int   // lines that were lost and that no notice on disk counts
	lossCause     error // of the loss
	noticePending bool  // pending begins with a notice about the loss
}

// Limits on the last lines in an attempt's report.
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

// add appends a line of the command, whose stdout and stderr are one stream. The line is
// on disk after the next flush.
func (j *journal) add(text []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addLossNotice()
	text = bytes.TrimSuffix(text, []byte("\r"))
	j.appendLine(time.Now(), "stdout", text)
	line := string(text[:min(len(text), maxLastLineBytes)])
	if j.lastLines = append(j.lastLines, line); len(j.lastLines) > maxLastLines {
		j.lastLines = j.lastLines[1:]
	}
	if len(j.pending) > maxPendingBytes {
		j.writePending()
	}
}

func (j *journal) appendLine(at time.Time, stream string, text []byte) {
	j.pending = strconv.AppendInt(j.pending, j.clock.Next(at).UnixMicro(), 10)
	j.pending = append(j.pending, ' ', stream[3], ' ') // o for stdout, e for stderr
	j.pending = append(append(j.pending, text...), '\n')
}

// flush writes the added lines to disk.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writePending()
}

// finish writes all lines to disk, and a notice if any were lost. No line may be added
// after it.
func (j *journal) finish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writePending()
	j.addLossNotice()
	j.writePending()
}

// addLossNotice puts a notice about lost lines into pending, if any were lost.
func (j *journal) addLossNotice() {
	if j.lostLines > 0 && !j.noticePending {
		j.noticePending = true
		j.appendLine(time.Now(), "stderr", fmt.Appendf(nil, "dstack: %d lines of output are missing here: %v", j.lostLines, j.lossCause))
	}
}

// writePending writes the pending lines to the current file, or to a new one if that is
// full. If the write fails, the lines are lost: the keeper must not run out of memory.
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
	n = bytes.LastIndexByte(j.pending[:n], '\n') + 1 // readers need complete lines
	j.size += int64(n)
	_ = j.file.Truncate(j.size)
	_, _ = j.file.Seek(j.size, io.SeekStart)
	j.recordLoss(n, err)
}

// recordLoss counts the pending lines from the n-th byte on as lost and empties pending.
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

// copyLastLines returns the last lines of the output.
func (j *journal) copyLastLines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lastLines...)
}

// parseLine parses a line as appendLine writes it.
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

// listJournals returns the numbers of a journal's files, in no particular order.
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
