package server

import (
	"context"
	"iter"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/logs"
	"dstack/internal/server/peers"
)

// OutputReader reads the output of attempts. *logs.Store has that of this server, *peers.Logs that of all servers. All methods
// may be called again; an attempt that is absent has no output.
type OutputReader interface {
	// Read yields the stored lines after since and, unless until is zero, before until.
	Read(ctx context.Context, k logs.Key, since, until time.Time) iter.Seq2[dstack.LogLine, error]
	// Follow yields the stored lines after since and then new ones, until the output or ctx ends.
	Follow(ctx context.Context, k logs.Key, since time.Time) iter.Seq2[dstack.LogLine, error]
	// FindTail finds the last n lines: reading after start yields these.
	FindTail(ctx context.Context, k logs.Key, since, until time.Time, n int) (start time.Time, found int, err error)
}

var (
	_ OutputReader = (*logs.Store)(nil)
	_ OutputReader = (*peers.Logs)(nil)
)

// removeOutput deletes the output of a run, or of all runs of a project if run is empty, on all servers.
func (s *Server) removeOutput(ctx context.Context, project, run string) error {
	if all, ok := s.output.(*peers.Logs); ok {
		all.RemoveElsewhere(ctx, project, run)
	}
	if run == "" {
		return s.logs.RemoveProject(project)
	}
	return s.logs.Remove(project, run)
}
