package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"dstack/internal/dstack"
)

const (
	suffix      = ".log"
	doneName    = "done" // an empty file: Finish was called
	maxSegments = 512    // files of a run: one that crashes all the time has many small ones
)

// runLogs is what lies on disk of one run's output. mu guards all of it but users.
type runLogs struct {
	dir   string
	users int // guarded by Store.mu; a run in use is not forgotten

	mu       sync.Mutex
	loaded   bool
	total    int64 // bytes
	attempts map[dstack.AttemptID]*attemptLogs
}

// attemptLogs is what lies on disk of one attempt's output.
type attemptLogs struct {
	id       dstack.AttemptID
	segments []segment // oldest first
	last     int64     // time of the newest line; right only once known
	known    bool
	finished bool
	lost     int           // lines, since the disk is full
	more     chan struct{} // closed when anything comes; nil: nobody waits
	gone     chan struct{} // closed when all was removed
}

// segment is a file of lines. Its name is the time of its first one, so that
// names alone tell which is the oldest of a run.
type segment struct {
	start int64 // microseconds
	size  int64
}

func (s segment) fileName() string { return strconv.FormatInt(s.start, 10) + suffix }

func (r *runLogs) attemptDir(a *attemptLogs) string { return filepath.Join(r.dir, string(a.id)) }

// findAttempt returns what is known of an attempt; of a new one, nothing.
func (r *runLogs) findAttempt(id dstack.AttemptID) *attemptLogs {
	a := r.attempts[id]
	if a == nil {
		a = &attemptLogs{id: id, gone: make(chan struct{})}
		r.attempts[id] = a
	}
	return a
}

// isEvictable says that nothing about the run is known here alone. It is asked only
// of runs that nobody uses.
func (r *runLogs) isEvictable() bool {
	for _, a := range r.attempts {
		if a.lost > 0 || a.more != nil {
			return false
		}
	}
	return true
}

// changed returns a channel that the next wake closes.
func (a *attemptLogs) changed() <-chan struct{} {
	if a.more == nil {
		a.more = make(chan struct{})
	}
	return a.more
}

func (a *attemptLogs) notify() {
	if a.more != nil {
		close(a.more)
		a.more = nil
	}
}

// loadAttempts finds out what an earlier process left.
func (r *runLogs) loadAttempts() error {
	if r.loaded {
		return nil
	}
	folders, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.total = 0
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		a := r.findAttempt(dstack.AttemptID(folder.Name()))
		if err := r.loadAttempt(a); err != nil {
			return err
		}
		for _, seg := range a.segments {
			r.total += seg.size
		}
	}
	r.loaded = true
	return nil
}

func (r *runLogs) loadAttempt(a *attemptLogs) error {
	files, err := os.ReadDir(r.attemptDir(a))
	if err != nil {
		return err
	}
	a.segments = nil
	for _, file := range files {
		if file.Name() == doneName {
			a.finished = true
		}
		text, isSegment := strings.CutSuffix(file.Name(), suffix)
		start, err := strconv.ParseInt(text, 10, 64)
		if !isSegment || err != nil {
			continue
		}
		info, err := file.Info()
		if err != nil {
			return err
		}
		a.segments = append(a.segments, segment{start: start, size: info.Size()})
	}
	slices.SortFunc(a.segments, func(x, y segment) int { return int(x.start - y.start) })
	return nil
}

// readEnd finds the time of the newest line, and cuts off what a killed
// process left half written.
func (r *runLogs) readEnd(a *attemptLogs) error {
	if a.known || len(a.segments) == 0 {
		a.known = true
		return nil
	}
	newest := &a.segments[len(a.segments)-1]
	file := filepath.Join(r.attemptDir(a), newest.fileName())
	end, last, err := findLastLine(file)
	if err != nil {
		return err
	}
	if end < newest.size {
		if err := os.Truncate(file, end); err != nil {
			return err
		}
		r.total -= newest.size - end
		newest.size = end
	}
	a.last, a.known = max(last, newest.start), true
	return nil
}

// markFinished notes on disk that an attempt is finished.
func (r *runLogs) markFinished(a *attemptLogs) error {
	if err := os.MkdirAll(r.attemptDir(a), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.attemptDir(a), doneName), nil, 0o600)
}
