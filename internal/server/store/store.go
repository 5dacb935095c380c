// Package store is the server's memory: SQLite or PostgreSQL, the same code
// on both. It is the only place where the passes meet.
package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// Store is the server's memory. All methods may be called at once from many
// goroutines and, on PostgreSQL, from many servers.
type Store struct {
	writer      *bun.DB // on SQLite one connection, so that writers queue instead of failing
	reader      *bun.DB // on PostgreSQL the same as writer
	sealer      *Sealer // nil: nothing is sealed
	specs       specCache
	templates   textCache[dstack.ChatTemplate]
	rules       textCache[route.Rules]
	lastReports lastReports
	placed      placedCache
	table       atomic.Pointer[cachedTable] // the last that was read
	kind        database
	name        dstack.Installation

	patience time.Duration    // with one query or transaction
	clock    func() time.Time // says which gateways have told lately, and nothing else
}

// database is which of the two it is.
type database string

const (
	sqliteFile database = "sqlite"
	postgres   database = "postgres"
)

// Installation is this database's own name, made once.
func (s *Store) Installation(context.Context) (dstack.Installation, error) { return s.name, nil }
