package route

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"time"
)

// indexedKey is a key with its digest as bytes.
type indexedKey struct {
	Key
	digest Digest
}

// addKey adds a key for callers; a malformed digest is ignored.
func (x *Index) addKey(k Key) {
	raw, err := hex.DecodeString(k.Digest)
	if err != nil || len(raw) != sha256.Size {
		return
	}
	k.Project = lowerASCII(k.Project)
	x.keys[Digest(raw)] = &indexedKey{k, Digest(raw)}
	x.keyIDs[k.ID] = true
}

// Key returns the key for callers that has a digest, or nil. It compares as Grant
// does. The key may have expired.
func (x *Index) Key(token Digest) *Key {
	k := x.keys[token]
	if k == nil || subtle.ConstantTimeCompare(k.digest[:], token[:]) != 1 {
		return nil
	}
	return &k.Key
}

// HasKey reports whether the table has the key of an ID.
func (x *Index) HasKey(id string) bool { return x.keyIDs[id] }

// ExpiresAt is when the key ends; zero: never.
func (k *Key) ExpiresAt() time.Time {
	if k.Expires == 0 {
		return time.Time{}
	}
	return time.Unix(k.Expires, 0)
}

// IsExpired reports whether the key has ended.
func (k *Key) IsExpired(now time.Time) bool { return k.Expires != 0 && now.Unix() >= k.Expires }

// AllowsRun reports whether the key opens the address of a run.
func (k *Key) AllowsRun(project, run string) bool {
	return k.Project == project && (k.isUnrestricted() || slices.Contains(k.Services, run))
}

// AllowsModel reports whether the key may call a model at the model endpoint.
func (k *Key) AllowsModel(project, model string) bool {
	return k.Project == project && (k.isUnrestricted() || slices.Contains(k.Models, model))
}

// isUnrestricted reports that the key opens everything of its project.
func (k *Key) isUnrestricted() bool { return len(k.Services) == 0 && len(k.Models) == 0 }
