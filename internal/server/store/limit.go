package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

const (
	defaultPatience = 15 * time.Second // for a query or a transaction
	uploadPatience  = 5 * time.Minute  // for the transaction of an upload
)

// queryLimit gives each query a timeout, so that a database that hangs does not
// hang the server. Transactions have a timeout of their own besides.
type queryLimit struct{ s *Store }

var _ bun.QueryHook = queryLimit{}

// BeforeQuery gives a query its timeout.
func (l queryLimit) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	if event.Query == "BEGIN" {
		return ctx // the end of its context would roll the transaction back
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.patience)
	event.Stash = map[any]any{queryLimit{}: cancel}
	return ctx
}

// AfterQuery releases the timeout. bun calls it after the rows have been read.
func (queryLimit) AfterQuery(_ context.Context, event *bun.QueryEvent) {
	if cancel, ok := event.Stash[queryLimit{}].(context.CancelFunc); ok {
		cancel()
	}
}
