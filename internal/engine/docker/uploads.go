package docker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// copyUploads copies the code and the files of an attempt into its container, which has not
// been started.
func (e *Engine) copyUploads(ctx context.Context, id string, spec dstack.AttemptSpec) error {
	if spec.CodePath == "" && len(spec.Files) == 0 {
		return e.copyCode(ctx, id, spec, engine.CodeFolder)
	}
	found, err := e.docker.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	if found.Container.Config == nil {
		return &dstack.Error{Kind: dstack.Unavailable, Message: "Docker does not say in which folder the container starts"}
	}
	workingDir := path.Join("/", found.Container.Config.WorkingDir) // also the image's own
	if err := e.copyCodeToPath(ctx, id, spec, workingDir); err != nil {
		return err
	}
	for _, file := range spec.Files {
		target, err := engine.ResolveTarget(spec, workingDir, file.Path)
		if err == nil {
			err = e.copyFile(ctx, id, spec, file, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyCodeToPath copies the code to the path that the attempt's specification names.
func (e *Engine) copyCodeToPath(ctx context.Context, id string, spec dstack.AttemptSpec, workingDir string) error {
	if spec.CodePath == "" {
		return e.copyCode(ctx, id, spec, engine.CodeFolder)
	}
	target, err := engine.ResolveTarget(spec, workingDir, spec.CodePath)
	if err != nil || !spec.HasCode() {
		return err
	}
	isEmpty, err := e.isEmptyFolder(ctx, id, target)
	if err != nil {
		return err
	}
	if isEmpty {
		return e.copyCode(ctx, id, spec, target)
	}
	if spec.KeepsCodePath {
		e.opts.Log.Info("a repository is not cloned: its path is not empty", "run", spec.Run, "attempt", spec.Attempt, "path", target)
		return nil
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the repository cannot be cloned: the image has files in %s", target),
		Hint: "choose another path in `repos`, or write if_exists: skip"}
}

// isEmptyFolder reports whether a container has nothing at a path, or an empty folder.
func (e *Engine) isEmptyFolder(ctx context.Context, id, target string) (bool, error) {
	copied, err := e.docker.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: target})
	if errdefs.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer copied.Content.Close()
	entries := tar.NewReader(copied.Content)
	if first, err := entries.Next(); err != nil || first.Typeflag != tar.TypeDir {
		return false, err
	}
	_, err = entries.Next()
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// copyCode copies the code to an absolute path.
func (e *Engine) copyCode(ctx context.Context, id string, spec dstack.AttemptSpec, target string) error {
	if !spec.HasCode() || spec.WorkingDir == "" && spec.CodePath == "" || e.opts.Code == nil {
		return nil
	}
	code, err := e.opts.Code(ctx, spec)
	if err != nil {
		return err
	}
	defer code.Close()
	return e.copyArchive(ctx, id, spec, func(w io.Writer) ([]string, error) {
		return engine.RepackArchive(ctx, w, target[1:], code)
	})
}

// copyFile copies a file or folder to an absolute path, and replaces what is there.
func (e *Engine) copyFile(ctx context.Context, id string, spec dstack.AttemptSpec, file dstack.FileArchive, target string) error {
	if e.opts.Files == nil {
		return nil
	}
	_, err := e.docker.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: target})
	replace := err == nil
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	archive, err := e.opts.Files(ctx, file)
	if err != nil {
		return err
	}
	defer archive.Close()
	return e.copyArchive(ctx, id, spec, func(w io.Writer) ([]string, error) {
		return engine.RepackFiles(ctx, w, target[1:], replace, archive)
	})
}

// copyArchive copies the tar stream that repack writes into a container that has not been
// started.
func (e *Engine) copyArchive(ctx context.Context, id string, spec dstack.AttemptSpec, repack func(io.Writer) ([]string, error)) error {
	r, w := io.Pipe()
	var leftOut []string
	var repackErr error
	var repacking sync.WaitGroup
	repacking.Go(func() {
		leftOut, repackErr = repack(w)
		_ = w.CloseWithError(repackErr)
	})
	_, err := e.streams.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: r, AllowOverwriteDirWithFile: true})
	_ = r.CloseWithError(errors.New("the copy to the container has ended"))
	repacking.Wait()
	engine.LogLeftOut(e.opts.Log, spec, leftOut)
	if refusal, ok := errors.AsType[*dstack.Error](repackErr); ok {
		return refusal
	}
	return err
}
