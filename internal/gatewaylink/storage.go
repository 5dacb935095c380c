package gatewaylink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dstack/internal/api"
)

// Storage returns the storage for certificates that all processes of the gateway share. The servers keep it. The folder of
// the process has a sealed copy of what it used, so that certificates are served without a server. While no server
// answers, nothing gets a lock, so that no certificate is obtained or renewed.
func (l *Link) Storage() *Storage { return &Storage{link: l} }

// Storage implements certificate.Storage.
type Storage struct{ link *Link }

// copiesName is the folder of the copies.
const copiesName = "certificates"

// Load returns the value of a key; fs.ErrNotExist.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	answer, err := s.call(ctx, api.GatewayStorageRequest{Action: api.StorageLoad, Key: key})
	switch {
	case err != nil && isAway(err) && ctx.Err() == nil:
		if value, copyErr := readSealed(s.link.options.Dir, s.link.options.Identity.Key, copyName(key)); copyErr == nil && value != nil {
			return value, nil
		}
		return nil, err
	case err != nil:
		return nil, err
	case !answer.Exists:
		return nil, errors.Join(fs.ErrNotExist, s.deleteCopy(key))
	}
	return answer.Value, s.saveCopy(key, answer.Value)
}

// Store replaces the value of a key.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	if _, err := s.call(ctx, api.GatewayStorageRequest{Action: api.StorageStore, Key: key, Value: value}); err != nil {
		return err
	}
	return s.saveCopy(key, value)
}

// Delete deletes a key.
func (s *Storage) Delete(ctx context.Context, key string) error {
	if _, err := s.call(ctx, api.GatewayStorageRequest{Action: api.StorageDelete, Key: key}); err != nil {
		return err
	}
	return s.deleteCopy(key)
}

// TryLock takes a lock, or extends it. While no server answers, somebody else may have it.
func (s *Storage) TryLock(ctx context.Context, name, owner string, lifetime time.Duration) (bool, error) {
	answer, err := s.call(ctx, api.GatewayStorageRequest{Action: api.StorageLock, Key: name, Owner: owner, Seconds: int(lifetime / time.Second)})
	return answer.Exists, err
}

// Unlock ends a lock.
func (s *Storage) Unlock(ctx context.Context, name, owner string) error {
	_, err := s.call(ctx, api.GatewayStorageRequest{Action: api.StorageUnlock, Key: name, Owner: owner})
	return err
}

// storageTimeout is the limit for one call.
const storageTimeout = 10 * time.Second

// call asks one server after the other until one answers.
func (s *Storage) call(ctx context.Context, ask api.GatewayStorageRequest) (answer api.GatewayStorageAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	for range s.link.servers.countServers() {
		used := s.link.servers.currentServer()
		answer, err = used.client.CallGatewayStorage(ctx, ask)
		if err == nil || !isAway(err) || ctx.Err() != nil {
			return answer, err
		}
		s.link.servers.leaveServer(used)
	}
	return answer, err
}

// copyName returns the name of the file with the copy of a key. Keys may be longer than names of files.
func copyName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(copiesName, hex.EncodeToString(sum[:]))
}

func (s *Storage) saveCopy(key string, value []byte) error {
	dir := s.link.options.Dir
	if err := os.MkdirAll(filepath.Join(dir, copiesName), 0o700); err != nil {
		return err
	}
	return saveSealed(dir, s.link.options.Identity.Key, copyName(key), value)
}

func (s *Storage) deleteCopy(key string) error {
	err := os.Remove(filepath.Join(s.link.options.Dir, copyName(key)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
