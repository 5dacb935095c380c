package acmetest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// FileStorage is a certificate.Storage in a folder, for tests.
type FileStorage struct{ Dir string }

// Load implements certificate.Storage.
func (s FileStorage) Load(_ context.Context, key string) ([]byte, error) {
	return os.ReadFile(s.file(key))
}

// Store implements certificate.Storage.
func (s FileStorage) Store(_ context.Context, key string, value []byte) error {
	temporary, err := s.writeTemporary(s.file(key), value)
	if err != nil {
		return err
	}
	defer os.Remove(temporary) //nolint:errcheck // it is gone after the rename
	return os.Rename(temporary, s.file(key))
}

// Delete implements certificate.Storage.
func (s FileStorage) Delete(_ context.Context, key string) error {
	if err := os.Remove(s.file(key)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fileLock is the content of a lock's file.
type fileLock struct {
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
}

// TryLock implements certificate.Storage. Two processes that take over the same lock at the
// same moment, after its owner died, may both have it once.
func (s FileStorage) TryLock(_ context.Context, name, owner string, lifetime time.Duration) (bool, error) {
	file := s.file(name + ".lock")
	content, err := json.Marshal(fileLock{owner, time.Now().Add(lifetime)})
	if err != nil {
		return false, err
	}
	temporary, err := s.writeTemporary(file, content)
	if err != nil {
		return false, err
	}
	defer os.Remove(temporary)     //nolint:errcheck // after a rename it is gone
	err = os.Link(temporary, file) // fails if the lock exists
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	if held, err := readLock(file); err == nil && held.Owner != owner && time.Now().Before(held.Until) {
		return false, nil
	}
	if err := os.Rename(temporary, file); err != nil {
		return false, err
	}
	held, err := readLock(file)
	return held.Owner == owner, err
}

// Unlock implements certificate.Storage.
func (s FileStorage) Unlock(ctx context.Context, name, owner string) error {
	if held, err := readLock(s.file(name + ".lock")); err != nil || held.Owner != owner {
		return nil // it ended, or another process took it over
	}
	return s.Delete(ctx, name+".lock")
}

// readLock reads the file of a lock. A damaged one is an error.
func readLock(file string) (held fileLock, err error) {
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &held)
	}
	return held, err
}

// file returns the path of a key.
func (s FileStorage) file(key string) string { return filepath.Join(s.Dir, filepath.FromSlash(key)) }

// writeTemporary writes a file beside another one that only its owner can read.
func (s FileStorage) writeTemporary(beside string, content []byte) (path string, err error) {
	if err := os.MkdirAll(filepath.Dir(beside), 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(beside), ".new-*") // has mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the first error counts
		return "", err
	}
	return f.Name(), nil
}
