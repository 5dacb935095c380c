package store

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

const (
	answerTime = 15 * time.Second // that the database may take for a query or a transaction
	codeTime   = 5 * time.Minute  // for the transaction of an upload
)

// limit ends queries that the database does not answer: a database that hangs
// must not hang the server. Transactions have a limit of their own besides, set
// where they begin.
type limit struct{ s *Store }

var _ bun.QueryHook = limit{}

// BeforeQuery gives a query its limit.
func (l limit) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	if event.Query == "BEGIN" {
		return ctx // the end of this one's context would end the transaction
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.patience)
	event.Stash = map[any]any{limit{}: cancel}
	return ctx
}

// AfterQuery frees what BeforeQuery made. The rows have been read by now.
func (limit) AfterQuery(_ context.Context, event *bun.QueryEvent) {
	if cancel, ok := event.Stash[limit{}].(context.CancelFunc); ok {
		cancel()
	}
}
