package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// RecordExec records that a user runs a command in a replica. What the command is must not be
// in the message: it may contain secrets.
func (s *Store) RecordExec(ctx context.Context, run dstack.Run, replica int, by, message string, now time.Time) error {
	return s.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		return addEvents(ctx, tx, []dstack.Event{{
			Project: run.ProjectID, Run: run.ID, RunName: run.Name, Kind: dstack.EventExec, Replica: &replica, User: by, Message: message,
		}}, now)
	})
}
