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
	suffix       = ".log"
	doneName     = "done" // an empty file: Finish was called
	mostSegments = 512    // files of a run: one that crashes all the time has many small ones
)

// run is what lies on disk of one run's output. mu guards all of it but users.
type run struct {
	dir   string
	users int // guarded by Store.mu; a run in use is not forgotten

	mu       sync.Mutex
	loaded   bool
	total    int64 // bytes
	attempts map[dstack.AttemptID]*attempt
}

// attempt is what lies on disk of one attempt's output.
type attempt struct {
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

func (s segment) name() string { return strconv.FormatInt(s.start, 10) + suffix }

func (r *run) path(a *attempt) string { return filepath.Join(r.dir, string(a.id)) }

// attempt returns what is known of an attempt; of a new one, nothing.
func (r *run) attempt(id dstack.AttemptID) *attempt {
	a := r.attempts[id]
	if a == nil {
		a = &attempt{id: id, gone: make(chan struct{})}
		r.attempts[id] = a
	}
	return a
}

// quiet says that nothing about the run is known here alone. It is asked only
// of runs that nobody uses.
func (r *run) quiet() bool {
	for _, a := range r.attempts {
		if a.lost > 0 || a.more != nil {
			return false
		}
	}
	return true
}

// next returns a channel that the next wake closes.
func (a *attempt) next() <-chan struct{} {
	if a.more == nil {
		a.more = make(chan struct{})
	}
	return a.more
}

func (a *attempt) wake() {
	if a.more != nil {
		close(a.more)
		a.more = nil
	}
}

// load finds out what an earlier process left.
func (r *run) load() error {
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
		a := r.attempt(dstack.AttemptID(folder.Name()))
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

func (r *run) loadAttempt(a *attempt) error {
	files, err := os.ReadDir(r.path(a))
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
func (r *run) readEnd(a *attempt) error {
	if a.known || len(a.segments) == 0 {
		a.known = true
		return nil
	}
	newest := &a.segments[len(a.segments)-1]
	file := filepath.Join(r.path(a), newest.name())
	end, last, err := endOf(file)
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

// mark notes on disk that an attempt is finished.
func (r *run) mark(a *attempt) error {
	if err := os.MkdirAll(r.path(a), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.path(a), doneName), nil, 0o600)
}
