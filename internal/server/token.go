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

// tokenPrefix tells people and scanners of leaks what a token is.
const tokenPrefix = "dst_"

// newToken makes a token of 256 random bits, with a checksum at its end so
// that one copied in part is told from one that was revoked.
func newToken() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	body := base64.RawURLEncoding.EncodeToString(random[:])
	return tokenPrefix + body + tokenSum(body)
}

func tokenSum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return base64.RawURLEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// HashToken is how tokens are kept: SHA-256, hexadecimal.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// checkToken refuses a token that no header could carry.
func checkToken(token string) error {
	bad := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(token) > 512 || strings.ContainsFunc(token, bad) {
		return &dstack.Error{Kind: dstack.Invalid,
			Message: "the admin's token may have at most 512 visible ASCII characters and no spaces",
			Hint:    "leave --token out, and one is made"}
	}
	return nil
}
