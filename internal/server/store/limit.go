package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

const (
	defaultPatience = 15 * time.Second // that the database may take for a query or a transaction
	uploadPatience  = 5 * time.Minute  // for the transaction of an upload
)

// queryLimit ends queries that the database does not answer: a database that hangs
// must not hang the server. Transactions have a limit of their own besides, set
// where they begin.
type queryLimit struct{ s *Store }

var _ bun.QueryHook = queryLimit{}

// BeforeQuery gives a query its limit.
func (l queryLimit) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	if event.Query == "BEGIN" {
		return ctx // the end of this one's context would end the transaction
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.patience)
	event.Stash = map[any]any{queryLimit{}: cancel}
	return ctx
}

// AfterQuery frees what BeforeQuery made. The rows have been read by now.
func (queryLimit) AfterQuery(_ context.Context, event *bun.QueryEvent) {
	if cancel, ok := event.Stash[queryLimit{}].(context.CancelFunc); ok {
		cancel()
	}
}
