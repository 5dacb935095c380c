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
)

// How often a follower looks for more: often after output, seldom after none.
const (
	minPollInterval = 10 * time.Millisecond
	maxPollInterval = 200 * time.Millisecond
)

// Logs is described at engine.Engine.
func (e *Engine) Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		r := logReader{dir: e.folderOf(id), since: since}
		defer r.close()
		for wait := minPollInterval; ; {
			over := r.dir.isOver() && !e.isPreparing(id)
			more, goOn := r.drain(yield)
			switch {
			case !goOn:
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
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(wait*3/2, maxPollInterval)
		}
	}
}

// logReader walks through the files of a journal that may still grow.
type logReader struct {
	dir         folder
	since       time.Time
	file        *os.File
	num         int
	partialLine []byte // the start of a line
	lostFiles   int
	err         error
}

func (r *logReader) close() {
	if r.file != nil {
		_ = r.file.Close()
	}
}

// drain yields all there is by now; goOn is false when nobody listens any more.
func (r *logReader) drain(yield func(dstack.LogLine, error) bool) (more, goOn bool) {
	for {
		if r.file == nil && !r.openFile(0) {
			return more, true
		}
		later := r.nextFile() // looked up first: once it is there, this file grows no more
		got, goOn := r.drainFile(yield)
		more = more || got
		if !goOn || r.err != nil || later == 0 {
			return more, goOn
		}
		if r.lostFiles += later - r.num - 1; !r.openFile(later) {
			return more, true
		}
	}
}

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

func (r *logReader) drainFile(yield func(dstack.LogLine, error) bool) (more, goOn bool) {
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
