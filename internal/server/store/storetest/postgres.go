package storetest

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// NewPostgres returns the URL of a PostgreSQL database of its own, with all tables
// and without rows, which is dropped when the test has ended. It skips the test
// without a PostgreSQL.
func NewPostgres(t testing.TB) string {
	t.Helper()
	if os.Getenv("DSTACK_TEST_POSTGRES_URL") == "" {
		t.Skip("needs postgres: DSTACK_TEST_POSTGRES_URL is not set: it is the URL of a PostgreSQL whose user may create databases")
	}
	p, err := migratedPostgres()
	if err != nil {
		t.Fatal(err)
	}
	name := p.newName()
	if err := p.run(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+p.template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.run(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return p.urlOf(name)
}

// DropTemplate removes what NewPostgres keeps for its next calls. TestMain calls it at
// the end.
func DropTemplate() error {
	if kept == nil {
		return nil
	}
	return errors.Join(kept.run(context.Background(), "DROP DATABASE IF EXISTS "+kept.template), kept.admin.Close())
}

// kept is the result of migratedPostgres, once it was called.
var kept *postgres

// postgres is the PostgreSQL of the tests, with a migrated database.
type postgres struct {
	base     *url.URL
	admin    *sql.DB
	template string
}

var migratedPostgres = sync.OnceValues(func() (*postgres, error) {
	base, err := url.Parse(os.Getenv("DSTACK_TEST_POSTGRES_URL"))
	if err != nil {
		return nil, errors.New("DSTACK_TEST_POSTGRES_URL is not a URL")
	}
	admin, err := sql.Open("pgx", base.String())
	if err != nil {
		return nil, err
	}
	p := &postgres{base: base, admin: admin}
	p.template, kept = p.newName(), p
	if err := p.run(context.Background(), "CREATE DATABASE "+p.template); err != nil {
		return nil, err
	}
	return p, migrate(p.urlOf(p.template), "pgx", p.urlOf(p.template))
})

func (p *postgres) newName() string {
	return "store_" + strings.ReplaceAll(uuid.NewString(), "-", "")
}

func (p *postgres) urlOf(database string) string {
	u := *p.base
	u.Path = "/" + database
	return u.String()
}

func (p *postgres) run(ctx context.Context, query string) error {
	_, err := p.admin.ExecContext(ctx, query)
	return err
}
