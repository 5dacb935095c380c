package sshserver

import (
	"crypto/rsa"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key is a public key in the wire format of SSH. Equal keys are equal strings.
type Key string

// Bounds of the keys that ParseKey accepts.
const (
	maxKeyText    = 16 << 10
	minRSAKeyBits = 2048
)

// ParseKey reads a public key in the format of authorized_keys: its type, base64, and a comment. It returns false for other
// text, and for keys that must not open anything: certificates, keys with options, which nothing here enforces, and short
// RSA keys.
func ParseKey(text string) (Key, bool) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > maxKeyText || strings.ContainsAny(text, "\r\n") {
		return "", false
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 {
		return "", false
	}
	if _, isCertificate := key.(*ssh.Certificate); isCertificate {
		return "", false
	}
	if known, ok := key.(ssh.CryptoPublicKey); ok {
		if r, isRSA := known.CryptoPublicKey().(*rsa.PublicKey); isRSA && r.N.BitLen() < minRSAKeyBits {
			return "", false
		}
	}
	return Key(key.Marshal()), true
}
