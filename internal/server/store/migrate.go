package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

//go:embed migrations/*.sql
var migrations embed.FS

// lastChange is the last migration that an earlier version could not work with. Every later one is an expansion: it only adds
// tables, indexes and columns, so that the version before it can open the database again. Expansions are recorded in a table
// of their own, since earlier versions refuse what they do not know in goose's table.
const (
	lastChange      = 13
	expansionsTable = "expansions"
)

// migrate applies the missing migrations. Several servers may start at once.
func (s *Store) migrate(ctx context.Context) error {
	providers, err := s.newMigrationProviders()
	if err != nil {
		return err
	}
	if _, err := providers.isOld(ctx); err != nil {
		return err
	}
	for _, provider := range []*goose.Provider{providers.changes, providers.expansions} {
		if _, err := provider.Up(ctx); err != nil {
			return openError(err)
		}
	}
	return nil
}

// isOld reports whether migrations are missing.
func (p migrationProviders) isOld(ctx context.Context) (bool, error) {
	isOld, err := compareVersions(ctx, p.changes)
	if isOld || err != nil {
		return isOld, err
	}
	isOld, err = p.expansions.HasPending(ctx)
	if err != nil {
		return false, openError(err)
	}
	return isOld, nil
}

// compareVersions reports whether migrations are missing. The database of a later version is an
// error of kind Conflict: this version would misread it.
func compareVersions(ctx context.Context, provider *goose.Provider) (isOld bool, err error) {
	version, known, err := provider.GetVersions(ctx)
	if err != nil {
		return false, openError(err)
	}
	if version > known {
		return false, &dstack.Error{Kind: dstack.Conflict, Message: "the database is that of a later version of dstack",
			Hint: "start that version again, or give this one another database"}
	}
	return version < known, nil
}

// checkMigrated returns an error of kind Conflict if migrations are missing.
func (s *Store) checkMigrated(ctx context.Context) error {
	providers, err := s.newMigrationProviders()
	if err != nil {
		return err
	}
	isOld, err := providers.isOld(ctx)
	if err != nil {
		return err
	}
	if isOld {
		return &dstack.Error{Kind: dstack.Conflict, Message: "the database is that of an earlier version of dstack",
			Hint: "restart the server with this version, which updates the database, and try again"}
	}
	return nil
}

// migrationProviders apply the two kinds of migrations.
type migrationProviders struct{ changes, expansions *goose.Provider }

func (s *Store) newMigrationProviders() (p migrationProviders, err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return p, err
	}
	changes, expansions, err := listMigrations(files)
	if err != nil {
		return p, err
	}
	if p.changes, err = s.newMigrationProvider(files, goose.WithExcludeVersions(expansions)); err != nil {
		return p, err
	}
	p.expansions, err = s.newMigrationProvider(files, goose.WithExcludeVersions(changes),
		goose.WithTableName(expansionsTable), goose.WithAllowOutofOrder(true))
	return p, err
}

// listMigrations returns the versions of the two kinds of migrations.
func listMigrations(files fs.FS) (changes, expansions []int64, err error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, nil, err
		}
		if version <= lastChange {
			changes = append(changes, version)
		} else {
			expansions = append(expansions, version)
		}
	}
	return changes, expansions, nil
}

func (s *Store) newMigrationProvider(files fs.FS, more ...goose.ProviderOption) (*goose.Provider, error) {
	dialect, options := goose.DialectSQLite3, []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if s.kind == postgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, fmt.Errorf("prepare the migration: %w", err)
		}
		dialect, options = goose.DialectPostgres, append(options, goose.WithSessionLocker(locker))
	}
	// Its Close is not called: it would close the database.
	provider, err := goose.NewProvider(dialect, s.writer.DB, files, append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("prepare the migration: %w", err)
	}
	return provider, nil
}

func openError(err error) error {
	return &dstack.Error{
		Kind: dstack.Unavailable, Message: "cannot open the database: " + human.DescribeFailure(err), Cause: err,
		Hint: "check that DSTACK_DATABASE_URL names a database that is up and that this user may change",
	}
}

// proofWord is sealed into each new database. It shows whether a key is the right one.
const proofWord = "this database is sealed with this key"

type installationRow struct {
	bun.BaseModel `bun:"table:installation"`

	One   int64 `bun:",pk"`
	Name  string
	Proof string
}

// identify reads the installation's name, which the first Open makes, and fails
// when the key is not the database's.
func (s *Store) identify(ctx context.Context) error {
	var row installationRow
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		proof, err := s.sealer.seal(proofWord, "installation")
		if err != nil {
			return err
		}
		fresh := installationRow{One: 1, Name: uuid.NewString(), Proof: proof}
		if _, err := tx.NewInsert().Model(&fresh).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
			return err
		}
		return tx.NewSelect().Model(&row).Scan(ctx)
	})
	if err != nil {
		return err
	}
	if word, err := s.sealer.open(row.Proof, "installation"); err != nil || word != proofWord {
		return &dstack.Error{
			Kind: dstack.Unavailable, Message: "cannot open the database: its secrets were sealed with another key", Cause: err,
			Hint: "put the key file that belongs to this database back in its place; if another server shares the database,\n" +
				"its key is needed: ssh THE-OTHER-SERVER dstack server key | dstack server key --import -",
		}
	}
	s.name = dstack.Installation(row.Name)
	return nil
}
