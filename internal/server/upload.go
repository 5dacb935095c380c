package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// maxFormOverhead is how much a request may hold besides its file.
const maxFormOverhead = 16 << 10

// maxUploadTime is how long an upload may take in all.
const maxUploadTime = 15 * time.Minute

var codeHashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// uploadCode keeps an upload whole or not at all: it is spooled and hashed
// first, and must be what its name says.
func (s *Server) uploadCode(c *request) error {
	length := c.r.ContentLength
	if length < 0 || length > s.upload+maxFormOverhead {
		return s.newCodeTooLargeError()
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, s.upload+maxFormOverhead)
	c.setReadDeadline(maxUploadTime)
	err := s.receiveCode(c)
	// Most clients send all before they listen: one that is answered earlier
	// finds the connection closed, and never sees the answer.
	_, _ = io.Copy(io.Discard, c.r.Body)
	if err != nil {
		return err
	}
	s.respondJSON(c.w, http.StatusOK, wire.Null{})
	return nil
}

func (s *Server) receiveCode(c *request) error {
	id := c.r.URL.Query().Get("repo_id")
	if id == "" {
		return wire.ValidationErrors{{Loc: []any{"query", "repo_id"}, Msg: "field required", Type: "value_error.missing"}}
	}
	if _, err := s.findRepo(c, id); err != nil {
		return err
	}
	part, err := findFilePart(c.r)
	if err != nil {
		return err
	}
	hash := part.FileName()
	if !codeHashPattern.MatchString(hash) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "an upload is named by the SHA-256 of its content, in 64 hexadecimal digits",
			Hint: "name the file so"}
	}
	return s.storeCode(c, id, hash, part)
}

func (s *Server) newCodeTooLargeError() error {
	return wire.Error{
		Msg: fmt.Sprintf("Repo diff size exceeds the limit of %s. Use .gitignore to exclude large files from the repo.", formatSize(s.upload)),
		Err: &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the folder is larger than %s, or its size was not told", formatSize(s.upload)),
			Hint: "list what the service does not need in .dstackignore or .gitignore"},
	}
}

// findFilePart finds the one file of an upload.
func findFilePart(r *http.Request) (*multipart.Part, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, wire.ValidationErrors{{Loc: []any{"body", "file"}, Msg: "field required", Type: "value_error.missing"}}
	}
	part, err := parts.NextPart()
	if err != nil || part.FormName() != "file" {
		return nil, wire.ValidationErrors{{Loc: []any{"body", "file"}, Msg: "field required", Type: "value_error.missing"}}
	}
	return part, nil
}

func (s *Server) storeCode(c *request, repo, hash string, part *multipart.Part) error {
	has, err := s.store.HasCode(c.ctx, c.project.ID, repo, hash)
	if err != nil || has {
		return err
	}
	file, err := s.createSpoolFile()
	if err != nil {
		return err
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name()) // one that stays is removed by the next start
	}()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), part)
	if err != nil {
		return s.uploadError(err)
	}
	if size > s.upload {
		return s.newCodeTooLargeError()
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		return &dstack.Error{Kind: dstack.Invalid, Message: "the upload is not what its name says: its SHA-256 is " + got,
			Hint: "upload it again"}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.store.PutCode(c.ctx, c.project.ID, repo, hash, file)
}

// uploadError tells a client that stopped from a disk that is full.
func (s *Server) uploadError(err error) error {
	if _, ours := errors.AsType[*os.PathError](err); ours {
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err, Message: "the server cannot keep the upload: its disk failed or is full",
			Hint: "make room below the server's folder"}
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return s.newCodeTooLargeError()
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "the upload ended before it was complete",
		Hint: "upload it again"}
}

const spoolPrefix = "upload-"

func (s *Server) spoolDir() string { return filepath.Join(s.dir, "tmp") }

func (s *Server) createSpoolFile() (*os.File, error) {
	if err := os.MkdirAll(s.spoolDir(), 0o700); err != nil {
		return nil, s.uploadError(err)
	}
	file, err := os.CreateTemp(s.spoolDir(), spoolPrefix)
	if err != nil {
		return nil, s.uploadError(err)
	}
	return file, nil
}

// cleanSpool removes what an earlier server left when it was killed.
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
