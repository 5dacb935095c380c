package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// CodeFolder is the folder of uploaded code in a container.
const CodeFolder = dstack.CodeFolder

// Limits on unpacked code. The server limits the size of uploads; these are for working
// folders of git repositories, too.
const (
	maxArchiveEntries = 100_000 // the command line packs at most 50,000 files, and the folders that they are in
	maxUnpackedBytes  = 4 << 30
)

// ResolveWorkingDir returns the working folder of an attempt's command, relative to
// the code folder ("." is the code folder itself). A working_dir that leads out of
// the code folder is an error of kind Invalid.
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
			Hint:    "give a path relative to the folder that dstack apply is run in; an absolute path needs Docker",
		}
	}
	return dir, nil
}

// ResolveContainerDir returns the absolute working folder of an attempt's command in a container:
// an absolute working_dir as it is, any other below the code folder.
func ResolveContainerDir(spec dstack.AttemptSpec) (string, error) {
	if path.IsAbs(spec.WorkingDir) {
		return path.Clean(spec.WorkingDir), nil
	}
	dir, err := ResolveWorkingDir(spec)
	return path.Join(CodeFolder, dir), err
}

// isInside reports whether a clean relative path stays below the folder that it
// starts from.
func isInside(name string) bool { return name != ".." && !strings.HasPrefix(name, "../") }

// archiveEntry is one entry of a code archive. Its header has been sanitized.
type archiveEntry struct {
	*tar.Header
	body   io.Reader // valid until the next entry
	isSole bool      // the entry is the only one of an archive of a single file
}

// readArchive yields the entries of a code archive. It accepts only folders, plain
// files, symbolic links and hard links to files before them, with relative names. It skips the archive's root, with which
// tar begins an archive of a whole folder. Links whose targets are not inside the root are
// left out and added to leftOut. Any other entry, two entries that cannot both be
// unpacked, too many entries or too many bytes end the sequence with an error: an
// incomplete code folder must not be used.
func readArchive(ctx context.Context, r io.Reader, leftOut *[]string) iter.Seq2[archiveEntry, error] {
	return readEntries(ctx, r, leftOut, nil)
}

// readEntries is readArchive for an archive whose names begin with a root, which is
// removed; nil: they do not.
func readEntries(ctx context.Context, r io.Reader, leftOut *[]string, root *archiveRoot) iter.Seq2[archiveEntry, error] {
	return func(yield func(archiveEntry, error) bool) {
		source := tar.NewReader(r)
		written := writtenNames{}
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
				yield(archiveEntry{}, newReadError(err))
				return
			}
			if err := checkLengths(h); err != nil { // before anything else that reads the names
				yield(archiveEntry{}, err)
				return
			}
			if err := root.strip(h); err != nil {
				yield(archiveEntry{}, err)
				return
			}
			if h.Typeflag == tar.TypeXGlobalHeader || isRoot(h) && count < maxArchiveEntries {
				continue
			}
			if h.Typeflag == tar.TypeSymlink && leadsOut(h) && count < maxArchiveEntries {
				*leftOut = append(*leftOut, h.Name)
				continue
			}
			clean, err := sanitizeHeader(h)
			if err == nil {
				err = written.add(clean)
			}
			isFull := count >= maxArchiveEntries || len(written) > maxArchiveEntries
			if size += h.Size; err == nil && (size > maxUnpackedBytes || isFull) {
				err = newCodeError("it has more than %d files and folders or is larger than %s", maxArchiveEntries,
					human.Bytes(maxUnpackedBytes))
			}
			if !yield(archiveEntry{clean, source, root.isSole()}, err) || err != nil {
				return
			}
		}
	}
}

// newReadError returns the error for an archive that cannot be read: of kind Invalid if
// its content is the reason, and not the medium.
func newReadError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &dstack.Error{
			Kind: dstack.Invalid, Cause: err, Message: "the uploaded code is not a complete tar archive",
			Hint: "upload the folder with dstack apply, or as a tar archive without compression",
		}
	}
	return fmt.Errorf("the uploaded code cannot be read: %w", err)
}

// isRoot reports whether an entry is the folder that the archive is unpacked to. Python's
// tarfile names it "/".
func isRoot(h *tar.Header) bool {
	name := path.Clean(h.Name)
	return h.Typeflag == tar.TypeDir && (name == "." || name == "/")
}

// writtenNames maps what an archive has written so far to its type. Folders that only the
// names of other entries imply are included.
type writtenNames map[string]byte

// add records an entry. It returns an error if the entry cannot be unpacked beside the
// earlier ones: below a file or a link, or in place of another kind.
func (w writtenNames) add(h *tar.Header) error {
	for parent := folderOf(h.Name); parent != ""; parent = folderOf(parent) {
		kind, exists := w[parent]
		if exists && kind != tar.TypeDir {
			return newCodeError("%q is below %q, which is no folder", h.Name, parent)
		}
		if exists {
			break
		}
		w[parent] = tar.TypeDir
	}
	if h.Typeflag == tar.TypeLink && (w[h.Linkname] != tar.TypeReg || h.Linkname == h.Name) {
		return newCodeError("%q is a hard link to %q, which is no earlier file", h.Name, h.Linkname)
	}
	kind, exists := w[h.Name]
	if exists && (kind == tar.TypeDir) != (h.Typeflag == tar.TypeDir) {
		return newCodeError("%q is a folder and something else", h.Name)
	}
	if w[h.Name] = h.Typeflag; h.Typeflag == tar.TypeLink {
		w[h.Name] = tar.TypeReg
	}
	return nil
}

// folderOf returns the folder of a clean name; empty: it is in none. path.Dir would clean each of two thousand folders of a name again.
func folderOf(name string) string { return name[:max(strings.LastIndexByte(name, '/'), 0)] }

// sanitizeHeader returns a header with only the fields that are kept: name, size,
// link target, times and permissions, without setuid and the like.
func sanitizeHeader(h *tar.Header) (*tar.Header, error) {
	name := path.Clean(h.Name)
	if path.IsAbs(h.Name) || !isInside(name) || name == "." {
		return nil, newCodeError("%q leads out of the folder", h.Name)
	}
	if err := checkNames(h); err != nil {
		return nil, err
	}
	// tar of BusyBox knows no other format for long names and those with other letters than ASCII's.
	c := &tar.Header{Name: name, Mode: h.Mode & 0o777, ModTime: h.ModTime, Typeflag: h.Typeflag, Format: tar.FormatGNU}
	switch h.Typeflag {
	case tar.TypeDir:
		c.Mode |= 0o700
	case tar.TypeReg:
		if isSparse(h) {
			return nil, newCodeError("%q is packed as a sparse file, whose holes the upload does not contain", h.Name)
		}
		c.Size, c.Mode = h.Size, c.Mode|0o600
	case tar.TypeSymlink:
		c.Linkname = h.Linkname
	case tar.TypeLink: // Python's tarfile packs the second name of a file as a hard link
		c.Linkname = path.Clean(h.Linkname)
	default:
		return nil, newCodeError("%q is neither a file, a folder nor a symbolic link", h.Name)
	}
	return c, nil
}

// isSparse reports whether a file is packed with its holes left out. An upload of a few bytes would be gigabytes in each
// replica.
func isSparse(h *tar.Header) bool {
	for name := range h.PAXRecords {
		if strings.HasPrefix(name, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// Lengths that every file system can store. Tar archives allow names of 1 MiB, which can imply half a million folders.
const (
	maxNameBytes = 255  // of a file or folder
	maxPathBytes = 4096 // of a name with its folders, and of a link's target
)

// checkLengths returns an error if the name or the target of an entry is too long.
func checkLengths(h *tar.Header) error {
	for _, name := range []string{h.Name, h.Linkname} {
		if len(name) > maxPathBytes {
			return newCodeError("the name %.40q… has more than %d bytes", name, maxPathBytes)
		}
	}
	return nil
}

// checkNames returns an error if no file system can store the names of an entry.
func checkNames(h *tar.Header) error {
	if strings.ContainsRune(h.Name+h.Linkname, 0) || h.Typeflag == tar.TypeSymlink && h.Linkname == "" {
		return newCodeError("%q has a name or a target that no file can have", h.Name)
	}
	for part := range strings.SplitSeq(h.Name, "/") {
		if len(part) > maxNameBytes {
			return newCodeError("the name %.40q… has more than %d bytes", part, maxNameBytes)
		}
	}
	return nil
}

// leadsOut reports whether the text of a link's target leads out of the archive's root. It does not follow other links on
// the way, so a target through one of them can still lead out. Such a link is kept, and is harmless to whoever unpacks it:
// add refuses entries below links, and UnpackArchive follows none out of its root.
func leadsOut(link *tar.Header) bool {
	return path.IsAbs(link.Linkname) || !isInside(path.Join(path.Dir(path.Clean(link.Name)), link.Linkname))
}

func newCodeError(format string, args ...any) error {
	return &dstack.Error{
		Kind:    dstack.Invalid,
		Message: "the uploaded code is refused: " + fmt.Sprintf(format, args...),
		Hint:    "remove it from the folder or name it in .dstackignore, and apply again",
	}
}

// CheckArchive reads a code archive and returns an error if it cannot be unpacked. leftOut
// names the links that lead out of it.
func CheckArchive(ctx context.Context, code io.Reader) (leftOut []string, err error) {
	for _, err := range readArchive(ctx, code, &leftOut) {
		if err != nil {
			return nil, err
		}
	}
	return leftOut, nil
}

// UnpackArchive writes the code archive to root. No entry can reach outside of root,
// not through symbolic links either. leftOut names the links that lead out of it.
func UnpackArchive(ctx context.Context, root *os.Root, code io.Reader) (leftOut []string, err error) {
	for entry, err := range readArchive(ctx, code, &leftOut) {
		if err != nil {
			return nil, err
		}
		if err := unpackEntry(root, entry); err != nil {
			return nil, fmt.Errorf("cannot unpack %q of the uploaded code: %w", entry.Name, err)
		}
	}
	return leftOut, nil
}

func unpackEntry(root *os.Root, entry archiveEntry) error {
	mode := fs.FileMode(entry.Mode)
	if entry.Typeflag == tar.TypeDir {
		return root.MkdirAll(entry.Name, mode)
	}
	if dir := path.Dir(entry.Name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := root.Remove(entry.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch entry.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(entry.Linkname, entry.Name)
	case tar.TypeLink:
		return root.Link(entry.Linkname, entry.Name)
	}
	f, err := root.OpenFile(entry.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, entry.body)
	return errors.Join(err, f.Close())
}

// RepackArchive reads a code archive and writes it to w as a tar stream for a
// container: sanitized, below folder, and owned by root. leftOut names the links that lead
// out of the archive's root.
func RepackArchive(ctx context.Context, w io.Writer, folder string, code io.Reader) (leftOut []string, err error) {
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Name: folder, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		return nil, err
	}
	for entry, err := range readArchive(ctx, code, &leftOut) {
		if err != nil {
			return nil, err
		}
		entry.Name = path.Join(folder, entry.Name)
		if entry.Typeflag == tar.TypeLink {
			entry.Linkname = path.Join(folder, entry.Linkname)
		}
		if err := out.WriteHeader(entry.Header); err != nil {
			return nil, err
		}
		if _, err := io.Copy(out, entry.body); err != nil {
			return nil, newReadError(err)
		}
	}
	return leftOut, out.Close()
}

// IsEmptyArchive reports whether a code archive has nothing to unpack, and no link that is left out. One that cannot be read is
// not empty.
func IsEmptyArchive(ctx context.Context, code io.Reader) bool {
	var leftOut []string
	for range readArchive(ctx, code, &leftOut) {
		return false
	}
	return len(leftOut) == 0
}

// LogLeftOut logs the links that an attempt's folder does not have.
func LogLeftOut(log *slog.Logger, spec dstack.AttemptSpec, leftOut []string) {
	if len(leftOut) > 0 {
		log.Info("links out of the uploaded folder are left out", "run", spec.Run, "attempt", spec.Attempt,
			"count", len(leftOut), "links", leftOut[:min(len(leftOut), 10)])
	}
}
