// Package store keeps the server's state in SQLite or PostgreSQL, with the same
// code for both. The reconcile passes communicate only through it. It reads
// rows, calls the rules in decide, and writes rows.
package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// Store is the server's database. All methods are safe for concurrent use by
// many goroutines and, on PostgreSQL, by many servers.
type Store struct {
	writer       *bun.DB // on SQLite one connection, so that writers queue instead of failing
	reader       *bun.DB // on PostgreSQL the same as writer
	sealer       *Sealer // nil: nothing is sealed
	specs        specCache
	templates    textCache[dstack.ChatTemplate]
	rules        textCache[storedRules]
	lastReports  lastReports
	placed       placedCache
	table        atomic.Pointer[cachedTable] // the last table that was read
	routeChanges routeChanges
	kind         database
	name         dstack.Installation

	postgresConfig *pgx.ConnConfig // nil: SQLite
	changed        loop.Wake       // signals that isChanged is set
	isChanged      atomic.Bool     // something was committed that the other servers have not been told of

	server atomic.Pointer[dstack.ServerID] // this server, once it has joined those that share the database

	budgets atomic.Pointer[map[string]float64] // see SetBudgets

	patience time.Duration    // limit for one query or transaction
	clock    func() time.Time // decides which gateway reports are recent, and nothing else
}

// database is the kind of a database.
type database string

const (
	sqliteFile database = "sqlite"
	postgres   database = "postgres"
)

// Installation returns this database's name, made when it was first opened.
func (s *Store) Installation(context.Context) (dstack.Installation, error) { return s.name, nil }
