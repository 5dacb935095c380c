package server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"dstack/internal/dstack"
)

// tokenPrefix identifies a token, for users and for secret scanners.
const tokenPrefix = "dst_"

// newToken returns a token of 256 random bits. It ends with a checksum, which
// distinguishes an incompletely copied token from a revoked one.
func newToken() string { return newTokenWith(tokenPrefix) }

// newTokenWith returns a token with another prefix.
func newTokenWith(prefix string) string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	body := base64.RawURLEncoding.EncodeToString(random[:])
	return prefix + body + tokenSum(body)
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

// The length of a token that the operator chooses, in bytes. A shorter one could be
// guessed: nothing limits the attempts.
const (
	minTokenBytes = 32
	maxTokenBytes = 512
)

// CheckToken refuses a token of the operator that cannot be sent in a header or could be
// guessed. source names it in the error. The empty token is valid: one is generated.
func CheckToken(source, token string) error {
	isInvalid := func(r rune) bool { return r <= ' ' || r > '~' }
	hint := "make one with: openssl rand -hex 32\nor leave it out, to have a token generated"
	switch {
	case token == "":
		return nil
	case len(token) < minTokenBytes:
		return &dstack.Error{Kind: dstack.Invalid, Hint: hint,
			Message: fmt.Sprintf("%s has %d characters; it needs at least %d, so that nobody can guess it",
				source, len(token), minTokenBytes)}
	case len(token) > maxTokenBytes || strings.ContainsFunc(token, isInvalid):
		return &dstack.Error{Kind: dstack.Invalid, Hint: hint,
			Message: fmt.Sprintf("%s may have at most %d visible ASCII characters and no spaces", source, maxTokenBytes)}
	}
	return nil
}
