package acmetest_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dstack/internal/certificate/acmetest"
)

func TestFileStorage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := acmetest.FileStorage{Dir: dir}
	ctx := t.Context()
	if _, err := s.Load(ctx, "domains/example.com/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that does not exist: %v", err)
	}
	for _, value := range []string{"one", "two"} {
		if err := s.Store(ctx, "domains/example.com/a", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if value, err := s.Load(ctx, "domains/example.com/a"); err != nil || string(value) != "two" {
		t.Errorf("got %q, %v", value, err)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := s.Delete(ctx, "domains/example.com/a"); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "domains", "example.com"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestFileStorage_LockHasOneOwnerAndEnds(t *testing.T) {
	t.Parallel()
	s := acmetest.FileStorage{Dir: t.TempDir()}
	try := func(owner string, lifetime time.Duration, want bool) {
		t.Helper()
		if ok, err := s.TryLock(context.Background(), "a", owner, lifetime); ok != want || err != nil {
			t.Errorf("%s: %v, %v", owner, ok, err)
		}
	}
	try("one", time.Minute, true)
	try("one", time.Minute, true)
	try("two", time.Minute, false)
	if err := s.Unlock(t.Context(), "a", "two"); err != nil {
		t.Error(err)
	}
	try("two", time.Minute, false)
	if err := s.Unlock(t.Context(), "a", "one"); err != nil {
		t.Error(err)
	}
	try("two", -time.Second, true)
	try("three", time.Minute, true)
	try("two", time.Minute, false)
}
