package gatewaylink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"dstack/internal/api"
)

// Storage returns the storage for certificates that all processes of the gateway share. The servers keep it. The folder of
// the process has a sealed copy of what it used, so that certificates are served without a server. While no server
// answers, nothing gets a lock, so that no certificate is obtained or renewed.
func (l *Link) Storage() *Storage { return &Storage{link: l} }

// Storage implements certificate.Storage.
type Storage struct {
	link *Link
	// silentUntil is until when the copies are used at once, because no server answered; Unix time in nanoseconds.
	silentUntil atomic.Int64
}

// copiesName is the folder of the copies.
const copiesName = "certificates"

// How long a server may take if there is a copy, and for how long it is not asked again after that: a gateway that starts
// while its servers do not answer must not wait for each of its certificates.
const (
	copyTimeout   = 300 * time.Millisecond
	silencePeriod = 3 * time.Second
)

// Load returns the value of a key; fs.ErrNotExist. If no server answers soon, it returns the copy.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	kept, _ := readSealed(s.link.options.Dir, s.link.options.Identity.Key, copyName(key)) // a damaged copy is as none
	if kept != nil && time.Now().UnixNano() < s.silentUntil.Load() {
		return kept, nil
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if kept != nil {
		limited, cancel = context.WithTimeout(ctx, copyTimeout)
	}
	defer cancel()
	answer, err := s.call(limited, api.GatewayStorageRequest{Action: api.StorageLoad, Key: key})
	switch {
	case err != nil && kept != nil && ctx.Err() == nil && (isAway(err) || limited.Err() != nil):
		s.silentUntil.Store(time.Now().Add(silencePeriod).UnixNano())
		return kept, nil
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
		if err == nil {
			s.silentUntil.Store(0) // who just got a lock reads what the server has
		}
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
