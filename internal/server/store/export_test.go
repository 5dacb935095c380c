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
