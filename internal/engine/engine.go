// Package engine runs replicas on one machine: the port. engine/enginetest
// is its contract as a test.
package engine

import (
	"context"
	"io"
	"iter"
	"time"

	"dstack/internal/dstack"
)

// Engine runs attempts on one machine. What it started outlives the server:
// after a restart Running reports it again. An attempt is known by its ID;
// every method may be repeated with the same one and none takes longer than
// a few seconds. Engines touch only what they made for their installation.
type Engine interface {
	// Start begins to make it so and returns at once; how it goes is in
	// Running (pulling, starting, running, exited or refused). Started again
	// with an attempt that exists in any state, it does nothing. An error
	// means that the engine cannot be reached.
	Start(ctx context.Context, o dstack.AttemptSpec) error

	// Stop asks the attempt to end: SIGTERM to all of its processes, and
	// SIGKILL once grace has passed; at once when it is zero. A second call
	// may shorten the wait, never lengthen it. It does not wait; Running
	// tells when it is over. Nothing to stop is no error.
	Stop(ctx context.Context, id dstack.AttemptID, grace time.Duration) error

	// Running returns a report for every attempt that the engine knows of,
	// ended ones included until they are removed.
	Running(ctx context.Context) ([]dstack.Report, error)

	// Logs yields the output of an attempt later than since, oldest first,
	// and then what comes, until the attempt has ended or ctx has. The last
	// pair has an error when output was lost. An unknown attempt yields
	// nothing.
	Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error]

	// Remove forgets an ended attempt and all that is left of it. A running
	// one is killed first. Nothing to remove is no error.
	Remove(ctx context.Context, id dstack.AttemptID) error
}

// CodeOpener opens the uploaded code of an order, a tar stream; the caller closes
// it. An order without a CodeHash has none.
type CodeOpener func(ctx context.Context, o dstack.AttemptSpec) (io.ReadCloser, error)
