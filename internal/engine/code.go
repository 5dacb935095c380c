package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"

	"dstack/internal/dstack"
)

// CodeFolder is where uploaded code lies in a container.
const CodeFolder = "/workflow"

// The bounds on uploaded code, once unpacked.
const (
	maxArchiveEntries = 20_000
	maxUnpackedBytes  = 256 << 20
)

// ResolveWorkingDir is the folder, below the code's, that an order's command starts
// in. It never leads out of it.
func ResolveWorkingDir(spec dstack.AttemptSpec) (string, error) {
	dir := spec.WorkingDir
	if rest, ok := strings.CutPrefix(dir, CodeFolder); ok && (rest == "" || rest[0] == '/') {
		dir = "." + rest
	}
	dir = path.Clean(dir)
	if path.IsAbs(dir) || !isInside(dir) {
		return "", &dstack.Error{
			Kind:    dstack.Invalid,
			Message: fmt.Sprintf("working_dir %q is outside the uploaded folder", spec.WorkingDir),
			Hint:    "give a path relative to the folder that dstack apply is run in",
		}
	}
	return dir, nil
}

// isInside says whether a clean relative path stays below its start.
func isInside(name string) bool { return name != ".." && !strings.HasPrefix(name, "../") }

// readArchive yields what a code upload holds, cleaned: relative names that stay
// inside, only folders, plain files and links that stay inside, bounded in
// number and size. Anything else ends it with an error: half a folder of code
// is worse than none.
func readArchive(ctx context.Context, r io.Reader) iter.Seq2[*tar.Header, io.Reader] {
	return func(yield func(*tar.Header, io.Reader) bool) {
		source := tar.NewReader(r)
		var size int64
		for count := 0; ; count++ {
			h, err := source.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, failedReader{fmt.Errorf("the uploaded code cannot be read: %w", err)})
				return
			}
			if h.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			clean, err := sanitizeHeader(h)
			if size += h.Size; err == nil && (size > maxUnpackedBytes || count >= maxArchiveEntries) {
				err = newCodeError("it has more than %d files or is larger than %d MiB", maxArchiveEntries, maxUnpackedBytes>>20)
			}
			if err != nil {
				yield(nil, failedReader{err})
				return
			}
			if !yield(clean, source) {
				return
			}
		}
	}
}

// failedReader is the content of an entry that cannot be had.
type failedReader struct{ err error }

func (b failedReader) Read([]byte) (int, error) { return 0, b.err }

func sanitizeHeader(h *tar.Header) (*tar.Header, error) {
	name := path.Clean(h.Name)
	if path.IsAbs(h.Name) || !isInside(name) || strings.ContainsRune(name, 0) {
		return nil, newCodeError("%q leads out of the folder", h.Name)
	}
	c := &tar.Header{Name: name, Mode: h.Mode & 0o777, ModTime: h.ModTime, Typeflag: h.Typeflag}
	switch h.Typeflag {
	case tar.TypeDir:
		c.Mode |= 0o700
	case tar.TypeReg:
		c.Size, c.Mode = h.Size, c.Mode|0o600
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) || !isInside(path.Join(path.Dir(name), h.Linkname)) {
			return nil, newCodeError("the link %q leads out of the folder, to %q", h.Name, h.Linkname)
		}
		c.Linkname = h.Linkname
	default:
		return nil, newCodeError("%q is neither a file, a folder nor a symbolic link", h.Name)
	}
	return c, nil
}

func newCodeError(format string, args ...any) error {
	return &dstack.Error{
		Kind:    dstack.Invalid,
		Message: "the uploaded code is refused: " + fmt.Sprintf(format, args...),
		Hint:    "remove it from the folder or name it in .dstackignore, and apply again",
	}
}

// UnpackArchive writes uploaded code below root. No entry can reach outside it, not
// through links either.
func UnpackArchive(ctx context.Context, root *os.Root, code io.Reader) error {
	for h, body := range readArchive(ctx, code) {
		if h == nil {
			return readError(body)
		}
		if err := unpackEntry(root, h, body); err != nil {
			return fmt.Errorf("cannot unpack %q of the uploaded code: %w", h.Name, err)
		}
	}
	return nil
}

func readError(r io.Reader) error {
	_, err := r.Read(nil)
	return err
}

func unpackEntry(root *os.Root, h *tar.Header, body io.Reader) error {
	mode := fs.FileMode(h.Mode)
	if h.Typeflag == tar.TypeDir {
		if h.Name == "." {
			return nil
		}
		return root.MkdirAll(h.Name, mode)
	}
	if dir := path.Dir(h.Name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := root.Remove(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return root.Symlink(h.Linkname, h.Name)
	}
	f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// RepackArchive writes uploaded code to w as a clean tar for a container, below
// folder, all of it root's.
func RepackArchive(ctx context.Context, w io.Writer, folder string, code io.Reader) error {
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Name: folder, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		return err
	}
	for h, body := range readArchive(ctx, code) {
		if h == nil {
			return readError(body)
		}
		h.Name = path.Join(folder, h.Name)
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, body); err != nil {
			return fmt.Errorf("the uploaded code cannot be read: %w", err)
		}
	}
	return out.Close()
}
