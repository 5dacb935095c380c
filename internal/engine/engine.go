// Package engine has the interface between the server and the programs that run
// replicas on a machine: Docker (engine/docker) and plain processes
// (engine/process). Package engine/enginetest tests that an engine follows the
// interface's contract.
package engine

import (
	"context"
	"io"
	"iter"
	"time"

	"dstack/internal/dstack"
)

// Engine runs attempts on one machine. Attempts outlive the server: after a restart
// of the server, ListReports returns theirs again. An attempt is identified by its ID.
// Every method may be called again with the same arguments, and returns within a few
// seconds (Logs excepted). An engine touches only what it made for its installation.
type Engine interface {
	// Start begins to start an attempt and returns at once; ListReports shows the
	// progress: pulling, starting, running, exited or refused. Start does nothing if
	// the attempt exists already, in any state. An error means that the engine
	// cannot be reached.
	Start(ctx context.Context, spec dstack.AttemptSpec) error

	// Stop sends SIGTERM to all processes of the attempt, and SIGKILL after grace;
	// with a grace of zero it sends SIGKILL at once. A second call may shorten the
	// grace period but never lengthens it. Stop does not wait for the end, which ListReports
	// shows. It is no error if the attempt does not exist or has ended.
	Stop(ctx context.Context, id dstack.AttemptID, grace time.Duration) error

	// ListReports returns one report for every attempt that the engine knows, including
	// ended attempts until they are removed.
	ListReports(ctx context.Context) ([]dstack.Report, error)

	// Logs yields the output of an attempt that is later than since, oldest line
	// first, and follows it until the attempt or ctx ends. If output was lost, the
	// last pair has an error. An unknown attempt yields nothing.
	Logs(ctx context.Context, id dstack.AttemptID, since time.Time) iter.Seq2[dstack.LogLine, error]

	// Remove deletes an ended attempt and everything that belongs to it, except the
	// volumes that it mounted. If the attempt still runs, Remove kills it first. It
	// is no error if the attempt does not exist.
	Remove(ctx context.Context, id dstack.AttemptID) error
}

// StartCheck fails if an attempt may not be started any more: the server was frozen, or an image was pulled for minutes, and
// another server goes on with the machine meanwhile, or the replica was stopped. An engine asks right before it starts what
// ran never before, and then leaves everything as it is. It may be asked again and again.
type StartCheck func(ctx context.Context, id dstack.AttemptID) error

// CodeOpener opens the code of an attempt as a tar stream; the caller closes it. It may
// take minutes, to fetch a git repository. An attempt whose HasCode is false has no code.
type CodeOpener func(ctx context.Context, spec dstack.AttemptSpec) (io.ReadCloser, error)
