package gatewaylink

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// The files of a process's folder.
const (
	identityFile = "process.json" // identity
	stateName    = "state"        // sealed: savedState
	loadsName    = "loads"        // sealed: totals of the runs
)

// Identity is what a process knows of itself and of its installation. It is secret.
type Identity struct {
	ID          string   `json:"id"`         // empty: it has not joined yet
	Credential  string   `json:"credential"` // with which it calls servers
	Key         []byte   `json:"key"`        // seals the other files of the folder
	TokenHash   string   `json:"token_hash"` // of the token that it joined with
	Fingerprint string   `json:"fingerprint"`
	Servers     []string `json:"servers"`
	Project     string   `json:"project"`
	Gateway     string   `json:"gateway"`
	Domain      string   `json:"domain"`
}

// newIdentity returns the identity of a process that has not joined yet.
func newIdentity() Identity {
	credential, key := make([]byte, 32), make([]byte, 32)
	_, _ = rand.Read(credential) // never fails
	_, _ = rand.Read(key)
	return Identity{Credential: "dgp_" + base64.RawURLEncoding.EncodeToString(credential), Key: key}
}

// credentialHash returns the form in which servers keep the credential.
func (i Identity) credentialHash() string {
	sum := sha256.Sum256([]byte(i.Credential))
	return hex.EncodeToString(sum[:])
}

// readIdentity reads the identity in a folder; a new one if there is none.
func readIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newIdentity(), nil
	}
	if err != nil {
		return Identity{}, newFileError(path, human.DescribeFailure(err), err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return Identity{}, &dstack.Error{Kind: dstack.Unavailable, Message: "cannot use " + path + ": others can read it", Hint: "chmod 600 " + path}
	}
	var identity Identity
	if err := json.Unmarshal(text, &identity); err != nil || len(identity.Key) != 32 || identity.Credential == "" {
		return Identity{}, newFileError(path, "it is damaged", err)
	}
	return identity, nil
}

func (i Identity) save(dir string) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, identityFile)
	if err := writeFile(path, append(text, '\n')); err != nil {
		return newFileError(path, human.DescribeFailure(err), err)
	}
	return nil
}

func newFileError(path, why string, cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot use %s: %s", path, why), Cause: cause,
		Hint: "make sure that the folder is this user's; or remove it and join again with a new token: dstack gateway token NAME"}
}
