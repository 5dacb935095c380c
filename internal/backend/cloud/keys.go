package cloud

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// machineKeys are the keys of one machine: with the first one the server logs in, with the second one the machine proves that
// it is the one that was rented.
type machineKeys struct {
	login            string
	host, hostPublic string
}

// newMachineKeys returns new keys.
func newMachineKeys() (k machineKeys, err error) {
	if k.login, _, err = newKey(); err != nil {
		return k, err
	}
	k.host, k.hostPublic, err = newKey()
	return k, err
}

// newKey returns a private key in OpenSSH's format, and the public one as in authorized_keys.
func newKey() (private, public string, err error) {
	publicKey, privateKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(privateKey, "")
	if err != nil {
		return "", "", fmt.Errorf("write a key: %w", err)
	}
	sshKey, err := ssh.NewPublicKey(publicKey)
	if err != nil {
		return "", "", fmt.Errorf("write a key: %w", err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshKey))), nil
}

// publicKeyOf returns the public key of a private one, as in authorized_keys.
func publicKeyOf(private string) (string, error) {
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		return "", fmt.Errorf("read a key: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), nil
}
