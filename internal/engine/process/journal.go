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
	journalFile  = 8 << 20
	journalFiles = 2
	longestLine  = 32 << 10 // what is longer becomes several lines
)

// journal is the output of one attempt, written by its keeper. A full disk
// loses output, and says how much once there is room again; it never stops
// the process.
type journal struct {
	mu     sync.Mutex
	dir    folder
	file   *os.File
	num    int
	size   int64
	unsent []byte // whole lines
	stamps engine.MonotonicClock
	last   []string

	lost      int   // lines that no line on disk tells of
	why       error // of the loss
	confessed bool  // unsent begins with a line about it
}

const lastLines, lastWidth = 10, 2 << 10

func openJournal(dir folder) (*journal, error) {
	j := &journal{dir: dir}
	return j, j.open(1)
}

func journalName(num int) string { return "log." + strconv.Itoa(num) }

func (j *journal) open(num int) error {
	f, err := os.OpenFile(j.dir.file(journalName(num)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.num, j.size = f, num, 0
	_ = os.Remove(j.dir.file(journalName(num - journalFiles)))
	return nil
}

// add takes a line. It reaches the disk with the next flush.
func (j *journal) add(stream string, text []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.confess()
	text = bytes.TrimSuffix(text, []byte("\r"))
	j.append(time.Now(), stream, text)
	line := string(text[:min(len(text), lastWidth)])
	if j.last = append(j.last, line); len(j.last) > lastLines {
		j.last = j.last[1:]
	}
	if len(j.unsent) > 256<<10 {
		j.send()
	}
}

func (j *journal) append(at time.Time, stream string, text []byte) {
	j.unsent = strconv.AppendInt(j.unsent, j.stamps.Next(at).UnixMicro(), 10)
	j.unsent = append(j.unsent, ' ', stream[3], ' ') // stdOut, stdErr
	j.unsent = append(append(j.unsent, text...), '\n')
}

// flush brings to disk what was added.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.send()
}

// finish flushes; nothing is added any more.
func (j *journal) finish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.send()
	j.confess()
	j.send()
}

// confess begins unsent with a line about what was lost.
func (j *journal) confess() {
	if j.lost > 0 && !j.confessed {
		j.confessed = true
		j.append(time.Now(), "stderr", fmt.Appendf(nil, "dstack: %d lines of output are missing here: %v", j.lost, j.why))
	}
}

func (j *journal) send() {
	if len(j.unsent) == 0 {
		return
	}
	if j.size > 0 && j.size+int64(len(j.unsent)) > journalFile {
		if err := j.open(j.num + 1); err != nil {
			j.lose(0, err)
			return
		}
	}
	n, err := j.file.Write(j.unsent)
	if err == nil {
		j.lost, j.confessed, j.unsent = 0, false, j.unsent[:0]
		j.size += int64(n)
		return
	}
	n = bytes.LastIndexByte(j.unsent[:n], '\n') + 1 // whole lines only: readers count on it
	j.size += int64(n)
	_ = j.file.Truncate(j.size)
	_, _ = j.file.Seek(j.size, io.SeekStart)
	j.lose(n, err)
}

// lose counts what of unsent was not written, from the n-th byte on.
func (j *journal) lose(n int, err error) {
	lines := bytes.Count(j.unsent[n:], []byte("\n"))
	switch {
	case j.confessed && n == 0:
		lines += j.lost - 1
	case !j.confessed:
		lines += j.lost
	}
	j.lost, j.why, j.confessed, j.unsent = lines, err, false, j.unsent[:0]
}

// tail returns the last lines.
func (j *journal) tail() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.last...)
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

// journals returns the numbers of the files there are, lowest first.
func journals(dir folder) []int {
	names, _ := filepath.Glob(dir.file("log.*"))
	var nums []int
	for _, name := range names {
		if n, err := strconv.Atoi(filepath.Ext(name)[1:]); err == nil {
			nums = append(nums, n)
		}
	}
	return nums
}
