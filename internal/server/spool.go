package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const spoolPrefix = "upload-" // of file names in spoolDir

func (s *Server) spoolDir() string { return filepath.Join(s.dir, "tmp") }

// spoolFile is an upload on disk until it is complete. It is encrypted with a key that
// only this process knows, so that what a killed server leaves cannot be read.
type spoolFile struct {
	file  *os.File
	block cipher.Block
	start []byte // the first counter
	out   io.Writer
}

func (s *Server) createSpoolFile() (*spoolFile, error) {
	if err := os.MkdirAll(s.spoolDir(), 0o700); err != nil {
		return nil, s.toUploadError(err)
	}
	file, err := os.CreateTemp(s.spoolDir(), spoolPrefix)
	if err != nil {
		return nil, s.toUploadError(err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	f := &spoolFile{file: file, block: block, start: make([]byte, aes.BlockSize)} // no key is used twice
	f.out = cipher.StreamWriter{S: cipher.NewCTR(block, f.start), W: file}
	return f, nil
}

// Write appends to the file.
func (f *spoolFile) Write(p []byte) (int, error) { return f.out.Write(p) }

// newReader returns a reader of the whole file.
func (f *spoolFile) newReader() (io.Reader, error) {
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return cipher.StreamReader{S: cipher.NewCTR(f.block, f.start), R: f.file}, nil
}

// remove closes and removes the file. The next start removes a file that remains.
func (f *spoolFile) remove() {
	_ = f.file.Close()
	_ = os.Remove(f.file.Name())
}

// cleanSpool removes the uploads that a killed server has left.
func cleanSpool(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), spoolPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, "tmp", e.Name())))
		}
	}
	return err
}
