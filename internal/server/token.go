package server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"dstack/internal/dstack"
)

// tokenPrefix identifies a token, for users and for secret scanners.
const tokenPrefix = "dst_"

// newToken returns a token of 256 random bits. It ends with a checksum, which
// distinguishes an incompletely copied token from a revoked one.
func newToken() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	body := base64.RawURLEncoding.EncodeToString(random[:])
	return tokenPrefix + body + tokenSum(body)
}

// tokenSum returns the checksum of the random part of a token: CRC-32, base64.
func tokenSum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return base64.RawURLEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// HashToken returns the form in which the store keeps a token: SHA-256,
// hexadecimal.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// checkToken refuses a token that cannot be sent in a header.
func checkToken(token string) error {
	isInvalid := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(token) > 512 || strings.ContainsFunc(token, isInvalid) {
		return &dstack.Error{Kind: dstack.Invalid,
			Message: "the admin's token may have at most 512 visible ASCII characters and no spaces",
			Hint:    "omit --token to have a token generated"}
	}
	return nil
}
