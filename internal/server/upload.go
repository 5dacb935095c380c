package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
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

// uploadCode stores the code of a repo.
func (s *Server) uploadCode(c *apiCall) error {
	if err := s.receiveUpload(c, func() error { return s.receiveCode(c) }); err != nil {
		return err
	}
	s.respondJSON(c.w, http.StatusOK, wire.Null{})
	return nil
}

// receiveUpload calls receive with limits on the body's size and time. Uploads are stored
// completely or not at all: they are spooled to disk first, and their hash must match their
// name.
func (s *Server) receiveUpload(c *apiCall, receive func() error) error {
	length := c.r.ContentLength
	if length < 0 || length > s.uploadLimit+maxFormOverhead {
		return s.newUploadTooLargeError()
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, s.uploadLimit+maxFormOverhead)
	c.setReadDeadline(maxUploadTime)
	err := receive()
	// Read the rest of the body. Most clients send all of it before they read
	// the response, and would see only a closed connection.
	_, _ = io.Copy(io.Discard, c.r.Body)
	return err
}

// receiveCode checks the parameters of an upload and stores its file.
func (s *Server) receiveCode(c *apiCall) error {
	id := c.r.URL.Query().Get("repo_id")
	if id != "" && !wire.IsText(id) {
		return wire.ValidationErrors{{Loc: []any{"query", "repo_id"}, Msg: "not UTF-8, or it contains U+0000", Type: "value_error"}}
	}
	if id == "" {
		return wire.ValidationErrors{{Loc: []any{"query", "repo_id"}, Msg: "field required", Type: "value_error.missing"}}
	}
	repo, err := s.findRepo(c, id)
	if err != nil {
		return err
	}
	part, hash, err := findFilePart(c.r)
	if err != nil {
		return err
	}
	return s.storeCode(c, repo, hash, part)
}

func (s *Server) newUploadTooLargeError() error {
	limit := human.Bytes(s.uploadLimit)
	return wire.Error{
		Msg: "Repo diff size exceeds the limit of " + limit + ". Use .gitignore to exclude large files from the repo.",
		Err: &dstack.Error{Kind: dstack.Invalid,
			Message: "the folder is larger than " + limit + ", or the request has no Content-Length",
			Hint:    "exclude what the service does not need in .dstackignore or .gitignore"},
	}
}

// findFilePart returns the part of a multipart form that contains the file, and the hash
// that is its name. It must be the first.
func findFilePart(r *http.Request) (part *multipart.Part, hash string, err error) {
	missing := wire.ValidationErrors{{Loc: []any{"body", "file"}, Msg: "field required", Type: "value_error.missing"}}
	given := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(given); given != "" && (err != nil || media != "multipart/form-data") {
		return nil, "", newMediaTypeError(given, "multipart/form-data")
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, "", missing
	}
	part, err = parts.NextPart()
	if err != nil || part.FormName() != "file" {
		return nil, "", missing
	}
	hash = part.FileName()
	if !codeHashPattern.MatchString(hash) {
		return nil, "", &dstack.Error{Kind: dstack.Invalid,
			Message: "the file name of an upload must be the SHA-256 of its content, as 64 hexadecimal digits",
			Hint:    "upload the code with dstack apply"}
	}
	return part, hash, nil
}

// storeCode checks an upload and stores it. It skips code that is stored already.
func (s *Server) storeCode(c *apiCall, repo dstack.Repo, hash string, part *multipart.Part) error {
	has, err := s.store.HasCode(c.ctx, c.project.ID, repo.ID, hash)
	if err != nil || has {
		return err
	}
	check := engine.CheckArchive
	if !isArchived(repo) {
		check = nil
	}
	file, err := s.spoolUpload(c, hash, part, check)
	if err != nil {
		return err
	}
	defer file.remove()
	code, err := file.newReader()
	if err != nil {
		return err
	}
	return s.store.PutCode(c.ctx, c.project.ID, repo.ID, hash, code)
}

// spoolUpload spools an upload, and checks its hash and that replicas can unpack it; a nil
// check accepts everything. The caller removes the file.
func (s *Server) spoolUpload(c *apiCall, hash string, part *multipart.Part, check archiveCheck) (_ *spoolFile, err error) {
	file, err := s.createSpoolFile()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.remove()
		}
	}()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), part)
	if err != nil {
		return nil, s.toUploadError(err)
	}
	if size > s.uploadLimit {
		return nil, s.newUploadTooLargeError()
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the upload does not match its name: its SHA-256 is " + got,
			Hint: "upload it again"}
	}
	if check == nil {
		return file, nil
	}
	archive, err := file.newReader()
	if err == nil {
		_, err = check(c.ctx, archive)
	}
	return file, err
}

// archiveCheck returns an error if replicas could not unpack an archive, and otherwise the
// links that they do not get.
type archiveCheck func(ctx context.Context, archive io.Reader) (leftOut []string, err error)

// isArchived reports whether the uploads of a repo are archives: those of a git repository
// are patches.
func isArchived(repo dstack.Repo) bool {
	var head struct {
		Type string `json:"repo_type"`
	}
	return json.Unmarshal(repo.Info, &head) != nil || head.Type != "remote"
}

// listLeftOut names the links in the code and the files of a run that lead out of their
// folders: replicas do not get them. What is in earlier, too, is skipped.
func (s *Server) listLeftOut(c *apiCall, rs, earlier dstack.RunSpec) ([]string, error) {
	var all []string
	if codeHash(rs) != codeHash(earlier) {
		found, err := s.listLeftOutOfCode(c, rs)
		if err != nil {
			return nil, err
		}
		all = found
	}
	for _, file := range rs.FileArchives {
		if slices.Contains(earlier.FileArchives, file) {
			continue
		}
		archive, err := s.store.OpenArchive(c.ctx, file.ID)
		if err != nil {
			return nil, err
		}
		found, err := engine.CheckFiles(c.ctx, archive)
		if err := errors.Join(err, archive.Close()); err != nil {
			return nil, err
		}
		for _, name := range found {
			all = append(all, path.Join(file.Path, name))
		}
	}
	return all, nil
}

// listLeftOutOfCode is listLeftOut for the code. That of a git repository is a patch, and
// names none.
func (s *Server) listLeftOutOfCode(c *apiCall, rs dstack.RunSpec) ([]string, error) {
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
		return s.newUploadTooLargeError()
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err, Message: "the upload ended before it was complete",
		Hint: "upload it again"}
}
