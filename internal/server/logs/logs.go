// Package logs stores the output of replicas on disk, up to a size limit for
// each run: it appends lines, reads them by time and follows new ones.
package logs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	maxLineBytes  = 64 << 10 // longer lines are split
	minLimit      = 4 << 10  // bytes of one run
	maxCachedRuns = 256      // runs whose segments are kept in memory
)

// Key identifies the logs of one attempt.
type Key struct {
	Project string // the name of the project
	Run     dstack.RunID
	RunName string
	Attempt dstack.AttemptID
}

// Store stores logs in <dir>/<project>/logs/<run name>/<attempt>/. It is safe for
// concurrent use, and keeps no files open between calls. Its errors are
// *dstack.Error: Invalid for a Key that is not a valid path, Unavailable if the
// disk fails.
type Store struct {
	dir   string
	limit int64
	open  fileOpener

	mu   sync.Mutex
	runs map[string]*runLogs // by folder; at most maxCachedRuns, and those in use
}

// New returns a store in the folder dir. Each run has at most limit bytes on
// disk; the oldest output is evicted first.
func New(dir string, limit int64) *Store {
	return &Store{dir: dir, limit: max(limit, minLimit), open: openFile, runs: map[string]*runLogs{}}
}

// Append appends lines to the logs of an attempt. It adjusts their times so that
// each line is later than the one before, and splits long lines. If the disk is
// full, it drops lines and returns nil: a full disk must not fail a run. Once
// there is space again, a line says how many lines were dropped.
func (s *Store) Append(k Key, lines ...dstack.LogLine) error {
	return s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		if err := r.readEnd(a); err != nil {
			return err
		}
		pieces := splitLines(lines, s.maxLineLength())
		if len(pieces) == 0 {
			return nil
		}
		before := a.lostLines
		if before > 0 { // written only together with a line that fits
			pieces = slices.Insert(pieces, 0, newLossLine(before, pieces[0].At))
		}
		written, err := r.appendLines(s, a, pieces)
		if written > 0 {
			a.lostLines = 0
		}
		if isDiskFull(err) {
			a.lostLines += len(pieces) - written
			if before == 0 {
				slog.Warn("the disk is full: output is lost until space is freed", "folder", s.dir, "run", k.RunName)
			} else if written == 0 {
				a.lostLines-- // the loss line was not written, and is no lost output
			}
			return nil
		}
		return err
	})
}

// maxLineLength returns the maximum length of a line, in bytes.
func (s *Store) maxLineLength() int { return int(min(maxLineBytes, s.limit/16)) }

// newLossLine returns the line that says how many lines were lost.
func newLossLine(lost int, at time.Time) dstack.LogLine {
	return dstack.LogLine{At: at, Stream: "stderr", Text: fmt.Appendf(nil, "… %d lines lost: the disk was full", lost)}
}

// Last returns the time of the latest line, zero if there is none or it cannot
// be read.
func (s *Store) Last(k Key) (last time.Time) {
	_ = s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		if err := r.readEnd(a); err != nil || a.lastAt == 0 {
			return err
		}
		last = time.UnixMicro(a.lastAt).UTC()
		return nil
	})
	return last
}

// Read yields the stored lines after since and, unless until is zero, before
// until, oldest first. After an error it yields no more lines. If ctx ends
// early, that is an error.
func (s *Store) Read(ctx context.Context, k Key, since, until time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		c := readCursor{after: toMicros(since), before: toMicros(until)}
		view, err := s.snapshotAttempt(k)
		if err != nil {
			yield(dstack.LogLine{}, err)
			return
		}
		if c.readSnapshot(ctx, view, yield) && ctx.Err() != nil {
			yield(dstack.LogLine{}, ctx.Err()) // the lines are incomplete
		}
	}
}

// Follow yields the stored lines after since, and then new lines as they are
// appended. The sequence ends after Finish or Remove, or without an error if
// ctx ends.
func (s *Store) Follow(ctx context.Context, k Key, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		c := readCursor{after: toMicros(since)}
		for {
			view, err := s.snapshotAttempt(k)
			if err != nil {
				yield(dstack.LogLine{}, err)
				return
			}
			if !c.readSnapshot(ctx, view, yield) || view.finished || ctx.Err() != nil {
				return
			}
			select {
			case <-view.changed:
			case <-ctx.Done():
				return
			}
			if isClosed(view.removed) {
				return
			}
		}
	}
}

// Finish marks an attempt as finished: no more lines will be appended.
// Sequences of Follow end after the last line.
func (s *Store) Finish(k Key) {
	_ = s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		if a.lostLines > 0 { // the last opportunity to report them
			if n, _ := r.appendLines(s, a, []dstack.LogLine{newLossLine(a.lostLines, time.UnixMicro(a.lastAt))}); n > 0 {
				a.lostLines = 0
			}
		}
		a.finished = true
		a.wakeFollowers()
		// If this fails, a later process only copies the attempt's output once
		// more, and finds no new lines.
		return r.markFinished(a)
	})
}

// Finished reports whether Finish was called, by this process or an earlier
// one.
func (s *Store) Finished(k Key) (finished bool) {
	_ = s.withAttempt(k, func(_ *runLogs, a *attemptLogs) error {
		finished = a.finished
		return nil
	})
	return finished
}

// Remove deletes all logs of a run. Sequences of Follow end. Removing a run
// without logs is no error.
func (s *Store) Remove(project, runName string) error {
	dir, err := s.runFolder(project, runName)
	if err != nil {
		return err
	}
	r := s.acquireRun(dir)
	defer s.releaseRun(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.attempts {
		close(a.removed)
		a.wakeFollowers()
	}
	r.attempts, r.bytes, r.loaded = map[dstack.AttemptID]*attemptLogs{}, 0, false
	if err := os.RemoveAll(dir); err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: "cannot remove the logs of " + runName + ": " + human.DescribeFailure(err)}
	}
	return nil
}

// RemoveProject deletes all logs of a project's runs.
func (s *Store) RemoveProject(project string) error {
	if err := checkPathElement(project); err != nil {
		return err
	}
	dir := filepath.Join(s.dir, project)
	runs, err := os.ReadDir(filepath.Join(dir, "logs"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, run := range runs {
		err = errors.Join(err, s.Remove(project, run.Name()))
	}
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: "cannot remove the logs of project " + project + ": " + human.DescribeFailure(err)}
	}
	return nil
}

// runFolder returns the folder of a run. It refuses names that lead out of the
// store.
func (s *Store) runFolder(project, runName string) (string, error) {
	for _, name := range []string{project, runName} {
		if err := checkPathElement(name); err != nil {
			return "", err
		}
	}
	return filepath.Join(s.dir, project, "logs", runName), nil
}

// checkPathElement checks that a name is one element of a path.
func checkPathElement(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\\\x00") {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is not a valid name for a folder of logs", name)}
	}
	return nil
}

// withAttempt calls use with an attempt and its run. It holds the lock of the
// run.
func (s *Store) withAttempt(k Key, use func(*runLogs, *attemptLogs) error) error {
	dir, err := s.runFolder(k.Project, k.RunName)
	if err != nil {
		return err
	}
	if err := checkPathElement(string(k.Attempt)); err != nil {
		return err
	}
	r := s.acquireRun(dir)
	defer s.releaseRun(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.loadAttempts(); err != nil {
		return newDiskError("read", err)
	}
	err = use(r, r.findAttempt(k.Attempt))
	if err != nil && !isDiskFull(err) {
		return newDiskError("store", err)
	}
	return err
}

func newDiskError(verb string, err error) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot %s logs: %s", verb, human.DescribeFailure(err)), Cause: err,
		Hint: "check that the server may write to its folder and that the disk works",
	}
}

// snapshotAttempt returns the current state of an attempt.
func (s *Store) snapshotAttempt(k Key) (v attemptSnapshot, err error) {
	err = s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		v = attemptSnapshot{dir: r.attemptDir(a), segments: slices.Clone(a.segments), finished: a.finished,
			changed: a.waitChannel(), removed: a.removed}
		return nil
	})
	return v, err
}

// acquireRun returns the cached state of a run and keeps it in the cache until
// releaseRun.
func (s *Store) acquireRun(dir string) *runLogs {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[dir]
	if r == nil {
		r = &runLogs{dir: dir, attempts: map[dstack.AttemptID]*attemptLogs{}}
		s.runs[dir] = r
	}
	r.references++
	return r
}

// releaseRun undoes one acquireRun. If the cache is too large, it evicts an
// unused run, whose state can be read from disk again.
func (s *Store) releaseRun(r *runLogs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.references--
	if len(s.runs) <= maxCachedRuns {
		return
	}
	for dir, other := range s.runs {
		if other.references == 0 && other.isEvictable() {
			delete(s.runs, dir)
			return
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// isDiskFull reports whether an error means that the disk or a quota is full.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// toMicros returns a time in microseconds since 1970, and 0 for the zero time.
func toMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
