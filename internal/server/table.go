package server

import (
	"context"
	"reflect"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// maxTableAge is how old a reading of the routes may be when nobody rang.
const maxTableAge = 2 * time.Second

// tableCache is the last reading of the routes, shared by all who follow.
type tableCache struct {
	turn  chan struct{} // held by whoever reads
	table route.Table
	at    time.Time
	mark  <-chan struct{} // closed by the first ring since the reading began
}

func newTableCache() tableCache {
	// Numbers begin at the time, so that those of an earlier server are not
	// taken for ours.
	return tableCache{turn: make(chan struct{}, 1), table: route.Table{Version: uint64(time.Now().UnixMicro())}}
}

// Table returns the route table as soon as its version is not since any
// more. It is read again when the bell rings, and every two seconds; any
// number of callers cost one reading.
func (s *Server) Table(ctx context.Context, since uint64) (route.Table, error) {
	for {
		news := s.broadcast.Changed()
		table, err := s.readRoutes(ctx, news)
		if err != nil || table.Version != since {
			return table, err
		}
		again := time.NewTimer(maxTableAge)
		select {
		case <-ctx.Done():
			again.Stop()
			return route.Table{}, ctx.Err()
		case <-news:
		case <-again.C:
		}
		again.Stop()
	}
}

// readRoutes returns a reading that no ring has made old.
func (s *Server) readRoutes(ctx context.Context, news <-chan struct{}) (route.Table, error) {
	c := &s.table
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return route.Table{}, ctx.Err()
	}
	if c.mark == news && time.Since(c.at) < maxTableAge {
		return c.table, nil
	}
	mark, at := s.broadcast.Changed(), time.Now()
	fresh, err := s.store.Routes(ctx)
	if err != nil {
		return route.Table{}, err
	}
	if fresh.Version = c.table.Version; c.at.IsZero() || !reflect.DeepEqual(fresh, c.table) {
		fresh.Version++
		c.table = fresh
	}
	c.mark, c.at = mark, at
	return c.table, nil
}

// Report takes note of what a gateway counts.
func (s *Server) Report(ctx context.Context, counts dstack.LoadReport) error {
	woke, err := s.store.SaveLoadReport(ctx, counts, now())
	if woke {
		s.wake()
	}
	return err
}
