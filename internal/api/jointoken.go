package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"dstack/internal/dstack"
)

// JoinToken is the token with which a process joins a gateway, once. Its text also has the fingerprint of the
// installation authority, so that the process recognizes the server without a public certificate.
type JoinToken struct {
	Secret      [32]byte
	Fingerprint [sha256.Size]byte // SHA-256 of the authority's certificate; zero: there is none
}

// joinTokenPrefix identifies a join token, for users and for secret scanners.
const joinTokenPrefix = "dgw_"

// NewJoinToken returns a token with a new secret.
func NewJoinToken(fingerprint [sha256.Size]byte) JoinToken {
	t := JoinToken{Fingerprint: fingerprint}
	_, _ = rand.Read(t.Secret[:]) // never fails: crypto/rand ends the program instead
	return t
}

// String returns the text of the token. It ends with a checksum, which tells an incompletely copied token from a
// wrong one.
func (t JoinToken) String() string {
	raw := make([]byte, 0, 2*sha256.Size+4)
	raw = append(append(raw, t.Secret[:]...), t.Fingerprint[:]...)
	sum := crc32.ChecksumIEEE(raw)
	raw = append(raw, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
	return joinTokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// Hash returns the form in which the store keeps the token: SHA-256 of the secret, hexadecimal.
func (t JoinToken) Hash() string {
	sum := sha256.Sum256(t.Secret[:])
	return hex.EncodeToString(sum[:])
}

// ParseJoinToken reads the text of a token. The error is of kind Invalid.
func ParseJoinToken(text string) (JoinToken, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), joinTokenPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if !ok || err != nil || len(raw) != 2*sha256.Size+4 {
		return JoinToken{}, newJoinTokenError("this is not a token of a gateway")
	}
	sum := crc32.ChecksumIEEE(raw[:2*sha256.Size])
	if [4]byte(raw[2*sha256.Size:]) != [4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)} {
		return JoinToken{}, newJoinTokenError("the token of the gateway is damaged or incomplete")
	}
	return JoinToken{Secret: [32]byte(raw), Fingerprint: [sha256.Size]byte(raw[sha256.Size:])}, nil
}

func newJoinTokenError(message string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: message,
		Hint: "copy it again, or make another: dstack gateway token NAME"}
}
