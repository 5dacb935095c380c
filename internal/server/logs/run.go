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
	segmentSuffix = ".log"
	finishedName  = "done" // an empty file in the folder of a finished attempt
	maxSegments   = 512    // files of one run; a run that crashes often has many small ones
)

// runLogs is the cached state of one run's logs. mu guards all fields but
// references.
type runLogs struct {
	dir        string
	references int // calls that use the run; guarded by Store.mu

	mu       sync.Mutex
	loaded   bool
	bytes    int64 // on disk
	attempts map[dstack.AttemptID]*attemptLogs
}

// attemptLogs is the cached state of one attempt's logs.
type attemptLogs struct {
	id        dstack.AttemptID
	segments  []segment // oldest first
	lastAt    int64     // time of the latest line in microseconds; valid only if lastKnown
	lastKnown bool
	finished  bool
	lostLines int           // lines dropped because the disk was full, and not reported yet
	waiters   chan struct{} // closed by wakeFollowers; nil: no follower waits
	removed   chan struct{} // closed when the attempt is removed
}

// segment is a file of lines. Its name is the time of its first line, so that
// the oldest segment of a run is known without opening files.
type segment struct {
	start int64 // microseconds
	size  int64
}

func (s segment) fileName() string { return strconv.FormatInt(s.start, 10) + segmentSuffix }

func (r *runLogs) attemptDir(a *attemptLogs) string { return filepath.Join(r.dir, string(a.id)) }

// findAttempt returns the state of an attempt. It adds one without segments if
// there is none.
func (r *runLogs) findAttempt(id dstack.AttemptID) *attemptLogs {
	a := r.attempts[id]
	if a == nil {
		a = &attemptLogs{id: id, removed: make(chan struct{})}
		r.attempts[id] = a
	}
	return a
}

// isEvictable reports whether the state of an unused run can be dropped from
// memory: no attempt has unreported lost lines or a waiting follower.
func (r *runLogs) isEvictable() bool {
	for _, a := range r.attempts {
		if a.lostLines > 0 || a.waiters != nil {
			return false
		}
	}
	return true
}

// waitChannel returns a channel that the next wakeFollowers closes.
func (a *attemptLogs) waitChannel() <-chan struct{} {
	if a.waiters == nil {
		a.waiters = make(chan struct{})
	}
	return a.waiters
}

// wakeFollowers wakes all followers of the attempt.
func (a *attemptLogs) wakeFollowers() {
	if a.waiters != nil {
		close(a.waiters)
		a.waiters = nil
	}
}

// loadAttempts reads what earlier processes have written. It does so only once.
func (r *runLogs) loadAttempts() error {
	if r.loaded {
		return nil
	}
	folders, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.bytes = 0
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		a := r.findAttempt(dstack.AttemptID(folder.Name()))
		if err := r.loadAttempt(a); err != nil {
			return err
		}
		for _, seg := range a.segments {
			r.bytes += seg.size
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
		if file.Name() == finishedName {
			a.finished = true
		}
		text, isSegment := strings.CutSuffix(file.Name(), segmentSuffix)
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

// readEnd reads the time of the latest line, and truncates an incomplete line
// that a killed process has left.
func (r *runLogs) readEnd(a *attemptLogs) error {
	if a.lastKnown || len(a.segments) == 0 {
		a.lastKnown = true
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
		r.bytes -= newest.size - end
		newest.size = end
	}
	a.lastAt, a.lastKnown = max(last, newest.start), true
	return nil
}

// markFinished marks an attempt as finished on disk.
func (r *runLogs) markFinished(a *attemptLogs) error {
	if err := os.MkdirAll(r.attemptDir(a), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.attemptDir(a), finishedName), nil, 0o600)
}
