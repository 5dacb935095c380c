package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// The poll interval of Logs is short after new output and grows while there is none.
const (
	minPollInterval = 10 * time.Millisecond
	maxPollInterval = 200 * time.Millisecond
)

// Logs implements engine.Engine.
func (e *Engine) Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		r := logReader{dir: e.folderOf(id), since: since}
		defer r.close()
		for wait := minPollInterval; ; {
			over := r.dir.isOver() && !e.isPreparing(id)
			more, proceed := r.drain(yield)
			switch {
			case !proceed:
				return
			case r.err != nil:
				yield(dstack.LogLine{}, r.err)
				return
			case more:
				wait = minPollInterval
			case over:
				if r.lostFiles > 0 {
					yield(dstack.LogLine{}, fmt.Errorf("%d files of output were dropped before they were read", r.lostFiles))
				}
				return
			}
			if loop.Sleep(ctx, wait) != nil {
				return
			}
			wait = min(wait*3/2, maxPollInterval)
		}
	}
}

// logReader reads the files of a journal, which may still grow.
type logReader struct {
	dir         folder
	since       time.Time
	file        *os.File
	num         int
	partialLine []byte // the start of a line whose end has not been read yet
	lostFiles   int
	err         error
}

func (r *logReader) close() {
	if r.file != nil {
		_ = r.file.Close()
	}
}

// drain yields all lines that are in the journal now. more says that there were any;
// proceed is false if the consumer has stopped.
func (r *logReader) drain(yield func(dstack.LogLine, error) bool) (more, proceed bool) {
	for {
		if r.file == nil && !r.openFile(0) {
			return more, true
		}
		next := r.nextFile() // before reading: once a later file exists, this file is complete
		got, proceed := r.drainFile(yield)
		more = more || got
		if !proceed || r.err != nil || next == 0 {
			return more, proceed
		}
		if r.lostFiles += next - r.num - 1; !r.openFile(next) {
			return more, true
		}
	}
}

// nextFile returns the number of the oldest file after the current one; 0 if there is
// none.
func (r *logReader) nextFile() int {
	nums := listJournals(r.dir)
	slices.Sort(nums)
	for _, n := range nums {
		if n > r.num {
			return n
		}
	}
	return 0
}

// openFile opens a file of the journal; number 0 means the oldest. It returns false if
// the file does not exist or cannot be opened.
func (r *logReader) openFile(num int) bool {
	if num == 0 {
		if num = r.nextFile(); num == 0 {
			return false
		}
	}
	f, err := os.Open(r.dir.path(journalName(num)))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.err = err
		}
		return false
	}
	r.close()
	r.file, r.num, r.partialLine = f, num, nil
	return true
}

func (r *logReader) drainFile(yield func(dstack.LogLine, error) bool) (more, proceed bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.file.Read(buf)
		data := append(r.partialLine, buf[:n]...)
		for {
			line, tail, found := bytes.Cut(data, []byte("\n"))
			if !found {
				break
			}
			data = tail
			if l, ok := parseLine(line); ok && l.At.After(r.since) {
				more, r.since = true, l.At
				if !yield(l, nil) {
					return more, false
				}
			}
		}
		r.partialLine = bytes.Clone(data)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.err = err
			}
			return more, true
		}
	}
}
