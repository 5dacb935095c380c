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
	longestPiece = 64 << 10 // longer lines are cut
	leastLimit   = 4 << 10  // of bytes of a run
	runsKept     = 256      // runs of which it is remembered what lies on disk
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
	open  opener

	mu   sync.Mutex
	runs map[string]*run // by folder
}

// New returns a store below dir. Each run keeps at most limit bytes on disk;
// the oldest output goes first. A full disk loses output, never fails a run:
// a line says how much is missing once there is room again.
func New(dir string, limit int64) *Store {
	return &Store{dir: dir, limit: max(limit, leastLimit), open: openFile, runs: map[string]*run{}}
}

// Append writes lines in order. It makes their times strictly growing, and
// cuts long ones into pieces. On a full disk it drops them and returns nil.
func (s *Store) Append(k Key, lines ...dstack.LogLine) error {
	return s.with(k, func(r *run, a *attempt) error {
		if err := r.readEnd(a); err != nil {
			return err
		}
		pieces := cut(lines, s.piece())
		if len(pieces) == 0 {
			return nil
		}
		before := a.lost
		if before > 0 { // told together with the first line that fits, or not yet
			pieces = slices.Insert(pieces, 0, lossLine(before, pieces[0].At))
		}
		written, err := r.write(s, a, pieces)
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

// piece is the longest text of one line: a small part of the limit.
func (s *Store) piece() int { return int(min(longestPiece, s.limit/16)) }

// lossLine says how much is missing.
func lossLine(lost int, at time.Time) dstack.LogLine {
	return dstack.LogLine{At: at, Stream: "stderr", Text: fmt.Appendf(nil, "… %d lines lost: the disk was full", lost)}
}

// Last returns the time of the newest line, zero when there is none.
func (s *Store) Last(k Key) (last time.Time) {
	_ = s.with(k, func(r *run, a *attempt) error { // what cannot be read is as good as none
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
		c := cursor{after: micros(since), before: micros(until)}
		view, err := s.look(k)
		if err != nil {
			yield(dstack.LogLine{}, err)
			return
		}
		if c.read(ctx, view, yield) && ctx.Err() != nil {
			yield(dstack.LogLine{}, ctx.Err()) // not all of it
		}
	}
}

// Follow is Read, and then what comes, until Finish or ctx ends.
func (s *Store) Follow(ctx context.Context, k Key, since time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(yield func(dstack.LogLine, error) bool) {
		c := cursor{after: micros(since)}
		for {
			view, err := s.look(k)
			if err != nil {
				yield(dstack.LogLine{}, err)
				return
			}
			if !c.read(ctx, view, yield) || view.finished || ctx.Err() != nil {
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
	_ = s.with(k, func(r *run, a *attempt) error {
		if a.lost > 0 { // the last chance to tell
			if n, _ := r.write(s, a, []dstack.LogLine{lossLine(a.lost, time.UnixMicro(a.last))}); n > 0 {
				a.lost = 0
			}
		}
		a.finished = true
		a.wake()
		// Without the mark a later process asks the engine again, and hears
		// nothing new.
		return r.mark(a)
	})
}

// Finished says whether Finish was called, by this process or an earlier one.
func (s *Store) Finished(k Key) (finished bool) {
	_ = s.with(k, func(_ *run, a *attempt) error {
		finished = a.finished
		return nil
	})
	return finished
}

// Remove deletes all logs of a run. Those who follow them end.
func (s *Store) Remove(project, runName string) error {
	dir, err := s.folder(project, runName)
	if err != nil {
		return err
	}
	r := s.take(dir)
	defer s.give(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.attempts {
		close(a.gone)
		a.wake()
	}
	r.attempts, r.total, r.loaded = map[dstack.AttemptID]*attempt{}, 0, false
	if err := os.RemoveAll(dir); err != nil {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot remove the logs of " + runName + ": " + err.Error(), Cause: err}
	}
	return nil
}

// RemoveProject deletes all logs of a project's runs. Those who follow them
// end.
func (s *Store) RemoveProject(project string) error {
	if err := element(project); err != nil {
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

// folder is where the logs of a run lie. Names that would lead elsewhere are
// refused.
func (s *Store) folder(project, runName string) (string, error) {
	for _, name := range []string{project, runName} {
		if err := element(name); err != nil {
			return "", err
		}
	}
	return filepath.Join(s.dir, project, "logs", runName), nil
}

// element checks that a name is one path element and no more.
func element(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\\\x00") {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q cannot be the name of a folder of logs", name)}
	}
	return nil
}

// with runs do on an attempt, alone within its run.
func (s *Store) with(k Key, do func(*run, *attempt) error) error {
	dir, err := s.folder(k.Project, k.RunName)
	if err != nil {
		return err
	}
	if err := element(string(k.Attempt)); err != nil {
		return err
	}
	r := s.take(dir)
	defer s.give(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return cannot("read", err)
	}
	err = do(r, r.attempt(k.Attempt))
	if err != nil && !isFull(err) {
		return cannot("keep", err)
	}
	return err
}

func cannot(what string, err error) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot %s logs: %s", what, err), Cause: err,
		Hint: "check that the server's folder is its own and that its disk works",
	}
}

// look is what an attempt has at this moment.
func (s *Store) look(k Key) (v view, err error) {
	err = s.with(k, func(r *run, a *attempt) error {
		v = view{dir: r.path(a), segments: append([]segment(nil), a.segments...), finished: a.finished, more: a.next(), gone: a.gone}
		return nil
	})
	return v, err
}

// take returns what is known of a run and keeps it known until give.
func (s *Store) take(dir string) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[dir]
	if r == nil {
		r = &run{dir: dir, attempts: map[dstack.AttemptID]*attempt{}}
		s.runs[dir] = r
	}
	r.users++
	return r
}

// give lets a run be forgotten when too many are known: everything about it
// is on disk, but for what nobody would miss.
func (s *Store) give(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.users--
	if len(s.runs) <= runsKept {
		return
	}
	for dir, other := range s.runs {
		if other.users == 0 && other.quiet() {
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

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
