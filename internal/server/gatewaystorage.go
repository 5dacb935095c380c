package server

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// CertificateStorage keeps the certificates of gateways; see certificate.Storage, which it is.
type CertificateStorage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	TryLock(ctx context.Context, name, owner string, lifetime time.Duration) (bool, error)
	Unlock(ctx context.Context, name, owner string) error
}

// The keys that gateway processes may use: those of their domain (certificate.DomainPrefix), and, to read it, that of
// the certificate of the internal authority (certificate.RootCertificate).
const (
	domainKeys = "domains/"
	rootKey    = "authority/root.crt.pem"
)

// callGatewayStorage makes a call of the storage for certificates for a process, within the domain of its gateway.
func (s *Server) callGatewayStorage(c *apiCall, in api.GatewayStorageRequest) (answer api.GatewayStorageAnswer, err error) {
	storage := s.links.Certificates
	if storage == nil {
		return answer, &dstack.Error{Kind: dstack.Unsupported, Message: "this server keeps no certificates"}
	}
	g, err := s.store.Gateway(c.ctx, c.process.Gateway)
	if err != nil {
		return answer, err
	}
	isOwn := g.Domain != "" && strings.HasPrefix(in.Key, domainKeys+g.Domain+"/") && isPlainKey(in.Key)
	if !isOwn && (in.Key != rootKey || in.Action != api.StorageLoad) {
		return answer, newProcessError(dstack.Invalid, "a gateway process may only use what belongs to the domain of its gateway", "")
	}
	switch in.Action {
	case api.StorageLoad:
		answer.Value, err = storage.Load(c.ctx, in.Key)
		if errors.Is(err, fs.ErrNotExist) {
			return answer, nil
		}
		answer.Exists = err == nil
	case api.StorageStore:
		err = storage.Store(c.ctx, in.Key, in.Value)
	case api.StorageDelete:
		err = storage.Delete(c.ctx, in.Key)
	case api.StorageLock:
		lifetime := min(max(time.Duration(in.Seconds)*time.Second, time.Second), maxStorageLock)
		answer.Exists, err = storage.TryLock(c.ctx, in.Key, in.Owner, lifetime)
	case api.StorageUnlock:
		err = storage.Unlock(c.ctx, in.Key, in.Owner)
	default:
		err = &dstack.Error{Kind: dstack.Invalid, Message: "the storage for certificates has no action " + quote(string(in.Action))}
	}
	return answer, err
}

// maxStorageLock bounds the time for which a process that dies keeps others from obtaining a certificate.
const maxStorageLock = 10 * time.Minute

// isPlainKey reports whether a key is a path without parts that could lead elsewhere.
func isPlainKey(key string) bool {
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\\x00") {
			return false
		}
	}
	return len(key) <= maxStorageKey
}

const maxStorageKey = 1000
