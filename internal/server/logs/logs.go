// Package logs keeps the output of replicas on disk: append, read, follow,
// bounded for each run.
package logs

import (
	"context"
	"iter"
	"time"

	"dstack/internal/dstack"
)

// Key names the output of one attempt.
type Key struct {
	Project string // its name
	Run     dstack.RunID
	RunName string
	Attempt dstack.AttemptID
}

// Store keeps logs below a folder: <dir>/<project>/logs/<run name>/<attempt>/…
type Store struct{}

// New returns a store below dir. Each run keeps at most limit bytes on disk;
// the oldest output goes first. A full disk loses output, never fails a run:
// a line says how much is missing once there is room again.
func New(dir string, limit int64) *Store { panic("being written") }

// Append writes lines in order. It makes their times strictly growing.
func (s *Store) Append(k Key, lines ...dstack.LogLine) error { panic("being written") }

// Last returns the time of the newest line, zero when there is none.
func (s *Store) Last(k Key) time.Time { panic("being written") }

// Read yields the lines strictly after since (and before until, unless zero), oldest first.
func (s *Store) Read(ctx context.Context, k Key, since, until time.Time) iter.Seq2[dstack.LogLine, error] {
	panic("being written")
}

// Follow is Read, and then what comes, until Finish or ctx ends.
func (s *Store) Follow(ctx context.Context, k Key, since time.Time) iter.Seq2[dstack.LogLine, error] {
	panic("being written")
}

// Finish says that no more will come; followers end.
func (s *Store) Finish(k Key) { panic("being written") }

// Finished says whether Finish was called, by this process or an earlier one.
func (s *Store) Finished(k Key) bool { panic("being written") }

// Remove deletes all logs of a run.
func (s *Store) Remove(project, runName string) error { panic("being written") }
