package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// namedFile is a file or folder of the configuration's `files`, packed.
type namedFile struct {
	spec.File
	archive *archive
}

// archiveRoot is the name of each named file or folder in its archive. Replicas do not see
// it, and the same content has the same hash, whatever its name is.
const archiveRoot = "files"

// findNamedFile returns the absolute path of a file without links.
func (a *app) findNamedFile(configuration string, f spec.File) (string, error) {
	name := f.LocalPath
	switch {
	case name == "~" || strings.HasPrefix(name, "~/"):
		name = filepath.Join(a.home, name[1:])
	case !filepath.IsAbs(name):
		name = filepath.Join(a.findConfigurationFolder(configuration), name)
	}
	return filepath.EvalSymlinks(name)
}

// findConfigurationFolder returns the folder that local paths in a configuration are
// relative to: that of the file itself if its name is a link.
func (a *app) findConfigurationFolder(configuration string) string {
	path := a.resolvePath(configuration)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Dir(path) // of the input, that is the current folder
}

// checkNamedFiles reports the files that cannot be uploaded because they do not exist.
func (a *app) checkNamedFiles(configuration string, files []spec.File) (problems spec.Problems) {
	for i, f := range files {
		name, err := a.findNamedFile(configuration, f)
		if err == nil {
			var info fs.FileInfo
			if info, err = os.Stat(name); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
				err = errors.New("it is neither a file nor a folder")
			}
		}
		if err != nil {
			problems = append(problems, spec.Problem{Path: fmt.Sprintf("files.%d", i),
				Message: fmt.Sprintf("cannot upload %s: %s", cleanLine(f.LocalPath), human.DescribeFailure(err)),
				Hint:    "correct the path: it is relative to the folder of the configuration"})
		}
	}
	return problems
}

// packNamedFiles packs the files of the configuration, and names them in the run.
func (j *applyCommand) packNamedFiles(ctx context.Context, excluded []string) error {
	j.spec.RepoID, j.spec.RepoData = virtualRepoID, []byte(virtualRepoInfo)
	j.upload = &uploadView{LeftOut: []leftOutEntry{}, Notes: []string{}, Named: []namedUpload{}}
	for _, f := range j.spec.Configuration.Files {
		name, err := j.findNamedFile(j.request.file.name, f)
		if err != nil {
			return err
		}
		packed, err := j.packNamedFile(ctx, name, excluded)
		if err != nil {
			return err
		}
		j.named = append(j.named, namedFile{f, packed})
		j.spec.FileArchives = append(j.spec.FileArchives, dstack.FileArchive{Hash: packed.Hash, Path: f.Path})
		j.upload.addNamed(f, packed)
		if rules, err := readUploadRules(filepath.Dir(name), j.gitEnvironment()); err == nil && rules.decide(filepath.Base(name), false).byDefault {
			j.upload.Notes = append(j.upload.Notes, f.LocalPath+" may hold secrets, and is uploaded because `files` names it")
		}
	}
	return nil
}

// The repo of a run without code, as the published client names it.
const (
	virtualRepoID   = "none"
	virtualRepoInfo = `{"repo_type":"virtual"}`
)

// packNamedFile packs a file, or a folder by the same rules as the folder of a service
// without `files`.
func (j *applyCommand) packNamedFile(ctx context.Context, name string, excluded []string) (*archive, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return packArchive(name, excluded, func(p *archiver) ([]string, error) {
			p.prefix = archiveRoot + "/"
			header := &tar.Header{Typeflag: tar.TypeDir, Name: p.prefix, Mode: 0o755, ModTime: archiveTime}
			if err := p.tar.WriteHeader(header); err != nil {
				return nil, err
			}
			return p.addAll(ctx, j.gitEnvironment())
		})
	}
	return packArchive(filepath.Dir(name), nil, func(p *archiver) ([]string, error) {
		p.maxFileSize = maxArchiveSize - 1<<20
		p.sole = true
		err := p.addFile(filepath.Base(name))
		if err == nil && len(p.notes) > 0 {
			err = invalidInput("make it readable", "cannot upload %s: it cannot be read", name)
		}
		return nil, err
	})
}

// uploadNamedFiles uploads the files that the server does not have, each once.
func (j *applyCommand) uploadNamedFiles(ctx context.Context) error {
	describe := func() string { return "uploading " + human.Count(len(j.named), "file or folder") }
	return j.withProgress(describe, func() error {
		for i, f := range j.named {
			stored, err := j.client.UploadArchive(ctx, api.Upload{Hash: f.archive.Hash, Size: f.archive.Size, Body: f.archive.newReader()})
			if err != nil {
				return err
			}
			j.spec.FileArchives[i].ID = stored.ID
		}
		return nil
	})
}

// namedUpload is a part of uploadView.
type namedUpload struct {
	LocalPath string `json:"local_path"`
	Path      string `json:"path"`
	Files     int    `json:"files"`
	Bytes     int64  `json:"bytes"`
}

func (v *uploadView) addNamed(f spec.File, packed *archive) {
	v.Named = append(v.Named, namedUpload{f.LocalPath, f.Path, packed.Files, packed.Bytes})
	v.Files, v.Bytes = v.Files+packed.Files, v.Bytes+packed.Bytes
	for _, e := range packed.LeftOut {
		e.folder, e.Path = f.LocalPath, filepath.Join(f.LocalPath, e.Path)
		v.LeftOut = append(v.LeftOut, e)
	}
	for _, note := range packed.Notes {
		v.Notes = append(v.Notes, f.LocalPath+": "+note)
	}
}
