package sshclient

import (
	"golang.org/x/crypto/ssh"
)

// ParseKey reads a private key, as ssh-keygen writes it. The passphrase is used only if the key needs one. If it needs one and
// there is none, errors.Is(err, ErrPassphrase) holds.
func ParseKey(key []byte, passphrase string) (ssh.Signer, error) {
	return nil, errSkeleton
}

// DecryptKey returns a private key in OpenSSH's format without a passphrase, as dstack.SSHLogin has it.
func DecryptKey(key []byte, passphrase string) ([]byte, error) {
	return nil, errSkeleton
}
