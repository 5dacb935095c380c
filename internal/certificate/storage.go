package certificate

import (
	"context"
	"time"
)

// Storage keeps certificates, keys and accounts. All processes that serve the
// same domain share what is below DomainPrefix of it. Keys are paths of lower-case
// words with slashes; values are secret. All calls may be repeated.
type Storage interface {
	// Load returns fs.ErrNotExist for a key that does not exist.
	Load(ctx context.Context, key string) ([]byte, error)
	// Store replaces the value of a key as a whole.
	Store(ctx context.Context, key string, value []byte) error
	// Delete deletes a key; one that does not exist is no error.
	Delete(ctx context.Context, key string) error
	// TryLock takes the lock with a name for a time, and reports whether owner has
	// it now. It does not wait. The present owner extends its lock by the same call.
	TryLock(ctx context.Context, name, owner string, lifetime time.Duration) (bool, error)
	// Unlock ends the lock if owner has it.
	Unlock(ctx context.Context, name, owner string) error
}

// DomainPrefix is the beginning of the keys and locks that belong to one domain.
// A process that serves only this domain needs no other keys but RootCertificate,
// which it only reads.
func DomainPrefix(domain string) string { return "domains/" + domain + "/" }
