package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"dstack/internal/dstack"
)

// maxWriteTries is how often a transaction is tried that PostgreSQL aborts in
// favour of another.
const maxWriteTries = 8

// durability is what a commit survives. Commits become durable in their order:
// after a power cut the latest may be missing, never one before them.
type durability string

const (
	// durable survives a power cut. It is for everything that a caller relies on.
	durable durability = "FULL"
	// relaxed survives a crash of the server, but a power cut may undo the latest
	// commits. It is for what is observed again anyway: leases and reports.
	relaxed durability = "NORMAL"
)

// writeDurable runs do in one transaction. do may run more than once and must not
// keep anything of a run that failed.
func (s *Store) writeDurable(ctx context.Context, do func(context.Context, bun.Tx) error) error {
	return s.tryWrite(ctx, durable, func(ctx context.Context, tx bun.Tx) error {
		if err := do(ctx, tx); err != nil {
			return err
		}
		return countChange(ctx, tx)
	})
}

// countChange records that this transaction writes something that a route table
// contains. Like addEvents, it must be the last statement: it locks a row that
// all writers need.
func countChange(ctx context.Context, tx bun.Tx) error {
	var number int64
	err := tx.NewRaw("UPDATE installation SET changes = changes + 1 WHERE one = 1 RETURNING changes").Scan(ctx, &number)
	if change, ok := ctx.Value(transactionChangeKey{}).(*transactionChange); ok {
		change.isCounted, change.number = true, number
	}
	return err
}

// writeRelaxed is writeDurable with relaxed durability. do calls countChange
// itself if it writes something that a route table contains.
func (s *Store) writeRelaxed(ctx context.Context, do func(context.Context, bun.Tx) error) error {
	return s.tryWrite(ctx, relaxed, do)
}

func (s *Store) tryWrite(ctx context.Context, how durability, do func(context.Context, bun.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var change transactionChange
	var err error
	for range maxWriteTries {
		change = transactionChange{}
		err = s.writeOnce(withChange(ctx, &change), how, do)
		if !isSerializationFailure(err) {
			break
		}
	}
	if err == nil && change.isCounted {
		s.routeChanges.add(change)
		s.markChanged()
	}
	return wrapError(contextErrorOf(ctx, err))
}

// contextErrorOf returns the context's error in place of sql.ErrTxDone: the
// context ended the transaction.
func contextErrorOf(ctx context.Context, err error) error {
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// writeOnce sets the durability before each transaction, because the connection
// keeps the setting of the one before.
func (s *Store) writeOnce(ctx context.Context, how durability, do func(context.Context, bun.Tx) error) (err error) {
	if s.kind == postgres {
		return s.writer.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if how == relaxed {
				if _, err := tx.NewRaw("SET LOCAL synchronous_commit = off").Exec(ctx); err != nil {
					return err
				}
			}
			return do(ctx, tx)
		})
	}
	conn, err := s.writer.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous = "+string(how)); err != nil {
		return err
	}
	return conn.RunInTx(ctx, nil, do)
}

// read runs do on one snapshot of the database.
func (s *Store) read(ctx context.Context, do func(context.Context, bun.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	options := &sql.TxOptions{ReadOnly: true}
	if s.kind == postgres {
		options.Isolation = sql.LevelRepeatableRead
	}
	return wrapError(contextErrorOf(ctx, s.reader.RunInTx(ctx, options, do)))
}

// isSerializationFailure reports whether PostgreSQL aborted the transaction in
// favour of another, also because this server was frozen in it: see sessionLimits.
func isSerializationFailure(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01" || e.Code == "25P03")
}

// wrapError turns a driver's error into one with a hint. A dstack.Error stays as
// it is.
func wrapError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*dstack.Error](err); ok {
		return err
	}
	switch {
	case isFull(err):
		return &dstack.Error{
			Kind: dstack.Unavailable, Message: "cannot save: the disk of the database is full", Cause: err,
			Hint: "free disk space on the server; nothing that was saved is lost",
		}
	case isUnreachable(err):
		return &dstack.Error{
			Kind: dstack.Unavailable, Message: "the database does not answer", Cause: err,
			Hint: "try again; if it persists, check the database and the server's log",
		}
	default:
		return fmt.Errorf("database: %w", err)
	}
}

func isFull(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()&0xff == lib.SQLITE_FULL
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "53100"
}

// isUnreachable reports whether the database could not be reached, or could not
// answer in time.
func isUnreachable(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_NOMEM:
			return true
		}
		return false
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		class := e.Code[:min(2, len(e.Code))]
		return class == "08" || class == "53" || class == "57" || isSerializationFailure(err)
	}
	for _, away := range []error{context.DeadlineExceeded, sql.ErrConnDone, driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, away) {
			return true
		}
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err)
}

// orNotFound returns err, or NotFound with a message if no row was found.
func orNotFound(err error, missing string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf(missing, args...)}
	}
	return err
}

// retryHint is the hint of a conflict with a concurrent change.
const retryHint = "read it again and retry"

func conflict(hint, message string, args ...any) error {
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf(message, args...), Hint: hint}
}

// rowsAffected returns how many rows a statement changed.
func rowsAffected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// toMicros returns a time as the database keeps it; 0: zero.
func toMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// fromMicros is the opposite of toMicros.
func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// dueMicros returns a due time as the database keeps it; a zero time is NULL.
func dueMicros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.UnixMicro())
}

// cleanText makes any text fit for a TEXT column: PostgreSQL refuses invalid
// UTF-8 and the zero byte. Reports of engines may contain both.
func cleanText[T ~string](text T) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\x00", "\uFFFD")
}
