package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
)

func TestOpen_URLs(t *testing.T) {
	dir := t.TempDir()
	for url, ok := range map[string]bool{
		"sqlite://" + dir + "/a.db":               true,
		"sqlite:///" + dir + "/a.db":              true, // four slashes, as others write it
		"sqlite+aiosqlite://" + dir + "/b.db":     true,
		"sqlite://" + dir + "/new/folder/c.db":    true,
		"sqlite://" + dir + "/with space?.db":     false,
		"sqlite://" + dir + "/with%20space%3f.db": true,
		"sqlite://":                            false,
		"sqlite:///":                           false,
		"sqlite://host/c.db":                   false,
		"mysql://u:s3cret@host/db":             false,
		"":                                     false,
		"postgres://u:s3cret@host:notaport/db": false,
		"postgres://u:s3cret@127.0.0.1:1/db":   false, // no server listens
	} {
		s, err := store.Open(t.Context(), url, nil)
		if ok != (err == nil) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || dstack.KindOf(err) == dstack.Internal) {
			t.Errorf("%s: a bad answer: %v", url, err)
		}
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for name, want := range map[string]bool{"a.db": true, "with space?.db": true, "with space": false} {
		info, err := os.Stat(filepath.Join(dir, name))
		if (err == nil) != want || (want && info.Mode().Perm() != 0o600) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestOpen_ConcurrentlyAndAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.submit("web", t0)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				s, err := store.Open(t.Context(), h.url, h.sealer)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Run(t.Context(), h.project.ID, "web"); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	})
}

// Two servers open a new database at the same moment.
func TestOpen_ANewDatabaseByTwoServers(t *testing.T) {
	where := storetest.NewPostgres(t)
	var mu sync.Mutex
	names := map[dstack.Installation]bool{}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			s, err := store.Open(t.Context(), where, nil)
			if err != nil {
				t.Error(err)
				return
			}
			name, err := s.Installation(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			names[name] = true
			mu.Unlock()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(names) != 1 {
		t.Errorf("one database has the names %v", names)
	}
}
