package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"
)

// SetPatience sets the limit for one query or transaction.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// SetClock replaces the clock.
func (s *Store) SetClock(now func() time.Time) { s.clock = now }

// SameReport is sameReport.
var SameReport = sameReport

// countingHook counts the queries of a bun.DB.
type countingHook struct{ count *atomic.Int64 }

// BeforeQuery counts a query.
func (h countingHook) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	if event.Query != "BEGIN" && event.Query != "COMMIT" {
		h.count.Add(1)
	}
	return ctx
}

// AfterQuery does nothing.
func (countingHook) AfterQuery(context.Context, *bun.QueryEvent) {}

// CountReads returns a counter of the queries that the store reads with from now on.
func (s *Store) CountReads() *atomic.Int64 {
	count := &atomic.Int64{}
	s.reader = s.reader.WithQueryHook(countingHook{count})
	return count
}

// MigrateDown undoes the migrations after a version, the later ones first.
func (s *Store) MigrateDown(ctx context.Context, version int64) error {
	providers, err := s.newMigrationProviders()
	if err != nil {
		return err
	}
	if _, err := providers.expansions.DownTo(ctx, 0); err != nil {
		return err
	}
	_, err = providers.changes.DownTo(ctx, version)
	return err
}

// ExecForTest runs a statement.
func (s *Store) ExecForTest(ctx context.Context, query string, args ...any) error {
	_, err := s.writer.NewRaw(query, args...).Exec(ctx)
	return err
}

// WriteForTest locks what all writers need, and calls during inside of the transaction.
func (s *Store) WriteForTest(ctx context.Context, during func()) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := countChange(ctx, tx); err != nil {
			return err
		}
		during()
		return nil
	})
}

// SetMaxIdleInTransaction limits how long stores that are opened from now on may do nothing in a transaction.
func SetMaxIdleInTransaction(d time.Duration) (before time.Duration) {
	before, maxIdleInTransaction = maxIdleInTransaction, d
	return before
}
