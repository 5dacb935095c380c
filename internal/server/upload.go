package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"regexp"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/human"
	"dstack/internal/server/wire"
)

// maxFormOverhead is how many bytes an upload may contain besides the file.
const maxFormOverhead = 16 << 10

// maxUploadTime is the time for a client to send an upload.
const maxUploadTime = 15 * time.Minute

var codeHashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// uploadCode stores an upload completely or not at all: it is spooled to disk
// first, and its hash must match its name.
func (s *Server) uploadCode(c *apiCall) error {
	length := c.r.ContentLength
	if length < 0 || length > s.uploadLimit+maxFormOverhead {
		return s.newCodeTooLargeError()
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, s.uploadLimit+maxFormOverhead)
	c.setReadDeadline(maxUploadTime)
	err := s.receiveCode(c)
	// Read the rest of the body. Most clients send all of it before they read
	// the response, and would see only a closed connection.
	_, _ = io.Copy(io.Discard, c.r.Body)
	if err != nil {
		return err
	}
	s.respondJSON(c.w, http.StatusOK, wire.Null{})
	return nil
}

// receiveCode checks the parameters of an upload and stores its file.
func (s *Server) receiveCode(c *apiCall) error {
	id := c.r.URL.Query().Get("repo_id")
	if id != "" && !wire.IsText(id) {
		return wire.ValidationErrors{{Loc: []any{"query", "repo_id"}, Msg: "not text in UTF-8", Type: "value_error"}}
	}
	if id == "" {
		return wire.ValidationErrors{{Loc: []any{"query", "repo_id"}, Msg: "field required", Type: "value_error.missing"}}
	}
	repo, err := s.findRepo(c, id)
	if err != nil {
		return err
	}
	part, err := findFilePart(c.r)
	if err != nil {
		return err
	}
	hash := part.FileName()
	if !codeHashPattern.MatchString(hash) {
		return &dstack.Error{Kind: dstack.Invalid,
			Message: "the file name of an upload must be the SHA-256 of its content, as 64 hexadecimal digits",
			Hint:    "upload the code with dstack apply"}
	}
	return s.storeCode(c, repo, hash, part)
}

func (s *Server) newCodeTooLargeError() error {
	limit := human.Bytes(s.uploadLimit)
	return wire.Error{
		Msg: "Repo diff size exceeds the limit of " + limit + ". Use .gitignore to exclude large files from the repo.",
		Err: &dstack.Error{Kind: dstack.Invalid,
			Message: "the folder is larger than " + limit + ", or the request has no Content-Length",
			Hint:    "exclude what the service does not need in .dstackignore or .gitignore"},
	}
}

// findFilePart returns the part of a multipart form that contains the file. It
// must be the first.
func findFilePart(r *http.Request) (*multipart.Part, error) {
	given := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(given); given != "" && (err != nil || media != "multipart/form-data") {
		return nil, newMediaTypeError(given, "multipart/form-data")
	}
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

// storeCode spools an upload, checks its hash and that replicas can unpack it, and
// stores it. It skips code that is stored already.
func (s *Server) storeCode(c *apiCall, repo dstack.Repo, hash string, part *multipart.Part) error {
	has, err := s.store.HasCode(c.ctx, c.project.ID, repo.ID, hash)
	if err != nil || has {
		return err
	}
	file, err := s.createSpoolFile()
	if err != nil {
		return err
	}
	defer file.remove()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), part)
	if err != nil {
		return s.toUploadError(err)
	}
	if size > s.uploadLimit {
		return s.newCodeTooLargeError()
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		return &dstack.Error{Kind: dstack.Invalid, Message: "the upload does not match its name: its SHA-256 is " + got,
			Hint: "upload it again"}
	}
	if isArchived(repo) {
		if err := checkArchive(c, file); err != nil {
			return err
		}
	}
	code, err := file.newReader()
	if err != nil {
		return err
	}
	return s.store.PutCode(c.ctx, c.project.ID, repo.ID, hash, code)
}

// isArchived reports whether the uploads of a repo are archives: those of a git repository
// are patches.
func isArchived(repo dstack.Repo) bool {
	var head struct {
		Type string `json:"repo_type"`
	}
	return json.Unmarshal(repo.Info, &head) != nil || head.Type != "remote"
}

// checkArchive returns an error if replicas could not unpack an upload.
func checkArchive(c *apiCall, file *spoolFile) error {
	code, err := file.newReader()
	if err == nil {
		_, err = engine.CheckArchive(c.ctx, code)
	}
	return err
}

// listLeftOut names the links in the code of a run that lead out of its folder: replicas do
// not get them. The code of a git repository is a patch, and names none.
func (s *Server) listLeftOut(c *apiCall, rs dstack.RunSpec) ([]string, error) {
	repo, err := s.findRepo(c, rs.RepoID)
	if err != nil || codeHash(rs) == "" || !isArchived(repo) {
		return nil, err
	}
	code, err := s.store.Code(c.ctx, c.project.ID, rs.RepoID, codeHash(rs))
	if err != nil {
		return nil, err
	}
	defer func() { _ = code.Close() }()
	return engine.CheckArchive(c.ctx, code)
}

// toUploadError returns the error of a failed copy: Unavailable if the server's
// disk failed, Invalid if the upload is too large or incomplete.
func (s *Server) toUploadError(err error) error {
	if _, isDisk := errors.AsType[*os.PathError](err); isDisk {
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: "the server cannot store the upload: its disk failed or is full",
			Hint:    "free space in the server's folder"}
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return s.newCodeTooLargeError()
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "the upload ended before it was complete",
		Hint: "upload it again"}
}
