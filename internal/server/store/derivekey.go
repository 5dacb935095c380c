package store

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// DeriveKey returns a key of 32 bytes for one purpose, which tells nothing about
// the newest key or about keys for other purposes. It stays the same until a
// newer key is added to the file.
func (s *Sealer) DeriveKey(purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, s.root, nil, purpose, keyBytes)
}
