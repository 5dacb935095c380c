package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// channel is the channel of PostgreSQL on which servers announce that they changed something.
const channel = "dstack_changes"

const (
	announcePause   = 20 * time.Millisecond // between two announcements of a server: many changes need one
	announceTimeout = 5 * time.Second
	maxQuietTime    = 10 * time.Second // after that without an announcement, the connection is checked
)

// ShareTasks returns the tasks that tell the other servers of this server's changes, and that call changed after a change by
// another server. Announcements may be lost, and changed may be called without a change. SQLite has one server, and no tasks.
func (s *Store) ShareTasks(server dstack.ServerID, changed func()) []loop.Task {
	if !s.IsShared() {
		return nil
	}
	return []loop.Task{
		loop.Repeat("announcements", s.changed, func(ctx context.Context) (time.Duration, error) { return s.announce(ctx, server) }),
		loop.Repeat("changes of other servers", nil, func(ctx context.Context) (time.Duration, error) {
			return 0, s.listen(ctx, server, changed)
		}),
	}
}

// announce tells the other servers that this one has changed something. It is not part of the transaction that made the
// change, because NOTIFY makes the commits of all servers wait for each other.
func (s *Store) announce(ctx context.Context, server dstack.ServerID) (time.Duration, error) {
	if !s.isChanged.Swap(false) {
		return maxQuietTime, nil
	}
	query, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	if _, err := s.writer.ExecContext(query, "SELECT pg_notify(?, ?)", channel, string(server)); err != nil {
		s.isChanged.Store(true)
		return 0, wrapError(err)
	}
	return 0, loop.Sleep(ctx, announcePause)
}

// markChanged makes announce tell the other servers.
func (s *Store) markChanged() {
	if s.IsShared() {
		s.isChanged.Store(true)
		s.changed.Signal()
	}
}

// listen calls changed after each announcement of another server, until the connection breaks or ctx ends. It has a
// connection of its own.
func (s *Store) listen(ctx context.Context, server dstack.ServerID, changed func()) error {
	opening, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(opening, s.postgresConfig.Copy())
	if err != nil {
		return wrapError(err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceTimeout)
		defer cancel()
		_ = conn.Close(closing) // it only listened
	}()
	if _, err := conn.Exec(opening, "LISTEN "+channel); err != nil {
		return wrapError(err)
	}
	changed() // announcements may have been missed
	for {
		waiting, cancel := context.WithTimeout(ctx, maxQuietTime)
		notice, err := conn.WaitForNotification(waiting)
		isQuiet := errors.Is(waiting.Err(), context.DeadlineExceeded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if notice.Payload != string(server) {
				changed()
			}
		case isQuiet && !conn.IsClosed():
			checking, cancel := context.WithTimeout(ctx, announceTimeout)
			err := conn.Ping(checking)
			cancel()
			if err != nil {
				return wrapError(err)
			}
		default:
			return wrapError(err)
		}
	}
}
