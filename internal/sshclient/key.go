package sshclient

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// maxKeys is how many private keys a login may have: sshd ends a login after six tries (MaxAuthTries).
const maxKeys = 5

// MaxKeyBytes is how long the private keys of a login may be together. The largest common ones, of RSA with 16384 bits, have
// 13 KB.
const MaxKeyBytes = 64 << 10

// ErrPassphrase is in the chain of the errors for private keys that need a passphrase, or another one.
var ErrPassphrase = errors.New("a passphrase is needed")

// ParseKey reads a private key, as ssh-keygen writes it. The passphrase is used only if the key needs one. If it needs one, or
// another one, errors.Is(err, ErrPassphrase) holds.
func ParseKey(key []byte, passphrase string) (ssh.Signer, error) {
	raw, err := parseRawKey(key, passphrase)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		return nil, keyError("the private key cannot be used", "", err)
	}
	return signer, nil
}

// DecryptKey returns a private key in OpenSSH's format without a passphrase, as dstack.SSHLogin has it. It fails as ParseKey
// does.
func DecryptKey(key []byte, passphrase string) ([]byte, error) {
	raw, err := parseRawKey(key, passphrase)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(raw, "")
	if err != nil {
		return nil, keyError("the private key cannot be written without its passphrase", "", err)
	}
	return pem.EncodeToMemory(block), nil
}

// parseRawKey returns the private key of crypto/*. It tries without the passphrase first: x/crypto refuses a passphrase for a
// key that has none.
func parseRawKey(key []byte, passphrase string) (any, error) {
	raw, err := ssh.ParseRawPrivateKey(key)
	if err == nil {
		return raw, nil
	}
	missing, isMissing := errors.AsType[*ssh.PassphraseMissingError](err)
	if !isMissing {
		return nil, explainKey(key, err)
	}
	if passphrase == "" {
		return nil, keyError("the private key has a passphrase", "", errors.Join(ErrPassphrase, missing))
	}
	raw, err = ssh.ParseRawPrivateKeyWithPassphrase(key, []byte(passphrase))
	switch {
	case err == nil:
		return raw, nil
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, keyError("the passphrase of the private key is another one", "", errors.Join(ErrPassphrase, err))
	default: // a cipher that x/crypto does not know
		return nil, keyError("the private key is encrypted in a way that dstack cannot read", convertHint, err)
	}
}

const convertHint = "convert a copy of it: ssh-keygen -p -Z aes256-ctr -f COPY"

// explainKey says what is wrong with a file that is no private key that x/crypto reads.
func explainKey(key []byte, cause error) error {
	trimmed := bytes.TrimSpace(key)
	block, _ := pem.Decode(trimmed)
	switch {
	case len(trimmed) == 0:
		return keyError("the private key is empty", "", cause)
	case bytes.HasPrefix(trimmed, []byte("PuTTY-User-Key-File")):
		return keyError("the private key is a file of PuTTY (.ppk)",
			"convert it: puttygen KEY.ppk -O private-openssh -o KEY", cause)
	case isPublicKey(trimmed):
		return keyError("this is a public key, not the private one", "give the file without .pub", cause)
	case block == nil:
		return keyError("this is not a private key", "give a file that ssh-keygen wrote, such as ~/.ssh/id_ed25519", cause)
	case block.Type == "ENCRYPTED PRIVATE KEY": // PKCS#8
		return keyError("the private key is encrypted in a way that dstack cannot read (PKCS#8)", convertHint, cause)
	case isSecurityKey(block):
		return keyError("the private key is on a security key (a type with -sk), which someone has to touch at each login",
			"make one for dstack: ssh-keygen -t ed25519 -f KEY", cause)
	default:
		return keyError("dstack cannot read this type of private key", "make one for dstack: ssh-keygen -t ed25519 -f KEY", cause)
	}
}

// isPublicKey reports whether text is a public key or a certificate.
func isPublicKey(text []byte) bool {
	_, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return err == nil || bytes.HasPrefix(text, []byte("---- BEGIN SSH2 PUBLIC KEY"))
}

// isSecurityKey reports whether a private key in OpenSSH's format belongs to a hardware token. The type is in its
// unencrypted part.
func isSecurityKey(block *pem.Block) bool {
	return bytes.Contains(block.Bytes, []byte("sk-ssh-")) || bytes.Contains(block.Bytes, []byte("sk-ecdsa-"))
}

// parseKeys reads the private keys of a login: PEM blocks one after the other.
func parseKeys(text string) ([]ssh.Signer, error) {
	if len(text) > MaxKeyBytes {
		return nil, keyError("the private key is too large", "give a file that ssh-keygen wrote, such as ~/.ssh/id_ed25519", nil)
	}
	var signers []ssh.Signer
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 || len(signers) == 0 {
		key := rest
		block, after := pem.Decode(rest)
		if block != nil {
			key = pem.EncodeToMemory(block)
		} else {
			after = nil
		}
		signer, err := ParseKey(key, "")
		if err != nil {
			return nil, err
		}
		if signers, rest = append(signers, signer), after; len(signers) > maxKeys {
			return nil, keyError("there are more than five private keys", "give the one that the host accepts", nil)
		}
	}
	return signers, nil
}

func keyError(message, hint string, cause error) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint,
		Cause: &stepError{step: dstack.HostStepLogin, err: cause}}
}
