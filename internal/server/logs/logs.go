// Package logs keeps the output of replicas on disk: append, read, follow,
// bounded for each run.
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
)

const (
	maxLineBytes  = 64 << 10 // longer lines are cut
	minLimit      = 4 << 10  // of bytes of a run
	maxCachedRuns = 256      // runs of which it is remembered what lies on disk
)

// Key names the output of one attempt.
type Key struct {
	Project string // its name
	Run     dstack.RunID
	RunName string
	Attempt dstack.AttemptID
}

// Store keeps logs below a folder: <dir>/<project>/logs/<run name>/<attempt>/…
// It holds no file open between calls.
type Store struct {
	dir   string
	limit int64
	open  fileOpener

	mu   sync.Mutex
	runs map[string]*runLogs // by folder
}

// New returns a store below dir. Each run keeps at most limit bytes on disk;
// the oldest output goes first. A full disk loses output, never fails a run:
// a line says how much is missing once there is room again.
func New(dir string, limit int64) *Store {
	return &Store{dir: dir, limit: max(limit, minLimit), open: openFile, runs: map[string]*runLogs{}}
}

// Append writes lines in order. It makes their times strictly growing, and
// cuts long ones into pieces. On a full disk it drops them and returns nil.
func (s *Store) Append(k Key, lines ...dstack.LogLine) error {
	return s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		if err := r.readEnd(a); err != nil {
			return err
		}
		pieces := splitLines(lines, s.maxLineLength())
		if len(pieces) == 0 {
			return nil
		}
		before := a.lost
		if before > 0 { // told together with the first line that fits, or not yet
			pieces = slices.Insert(pieces, 0, lossLine(before, pieces[0].At))
		}
		written, err := r.appendLines(s, a, pieces)
		if written > 0 {
			a.lost = 0
		}
		if isFull(err) {
			a.lost += len(pieces) - written
			if before == 0 {
				slog.Warn("the disk is full: output is lost until there is room again", "folder", s.dir, "run", k.RunName)
			} else if written == 0 {
				a.lost-- // the line that tells is none of them
			}
			return nil
		}
		return err
	})
}

// maxLineLength is the longest text of one line: a small part of the limit.
func (s *Store) maxLineLength() int { return int(min(maxLineBytes, s.limit/16)) }

// lossLine says how much is missing.
func lossLine(lost int, at time.Time) dstack.LogLine {
	return dstack.LogLine{At: at, Stream: "stderr", Text: fmt.Appendf(nil, "… %d lines lost: the disk was full", lost)}
}

// Last returns the time of the newest line, zero when there is none.
func (s *Store) Last(k Key) (last time.Time) {
	_ = s.withAttempt(k, func(r *runLogs, a *attemptLogs) error { // what cannot be read is as good as none
		if err := r.readEnd(a); err != nil || a.last == 0 {
			return err
		}
		last = time.UnixMicro(a.last).UTC()
		return nil
	})
	return last
}

// Read yields the lines strictly after since (and before until, unless zero),
// oldest first.
func (s *Store) Read(ctx context.Context, k Key, since, until time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		c := cursor{after: toMicros(since), before: toMicros(until)}
		view, err := s.snapshotAttempt(k)
		if err != nil {
			yield(dstack.LogLine{}, err)
			return
		}
		if c.readSnapshot(ctx, view, yield) && ctx.Err() != nil {
			yield(dstack.LogLine{}, ctx.Err()) // not all of it
		}
	}
}

// Follow is Read, and then what comes, until Finish or ctx ends.
func (s *Store) Follow(ctx context.Context, k Key, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		c := cursor{after: toMicros(since)}
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
			case <-view.more:
			case <-ctx.Done():
				return
			}
			if isClosed(view.gone) {
				return
			}
		}
	}
}

// Finish says that no more will come; followers end.
func (s *Store) Finish(k Key) {
	_ = s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		if a.lost > 0 { // the last chance to tell
			if n, _ := r.appendLines(s, a, []dstack.LogLine{lossLine(a.lost, time.UnixMicro(a.last))}); n > 0 {
				a.lost = 0
			}
		}
		a.finished = true
		a.notify()
		// Without the mark a later process asks the engine again, and hears
		// nothing new.
		return r.markFinished(a)
	})
}

// Finished says whether Finish was called, by this process or an earlier one.
func (s *Store) Finished(k Key) (finished bool) {
	_ = s.withAttempt(k, func(_ *runLogs, a *attemptLogs) error {
		finished = a.finished
		return nil
	})
	return finished
}

// Remove deletes all logs of a run. Those who follow them end.
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
		close(a.gone)
		a.notify()
	}
	r.attempts, r.total, r.loaded = map[dstack.AttemptID]*attemptLogs{}, 0, false
	if err := os.RemoveAll(dir); err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot remove the logs of " + runName + ": " + err.Error(), Cause: err}
	}
	return nil
}

// RemoveProject deletes all logs of a project's runs. Those who follow them
// end.
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
		return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot remove the logs of project " + project + ": " + err.Error(), Cause: err}
	}
	return nil
}

// runFolder is where the logs of a run lie. Names that would lead elsewhere are
// refused.
func (s *Store) runFolder(project, runName string) (string, error) {
	for _, name := range []string{project, runName} {
		if err := checkPathElement(name); err != nil {
			return "", err
		}
	}
	return filepath.Join(s.dir, project, "logs", runName), nil
}

// checkPathElement checks that a name is one path element and no more.
func checkPathElement(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\\\x00") {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q cannot be the name of a folder of logs", name)}
	}
	return nil
}

// withAttempt runs do on an attempt, alone within its run.
func (s *Store) withAttempt(k Key, do func(*runLogs, *attemptLogs) error) error {
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
	err = do(r, r.findAttempt(k.Attempt))
	if err != nil && !isFull(err) {
		return newDiskError("keep", err)
	}
	return err
}

func newDiskError(what string, err error) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot %s logs: %s", what, err), Cause: err,
		Hint: "check that the server's folder is its own and that its disk works",
	}
}

// snapshotAttempt is what an attempt has at this moment.
func (s *Store) snapshotAttempt(k Key) (v snapshot, err error) {
	err = s.withAttempt(k, func(r *runLogs, a *attemptLogs) error {
		v = snapshot{dir: r.attemptDir(a), segments: append([]segment(nil), a.segments...), finished: a.finished, more: a.changed(), gone: a.gone}
		return nil
	})
	return v, err
}

// acquireRun returns what is known of a run and keeps it known until give.
func (s *Store) acquireRun(dir string) *runLogs {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[dir]
	if r == nil {
		r = &runLogs{dir: dir, attempts: map[dstack.AttemptID]*attemptLogs{}}
		s.runs[dir] = r
	}
	r.users++
	return r
}

// releaseRun lets a run be forgotten when too many are known: everything about it
// is on disk, but for what nobody would miss.
func (s *Store) releaseRun(r *runLogs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.users--
	if len(s.runs) <= maxCachedRuns {
		return
	}
	for dir, other := range s.runs {
		if other.users == 0 && other.isEvictable() {
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

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func toMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
