package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"
)

const (
	maxStatements     = 32      // prepared on one connection, at most
	maxStatementBytes = 8 << 10 // of the text of a statement that stays prepared
)

// statementConnector opens SQLite connections that keep the queries they ran last prepared: SQLite takes longer to prepare
// a short query than to run it. SQLite itself prepares a statement again after a change of the schema. Only connections
// that read use it.
type statementConnector struct{ driver.Connector }

// Connect opens a connection.
func (c statementConnector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn, ok := inner.(sqliteConn)
	if !ok {
		return nil, fmt.Errorf("the SQLite driver's connection %T lacks a method", inner)
	}
	return &statementConn{sqliteConn: conn, idle: map[string]*keptStatement{}}, nil
}

// sqliteConn is what database/sql and bun use of the driver's connection.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// statementConn is a connection with prepared queries. Like every driver.Conn, it is used by one goroutine at a time.
type statementConn struct {
	sqliteConn
	idle  map[string]*keptStatement // prepared and not in use, by their text
	clock uint64                    // counts queries
}

// keptStatement is a prepared query. usedAt is the count of queries when it was last used.
type keptStatement struct {
	driver.Stmt
	query  string
	usedAt uint64
}

// QueryContext runs a query. It is not in idle while its rows are read, so that the same query can run again meanwhile.
func (c *statementConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if len(query) > maxStatementBytes || !strings.HasPrefix(query, "SELECT ") {
		return c.sqliteConn.QueryContext(ctx, query, args)
	}
	c.clock++
	kept := c.idle[query]
	delete(c.idle, query)
	if kept == nil {
		prepared, err := c.PrepareContext(ctx, query)
		if err != nil {
			return nil, err
		}
		kept = &keptStatement{Stmt: prepared, query: query}
	}
	kept.usedAt = c.clock
	rows, err := kept.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		_ = kept.Close() // the error of the query is the one to return
		return nil, err
	}
	return &statementRows{Rows: rows, conn: c, kept: kept}, nil
}

// keep puts a statement back. If there are too many, it closes the one that was not used for longest.
func (c *statementConn) keep(s *keptStatement) error {
	if c.idle[s.query] != nil {
		return s.Close()
	}
	c.idle[s.query] = s
	if len(c.idle) <= maxStatements {
		return nil
	}
	oldest := s
	for _, other := range c.idle {
		if other.usedAt < oldest.usedAt {
			oldest = other
		}
	}
	delete(c.idle, oldest.query)
	return oldest.Close()
}

// Close closes the statements and the connection.
func (c *statementConn) Close() error {
	for _, s := range c.idle {
		_ = s.Close() // the connection ends with it
	}
	clear(c.idle)
	return c.sqliteConn.Close()
}

// statementRows is the rows of a prepared query.
type statementRows struct {
	driver.Rows
	conn *statementConn
	kept *keptStatement
}

// Close ends the query and keeps its statement. It may be repeated.
func (r *statementRows) Close() error {
	if r.kept == nil {
		return nil
	}
	kept := r.kept
	r.kept = nil
	if err := r.Rows.Close(); err != nil {
		_ = kept.Close() // its state is not known
		return err
	}
	return r.conn.keep(kept)
}
