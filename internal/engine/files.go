package engine

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"dstack/internal/dstack"
)

// FileOpener opens the archive of an attempt's file as a tar stream; the caller closes it.
// The archive has one root, whose name does not matter: a file, or a folder with its content.
type FileOpener func(ctx context.Context, file dstack.FileArchive) (io.ReadCloser, error)

// archiveRoot removes the first part of the names in an archive of one file or folder.
type archiveRoot struct {
	name    string
	isKnown bool
	isFile  bool
}

// soleName stands for the name of the only file of an archive.
const soleName = "file"

// isSole reports whether the archive is one of a single file.
func (r *archiveRoot) isSole() bool { return r != nil && r.isFile }

// strip removes the root from the names of an entry. A nil archiveRoot changes nothing.
func (r *archiveRoot) strip(h *tar.Header) error {
	if r == nil || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	root, rest, _ := strings.Cut(h.Name, "/")
	if r.isFile || r.isKnown && root != r.name || root == "" {
		return newFilesError("it has %q beside %q, and only one file or folder can have the path", h.Name, r.name)
	}
	isFirst := !r.isKnown
	r.name, r.isKnown = root, true
	if h.Typeflag == tar.TypeLink {
		_, h.Linkname, _ = strings.Cut(h.Linkname, "/")
	}
	if h.Name = rest; rest != "" {
		return nil
	}
	switch {
	case h.Typeflag == tar.TypeDir:
		h.Name = "."
	case h.Typeflag == tar.TypeReg && isFirst:
		r.isFile, h.Name = true, soleName
	default:
		return newFilesError("%q is neither a file nor a folder", root)
	}
	return nil
}

func newFilesError(format string, args ...any) error {
	return &dstack.Error{
		Kind:    dstack.Invalid,
		Message: "the uploaded archive is refused: " + fmt.Sprintf(format, args...),
		Hint:    "upload each file or folder of `files` on its own, as dstack apply does",
	}
}

// CheckFiles reads the archive of a file or folder and returns an error if it cannot be
// unpacked. leftOut names the links that lead out of the folder.
func CheckFiles(ctx context.Context, archive io.Reader) (leftOut []string, err error) {
	root := &archiveRoot{}
	for _, err := range readEntries(ctx, archive, &leftOut, root) {
		if err != nil {
			return nil, err
		}
	}
	return leftOut, root.checkKnown()
}

// checkKnown returns an error for an archive without entries.
func (r *archiveRoot) checkKnown() error {
	if r.isKnown {
		return nil
	}
	return newFilesError("it is empty")
}

// UnpackFiles writes an archive to the path target of root, and replaces what is there.
// Nothing is written outside of root. leftOut names the links that lead out of the folder.
func UnpackFiles(ctx context.Context, root *os.Root, target string, archive io.Reader) (leftOut []string, err error) {
	if err := removeTarget(root, target); err != nil {
		return nil, fmt.Errorf("cannot replace %q: %w", target, err)
	}
	var folder *os.Root
	defer func() {
		if folder != nil {
			_ = folder.Close()
		}
	}()
	names := &archiveRoot{}
	for entry, err := range readEntries(ctx, archive, &leftOut, names) {
		if err != nil {
			return nil, err
		}
		if entry.isSole {
			entry.Name = target
			if err := unpackSole(root, entry); err != nil {
				return nil, err
			}
			continue
		}
		if folder == nil {
			if folder, err = makeFolder(root, target); err != nil {
				return nil, err
			}
		}
		if err := unpackEntry(folder, entry); err != nil {
			return nil, fmt.Errorf("cannot unpack %q of the uploaded files: %w", path.Join(target, entry.Name), err)
		}
	}
	if folder == nil && !names.isFile { // it is empty
		if folder, err = makeFolder(root, target); err != nil {
			return nil, err
		}
	}
	return leftOut, names.checkKnown()
}

func unpackSole(root *os.Root, entry archiveEntry) error {
	if entry.Name == "." {
		return newSoleError()
	}
	if err := unpackEntry(root, entry); err != nil {
		return fmt.Errorf("cannot unpack %q of the uploaded files: %w", entry.Name, err)
	}
	return nil
}

func newSoleError() error {
	return &dstack.Error{Kind: dstack.Invalid, Message: "a file cannot replace the folder of the replica",
		Hint: "write a path with the name of the file in `files`"}
}

// removeTarget removes what is at a path, or everything in root.
func removeTarget(root *os.Root, target string) error {
	if target != "." {
		return root.RemoveAll(target)
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if err == nil {
			err = root.RemoveAll(name)
		}
	}
	return err
}

// makeFolder creates a folder and opens it. A link on the way that leads out of root is an
// error.
func makeFolder(root *os.Root, target string) (*os.Root, error) {
	if err := root.MkdirAll(target, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create the folder %q: %w", target, err)
	}
	return root.OpenRoot(target)
}

// RepackFiles reads an archive and writes it to w as a tar stream for a container: at the
// path target, sanitized, and owned by root. With replace, the stream removes a folder that
// is at target: it has a file there first. leftOut names the links that lead out of the
// folder.
func RepackFiles(ctx context.Context, w io.Writer, target string, replace bool, archive io.Reader) (leftOut []string, err error) {
	out := tar.NewWriter(w)
	names, hasFolder := &archiveRoot{}, false
	for entry, err := range readEntries(ctx, archive, &leftOut, names) {
		if err != nil {
			return nil, err
		}
		switch {
		case entry.isSole:
			entry.Name = target
		case !hasFolder:
			if err := writeFolder(out, target, replace); err != nil {
				return nil, err
			}
			hasFolder = true
			fallthrough
		default:
			entry.Name = path.Join(target, entry.Name)
		}
		if entry.Typeflag == tar.TypeLink {
			entry.Linkname = path.Join(target, entry.Linkname)
		}
		if err := out.WriteHeader(entry.Header); err != nil {
			return nil, err
		}
		if _, err := io.Copy(out, entry.body); err != nil {
			return nil, newReadError(err)
		}
	}
	if err := names.checkKnown(); err != nil {
		return nil, err
	}
	if !hasFolder && !names.isFile { // it is empty
		if err := writeFolder(out, target, replace); err != nil {
			return nil, err
		}
	}
	return leftOut, out.Close()
}

func writeFolder(out *tar.Writer, target string, replace bool) error {
	if replace {
		if err := out.WriteHeader(&tar.Header{Name: target, Typeflag: tar.TypeReg, Mode: 0o600}); err != nil {
			return err
		}
	}
	return out.WriteHeader(&tar.Header{Name: target, Typeflag: tar.TypeDir, Mode: 0o755})
}

// ResolveTarget returns the absolute path in a container of a path of a file or of the code.
// workingDir is absolute.
func ResolveTarget(spec dstack.AttemptSpec, workingDir, name string) (string, error) {
	home := "/root"
	if own := spec.Env["HOME"]; path.IsAbs(own) {
		home = own
	}
	target := path.Clean(name)
	switch {
	case dstack.IsInHome(name):
		target = path.Join(home, name[1:])
	case !path.IsAbs(name):
		target = path.Join(workingDir, name)
	}
	if target == "/" {
		return "", &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the path %q is the root folder of the container", name),
			Hint: "write a path below it"}
	}
	return target, nil
}
