package sshserver

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/pem"
	"strings"

	"golang.org/x/crypto/ssh"
)

// KeyPair is a key pair as OpenSSH keeps it in files: the private key in PEM, the public one on one line.
type KeyPair struct{ Private, Public string }

// DeriveKeyPair returns the key pair of an owner, always the same one for the same secret and owner. The parts of the
// owner's name must not contain zero bytes.
func DeriveKeyPair(secret []byte, owner ...string) (KeyPair, error) {
	seed, err := hkdf.Key(sha256.New, secret, nil, "ssh key of\x00"+strings.Join(owner, "\x00"), ed25519.SeedSize)
	if err != nil {
		return KeyPair{}, err
	}
	private := ed25519.NewKeyFromSeed(seed)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return KeyPair{}, err
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{Private: string(pem.EncodeToMemory(block)), Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))}, nil
}
