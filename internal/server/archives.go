package server

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// uploadArchive stores a file or folder that configurations name, and answers its ID.
func (s *Server) uploadArchive(c *apiCall) error {
	var stored dstack.FileArchive
	err := s.receiveUpload(c, func() (err error) {
		stored, err = s.receiveArchive(c)
		return err
	})
	if err != nil {
		return err
	}
	s.respondJSON(c.w, http.StatusOK, api.FileArchive{ID: stored.ID, Hash: stored.Hash})
	return nil
}

// receiveArchive checks an archive and stores it. It skips one that the caller has uploaded
// before.
func (s *Server) receiveArchive(c *apiCall) (dstack.FileArchive, error) {
	part, hash, err := findFilePart(c.r)
	if err != nil {
		return dstack.FileArchive{}, err
	}
	known, err := s.store.ArchiveByHash(c.ctx, c.user.ID, hash)
	if dstack.KindOf(err) != dstack.NotFound {
		return known, err
	}
	file, err := s.spoolUpload(c, hash, part, engine.CheckFiles)
	if err != nil {
		return dstack.FileArchive{}, err
	}
	defer file.remove()
	archive, err := file.newReader()
	if err != nil {
		return dstack.FileArchive{}, err
	}
	return s.store.PutArchive(c.ctx, c.user.ID, hash, archive)
}

func (s *Server) getArchiveByHash(c *apiCall, in api.GetArchiveByHash) (api.FileArchive, error) {
	if !codeHashPattern.MatchString(in.Hash) {
		return api.FileArchive{}, &dstack.Error{Kind: dstack.NotFound, Message: "you have not uploaded this archive",
			Hint: "send its SHA-256, as 64 hexadecimal digits"}
	}
	found, err := s.store.ArchiveByHash(c.ctx, c.user.ID, in.Hash)
	return api.FileArchive{ID: found.ID, Hash: found.Hash}, err
}

// findArchives completes the IDs and hashes of a run's files. They must be those of the
// configuration, and uploaded by the caller. Files that are named by their hashes may be
// uploaded later.
func (s *Server) findArchives(c *apiCall, rs *dstack.RunSpec) error {
	files := rs.Configuration.Files
	if len(rs.FileArchives) != len(files) {
		return &dstack.Error{Kind: dstack.Invalid,
			Message: fmt.Sprintf("the configuration names %d files, and the run has %d archives", len(files), len(rs.FileArchives)),
			Hint:    "send an archive in file_archives for each of `files`, as dstack apply does"}
	}
	rs.FileArchives = slices.Clone(rs.FileArchives)
	for i := range rs.FileArchives {
		archive := &rs.FileArchives[i]
		if archive.Path != files[i].Path {
			return &dstack.Error{Kind: dstack.Invalid,
				Message: fmt.Sprintf("file_archives.%d has the path %.100q, and `files` has %.100q", i, archive.Path, files[i].Path),
				Hint:    "send the archives in the order of `files`, with the same paths"}
		}
		if err := s.findArchive(c, archive); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) findArchive(c *apiCall, archive *dstack.FileArchive) error {
	var found dstack.FileArchive
	var err error
	switch {
	case uuid.Validate(archive.ID) == nil:
		found, err = s.store.ArchiveByID(c.ctx, c.user.ID, archive.ID)
		if err == nil && archive.Hash != "" && archive.Hash != found.Hash {
			err = &dstack.Error{Kind: dstack.NotFound}
		}
	case archive.ID == "" && codeHashPattern.MatchString(archive.Hash):
		found, err = s.store.ArchiveByHash(c.ctx, c.user.ID, archive.Hash)
		if dstack.KindOf(err) == dstack.NotFound {
			return nil
		}
	default:
		err = &dstack.Error{Kind: dstack.NotFound}
	}
	if dstack.KindOf(err) == dstack.NotFound {
		return newNotUploadedError(archive.Path)
	}
	archive.ID, archive.Hash = found.ID, found.Hash
	return err
}

// checkUploaded returns an error if a file was not uploaded before its run is submitted.
func checkUploaded(files []dstack.FileArchive) error {
	for _, file := range files {
		if file.ID == "" {
			return newNotUploadedError(file.Path)
		}
	}
	return nil
}

// newNotUploadedError is also the error for an archive of another user.
func newNotUploadedError(name string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("you have not uploaded the file with the path %.100q", name),
		Hint: "apply again, so that it is uploaded"}
}
