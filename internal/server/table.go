package server

import (
	"context"
	"reflect"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// maxTableAge is how old a table may be that no notification made outdated:
// another server may have changed the routes.
const maxTableAge = 2 * time.Second

// tableCache is the table that was read last, shared by all gateways.
type tableCache struct {
	reading chan struct{} // held by the goroutine that reads the table
	table   route.Table
	readAt  time.Time
	changed <-chan struct{} // closed by the first notification since the read began
}

func newTableCache() tableCache {
	// Versions begin at the time, so that they differ from those of an earlier
	// server.
	return tableCache{reading: make(chan struct{}, 1), table: route.Table{Version: uint64(time.Now().UnixMicro())}}
}

// Table returns the route table once its version differs from since. It reads the
// table after each notification and every two seconds; any number of callers
// share one read.
func (s *Server) Table(ctx context.Context, since uint64) (route.Table, error) {
	for {
		changed := s.broadcast.Changed()
		table, err := s.readRoutes(ctx, changed)
		if err != nil || table.Version != since {
			return table, err
		}
		again := time.NewTimer(maxTableAge)
		select {
		case <-ctx.Done():
			again.Stop()
			return route.Table{}, ctx.Err()
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

// readRoutes returns the cached table unless it is outdated. Changed is the
// channel that the next notification closes.
func (s *Server) readRoutes(ctx context.Context, changed <-chan struct{}) (route.Table, error) {
	c := &s.table
	select {
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-ctx.Done():
		return route.Table{}, ctx.Err()
	}
	if c.changed == changed && time.Since(c.readAt) < maxTableAge {
		return c.table, nil
	}
	changed, at := s.broadcast.Changed(), time.Now()
	current, err := s.store.Routes(ctx)
	if err != nil {
		return route.Table{}, err
	}
	if current.Version = c.table.Version; c.readAt.IsZero() || !reflect.DeepEqual(current, c.table) {
		current.Version++
		c.table = current
	}
	c.changed, c.readAt = changed, at
	return c.table, nil
}

// Report saves what a gateway counted, in place of its previous report, and
// returns the gateway's part of the limits that all gateways count together.
func (s *Server) Report(ctx context.Context, report dstack.LoadReport) (dstack.LoadAnswer, error) {
	woke, err := s.store.SaveLoadReport(ctx, report, now())
	if woke {
		s.wake()
	}
	if err != nil {
		return dstack.LoadAnswer{}, err
	}
	return s.store.LimitShares(ctx, report.Gateway, now())
}
