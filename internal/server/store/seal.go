package store

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// sealPrefix begins every sealed text: enc:v1:<key's id>:<base64>.
const sealPrefix = "enc:v1:"

const keyBytes = 32

// Sealer encrypts secrets at rest with AES-256-GCM. A text that was sealed for
// one row does not open in another. It is immutable.
type Sealer struct {
	newest string
	keys   map[string]cipher.AEAD // by id
	root   []byte                 // the newest key; others are derived from it
}

// NewSealer reads the key file, and creates it with mode 0600 if there is none.
// The file has one base64 key a line, the newest first. The newest key seals; all
// keys open. It fails when others can read the file.
func NewSealer(file string) (*Sealer, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(file); err != nil {
			return nil, keyError(file, human.DescribeFailure(err), folderHint, err)
		}
	}
	return ReadSealer(file)
}

// ReadSealer is NewSealer for a key file that exists.
func ReadSealer(file string) (*Sealer, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, keyError(file, "it does not exist", "start the server once, which creates it, or set DSTACK_SERVER_DIR", err)
	}
	if err != nil {
		return nil, keyError(file, human.DescribeFailure(err), "check that the file is yours", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, keyError(file, human.DescribeFailure(err), "check that the file is yours", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, keyError(file, "others can read it", "chmod 600 "+file, nil)
	}
	return parseKeys(file, text)
}

func keyError(file, why, hint string, cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot use the key file %s: %s", file, why), Hint: hint, Cause: cause}
}

func parseKeys(file string, text []byte) (*Sealer, error) {
	s := &Sealer{keys: map[string]cipher.AEAD{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for num := 1; lines.Scan(); num++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyBytes {
			return nil, keyError(file, fmt.Sprintf("line %d is not a key of %d bytes in base64", num, keyBytes), "put the file back from a backup", nil)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, keyError(file, human.DescribeFailure(err), "", err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, keyError(file, human.DescribeFailure(err), "", err)
		}
		sum := sha256.Sum256(key)
		id := hex.EncodeToString(sum[:4])
		s.keys[id] = gcm
		if s.newest == "" {
			s.newest, s.root = id, key
		}
	}
	if s.newest == "" {
		return nil, keyError(file, "there is no key in it", "put the file back from a backup", nil)
	}
	return s, nil
}

// makeKeyFile writes a new key file atomically. If another process is first, its
// file stays.
func makeKeyFile(file string) error {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	temp, err := os.CreateTemp(filepath.Dir(file), ".key-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = fmt.Fprintf(temp, "# dstack seals its secrets with these keys, newest first. Without them the database is lost.\n%s\n",
		base64.StdEncoding.EncodeToString(key))
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// seal encrypts text for one row. A nil Sealer returns the text.
func (s *Sealer) seal(text, row string) (string, error) {
	if s == nil {
		return text, nil
	}
	return s.prefix() + base64.StdEncoding.EncodeToString(s.encrypt(nil, []byte(text), row)), nil
}

// sealBytes is seal for bytes, which it does not encode. A nil Sealer returns the bytes
// themselves.
func (s *Sealer) sealBytes(data []byte, row string) []byte {
	if s == nil {
		return data
	}
	sealed := make([]byte, 0, len(data)+128)
	return s.encrypt(append(sealed, s.prefix()...), data, row)
}

func (s *Sealer) prefix() string { return sealPrefix + s.newest + ":" }

// encrypt appends a nonce and the sealed data to dst.
func (s *Sealer) encrypt(dst, data []byte, row string) []byte {
	gcm := s.keys[s.newest]
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return gcm.Seal(append(dst, nonce...), nonce, data, []byte(row))
}

// open is the opposite of seal. It fails when the text is not sealed, or was
// sealed for another row.
func (s *Sealer) open(sealed, row string) (string, error) {
	gcm, text, err := s.findKey(sealed)
	if err != nil || gcm == nil {
		return text, err
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", errDamaged
	}
	opened, err := decrypt(gcm, raw, row)
	return string(opened), err
}

// openBytes is the opposite of sealBytes, and fails as open does.
func (s *Sealer) openBytes(sealed []byte, row string) ([]byte, error) {
	head := string(sealed[:min(len(sealed), maxPrefixBytes)])
	gcm, rest, err := s.findKey(head)
	switch {
	case err != nil:
		return nil, err
	case gcm == nil:
		return sealed, nil
	}
	return decrypt(gcm, sealed[len(head)-len(rest):], row)
}

// maxPrefixBytes is more than sealPrefix and a key's ID have.
const maxPrefixBytes = 64

var errDamaged = errors.New("it is cut off or damaged")

// findKey returns the key of a sealed text, and the text after the prefix. Without a
// Sealer it returns no key, and the whole text.
func (s *Sealer) findKey(sealed string) (gcm cipher.AEAD, rest string, err error) {
	rest, isSealed := strings.CutPrefix(sealed, sealPrefix)
	switch {
	case s == nil && isSealed:
		return nil, "", errors.New("it is sealed, and there is no key")
	case s == nil:
		return nil, sealed, nil
	case !isSealed:
		return nil, "", errors.New("it is not sealed, and should be")
	}
	id, rest, _ := strings.Cut(rest, ":")
	gcm, ok := s.keys[id]
	if !ok {
		return nil, "", fmt.Errorf("its key %q is not in the key file", id)
	}
	return gcm, rest, nil
}

func decrypt(gcm cipher.AEAD, raw []byte, row string) ([]byte, error) {
	if len(raw) < gcm.NonceSize() {
		return nil, errDamaged
	}
	opened, err := gcm.Open(nil, raw[:gcm.NonceSize()], raw[gcm.NonceSize():], []byte(row))
	if err != nil {
		return nil, errors.New("it was changed, or belongs to another row")
	}
	return opened, nil
}
