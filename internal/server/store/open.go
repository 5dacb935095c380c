package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
)

const (
	sqliteReaders = 4
	postgresConns = 10
)

// Open connects to the URL where, "sqlite:///path/to/file.db" or postgres://…,
// and migrates the schema. sealer encrypts secrets; nil: nothing is encrypted.
// Open fails when sealer has not the key that the database was sealed with.
func Open(ctx context.Context, where string, sealer *Sealer) (*Store, error) {
	s, err := openDatabase(where, sealer)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{s.migrate, s.prepare, s.sealClearCode, s.forgetAllOldSecrets, s.deleteOldArchives} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// OpenMigrated is Open for a command beside a running server: it fails with Conflict
// if the schema is not that of this version, because a server of an earlier version
// could not go on with another one.
func OpenMigrated(ctx context.Context, where string, sealer *Sealer) (*Store, error) {
	s, err := openDatabase(where, sealer)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{s.checkMigrated, s.prepare} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// openDatabase returns a store that is connected to the database at a URL, which may have no tables yet.
func openDatabase(where string, sealer *Sealer) (*Store, error) {
	scheme, _, _ := strings.Cut(where, ":")
	s := &Store{sealer: sealer, specs: specCache{runs: map[specKey]cachedSpec{}}, patience: defaultPatience, clock: time.Now,
		changed: loop.NewWake()}
	var err error
	switch scheme {
	case "sqlite", "sqlite+aiosqlite":
		err = s.openSQLite(where)
	case "postgres", "postgresql", "postgresql+asyncpg":
		err = s.openPostgres(where)
	default:
		err = badURL("it is neither sqlite nor postgres", nil)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// prepare makes a database with the present schema ready for use.
func (s *Store) prepare(ctx context.Context) error {
	s.writer = s.writer.WithQueryHook(queryLimit{s})
	s.reader = s.reader.WithQueryHook(queryLimit{s})
	return s.identify(ctx)
}

// badURL returns an error without the URL, which may contain a password.
func badURL(why string, cause error) error {
	return &dstack.Error{
		Kind: dstack.Invalid, Message: "cannot use the database URL: " + why, Cause: cause,
		Hint: "DSTACK_DATABASE_URL is sqlite:///path/to/file.db or postgres://user:password@host:5432/name",
	}
}

func (s *Store) openSQLite(where string) error {
	s.kind = sqliteFile
	u, err := url.Parse(where)
	switch {
	case err != nil:
		return badURL("it is not a URL", nil)
	case u.Host != "" || u.Path == "" || u.Path == "/":
		return badURL("sqlite needs an absolute path behind three slashes", nil)
	case u.RawQuery != "" || u.Fragment != "":
		return badURL("sqlite takes no parameters", nil)
	}
	path := filepath.Clean(u.Path)
	if err := createPrivate(path); err != nil {
		return &dstack.Error{
			Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot open the database %s: %s", path, human.DescribeFailure(err)), Cause: err,
			Hint: folderHint,
		}
	}
	writes, err := sqliteConnector(path, "_txlock=immediate", "_pragma=journal_mode(WAL)")
	if err != nil {
		return err
	}
	reads, err := sqliteConnector(path, "_pragma=query_only(1)")
	if err != nil {
		return err
	}
	s.writer = sqlitePool(writes, 1)
	s.reader = sqlitePool(statementConnector{reads}, sqliteReaders)
	return nil
}

// createPrivate creates the file if there is none, readable only by its owner: it
// contains hashes of tokens.
func createPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// folderHint is the hint for a file that cannot be created.
const folderHint = "check that the folder exists, is yours, and that its disk has free space"

func sqliteConnector(path string, settings ...string) (driver.Connector, error) {
	settings = append([]string{"_pragma=busy_timeout(10000)", "_pragma=foreign_keys(1)"}, settings...)
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(settings, "&")}
	connector, err := sqlite.NewConnector(dsn.String())
	return connector, wrapError(err)
}

func sqlitePool(connector driver.Connector, conns int) *bun.DB {
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return bun.NewDB(db, sqlitedialect.New())
}

func (s *Store) openPostgres(where string) error {
	s.kind = postgres
	_, rest, _ := strings.Cut(where, ":")
	config, err := pgx.ParseConfig("postgres:" + rest)
	if err != nil {
		return badURL("it is not a PostgreSQL URL", nil) // err quotes it
	}
	// Most queries contain their values as text, so that a prepared statement
	// would never be reused. This mode also works with pgbouncer.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	s.postgresConfig = config
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(limitSession))
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns)
	s.writer = bun.NewDB(db, pgdialect.New())
	s.reader = s.writer
	return nil
}

// maxIdleInTransaction is how long a server may do nothing in a transaction. Tests shorten it.
var maxIdleInTransaction = 5 * time.Second

// sessionLimits make PostgreSQL end the transaction of a server that was frozen, or whose machine or network is gone: it holds
// locks that all servers need.
const sessionLimits = `SELECT set_config('idle_in_transaction_session_timeout', $1, false), set_config('tcp_keepalives_idle', '10', false),
	set_config('tcp_keepalives_interval', '3', false), set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10s', false)`

// limitSession sets sessionLimits for a new connection.
func limitSession(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, sessionLimits, strconv.FormatInt(maxIdleInTransaction.Milliseconds(), 10))
	return err
}

// Close closes the database when running queries have ended.
func (s *Store) Close() error {
	var errs []error
	if s.reader != nil && s.reader != s.writer {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close()) // last: it folds the write-ahead log into the file
	}
	return errors.Join(errs...)
}
