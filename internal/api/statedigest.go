package api

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// DigestPart returns the digest of the text of one part of a state.
func DigestPart(text []byte) [sha256.Size]byte { return sha256.Sum256(text) }

// DigestParts returns the digest of a whole state, hexadecimal, from the digests of its parts by name.
func DigestParts(parts map[string][sha256.Size]byte) string {
	names := make([]string, 0, len(parts))
	for name := range parts {
		names = append(names, name)
	}
	slices.Sort(names)
	buffer := make([]byte, 0, len(names)*(sha256.Size+48))
	for _, name := range names {
		digest := parts[name]
		buffer = append(buffer, name...)
		buffer = append(buffer, 0)
		buffer = append(buffer, digest[:]...)
	}
	sum := sha256.Sum256(buffer)
	return hex.EncodeToString(sum[:])
}

// StateContext begins the bytes that are signed, before a header: the key signs nothing else with it.
const StateContext = "dstack gateway state v1\n"
