package cli

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/gitignore"
	"dstack/internal/human"
)

// The limits of an archive.
const (
	maxArchiveSize = 64 << 20
	maxFileSize    = 16 << 20
	maxFiles       = 50_000
	maxNamedFiles  = 20 // files that the error and the notes name
)

// archive is a folder packed as a tar file. The same content gives the same
// bytes, and so the same hash.
type archive struct {
	Hash    string
	Size    int64
	Files   int
	Bytes   int64          // the size of the files
	LeftOut []leftOutEntry // what the default rules leave out
	Notes   []string       // for the user: rules that could not be read
	file    *os.File       // unlinked: removed when the process ends
}

// Close removes the archive.
func (p *archive) Close() error { return p.file.Close() }

// newReader returns a reader of the whole archive.
func (p *archive) newReader() io.Reader { return io.NewSectionReader(p.file, 0, p.Size) }

// archiver packs the files of a folder, and of the folders in it.
type archiver struct {
	prefix        string // of the names in the archive: empty, or it ends with a slash
	sole          bool   // the archive is one of a single file, whose name is archiveRoot
	maxFileSize   int64
	root          *os.Root
	dir           string
	excluded      []string // never packed: files with tokens and secrets
	tar           *tar.Writer
	pending       []string // folders whose headers are not written yet
	sizes         folderSizes
	leftOut       []leftOutEntry
	rejected      []string // rejected files and why, at most maxNamedFiles
	rejectedCount int

	notes           []string // what cannot travel and is left out, at most maxNamedFiles
	unsuitableCount int
}

// archiveFolder packs dir without the ignored and the excluded paths, which are
// absolute. The caller closes the archive. Files that cannot be packed are an
// error of kind TooLarge that names them.
func archiveFolder(
	ctx context.Context, dir string, env gitignore.Environment, excluded ...string,
) (_ *archive, err error) {
	return packArchive(dir, excluded, func(p *archiver) ([]string, error) { return p.addAll(ctx, env) })
}

// addAll packs the whole folder, and returns notes about its ignore files.
func (p *archiver) addAll(ctx context.Context, env gitignore.Environment) (notes []string, err error) {
	rules, err := readUploadRules(p.dir, env)
	if err != nil {
		return nil, err
	}
	if err := p.addFolder(ctx, nil, rules); err != nil {
		return nil, err
	}
	if p.sizes.areTooLarge() {
		return nil, p.tooLargeError()
	}
	return rules.git.Notes(), nil
}

// packArchive calls pack with the archiver of an archive of dir.
func packArchive(dir string, excluded []string, pack func(*archiver) (notes []string, err error)) (_ *archive, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", err)
	}
	defer root.Close()
	file, err := os.CreateTemp("", "dstack-upload-*")
	if err != nil {
		return nil, fmt.Errorf("create the archive: %w", err)
	}
	result := &archive{file: file}
	defer func() {
		if err != nil {
			_ = result.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, fmt.Errorf("create the archive: %w", err)
	}
	hash := sha256.New()
	p := &archiver{root: root, dir: dir, excluded: excluded, tar: tar.NewWriter(io.MultiWriter(file, hash)), maxFileSize: maxFileSize}
	notes, err := pack(p)
	if err != nil {
		return nil, err
	}
	if err := p.rejectionError(); err != nil {
		return nil, err
	}
	if err := p.tar.Close(); err != nil {
		return nil, fmt.Errorf("pack the folder: %w", err)
	}
	if result.Size, err = file.Seek(0, io.SeekCurrent); err != nil {
		return nil, fmt.Errorf("pack the folder: %w", err)
	}
	if result.Size > maxArchiveSize {
		return nil, p.tooLargeError()
	}
	result.Hash, result.Files, result.Bytes = hex.EncodeToString(hash.Sum(nil)), p.sizes.files, p.sizes.bytes
	result.LeftOut, result.Notes = p.leftOut, append(notes, p.listNotes()...)
	return result, nil
}

// addFolder packs the entries of a folder in the order of their names. Beyond the
// limits it only adds up sizes, for the error.
func (p *archiver) addFolder(ctx context.Context, at []string, rules *uploadRules) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	name := path.Join(append([]string{"."}, at...)...)
	entries, err := fs.ReadDir(p.root.FS(), name)
	if err != nil && len(at) == 0 {
		return fmt.Errorf("read the folder: %w", err)
	}
	if err != nil {
		p.leaveOut(name+"/", "cannot be read")
		return nil
	}
	for _, entry := range entries {
		child := append(slices.Clone(at), entry.Name())
		if entry.Name() == ".git" || slices.Contains(p.excluded, p.absolutePath(child)) {
			continue
		}
		verdict := rules.decide(entry.Name(), entry.IsDir())
		if verdict.byDefault {
			p.leftOut = append(p.leftOut, leftOutEntry{Path: path.Join(child...), IsFolder: entry.IsDir(), IsTracked: verdict.isTracked})
		}
		if !verdict.isUploaded {
			continue
		}
		if entry.IsDir() {
			err = p.addSubfolder(ctx, child, rules, verdict.onlyTracked)
		} else {
			err = p.addEntry(child, entry)
		}
		if err != nil || p.sizes.files > maxMeasuredFiles {
			return err
		}
	}
	if len(entries) == 0 {
		return p.writeFolders()
	}
	return nil
}

// addSubfolder packs a folder in a folder. One from which everything is left out is
// left out, too; an empty one is packed.
func (p *archiver) addSubfolder(ctx context.Context, at []string, rules *uploadRules, onlyTracked bool) error {
	name := path.Join(at...) + "/"
	own, err := rules.openFolder(at[len(at)-1], onlyTracked)
	if err != nil && p.isClosed(name) {
		p.leaveOut(name, "cannot be read")
		return nil
	}
	if err != nil {
		return err
	}
	p.pending = append(p.pending, name)
	err = p.addFolder(ctx, at, own)
	if last := len(p.pending) - 1; last >= 0 && p.pending[last] == name {
		p.pending = p.pending[:last]
	}
	return err
}

// writeFolders packs the folders that lead to the next entry.
func (p *archiver) writeFolders() error {
	for _, name := range p.pending {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: p.nameInArchive(name), Mode: 0o755, ModTime: archiveTime}
		if err := p.tar.WriteHeader(header); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	p.pending = p.pending[:0]
	return nil
}

func (p *archiver) absolutePath(at []string) string {
	return filepath.Join(append([]string{p.dir}, at...)...)
}

// addEntry packs a file or a link, and leaves everything else out.
func (p *archiver) addEntry(at []string, entry fs.DirEntry) error {
	name := path.Join(at...)
	if p.sizes.areTooLarge() {
		if info, err := entry.Info(); err == nil {
			p.sizes.add(name, info.Size())
		}
		return nil
	}
	if err := p.writeFolders(); err != nil {
		return err
	}
	switch mode := entry.Type(); {
	case mode.IsRegular():
		return p.addFile(name)
	case mode&fs.ModeSymlink != 0:
		return p.addLink(name)
	case mode&fs.ModeSocket != 0:
		p.leaveOut(name, "is a socket")
	case mode&fs.ModeNamedPipe != 0:
		p.leaveOut(name, "is a named pipe")
	case mode&fs.ModeDevice != 0:
		p.leaveOut(name, "is a device")
	default:
		p.leaveOut(name, "is not a file")
	}
	return nil
}

// nameInArchive returns the name of an entry of the folder in the archive.
func (p *archiver) nameInArchive(name string) string {
	if p.sole {
		return archiveRoot
	}
	return p.prefix + name
}

// archiveTime is the modification time of every packed file: a touched file does
// not change the hash.
var archiveTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// addFile packs a regular file.
func (p *archiver) addFile(name string) error {
	// O_NONBLOCK: the file may have become a named pipe since it was listed.
	f, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		p.leaveOut(name, "cannot be read")
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		p.reject(name, "is not a file any more")
		return nil
	}
	if info.Size() > p.maxFileSize {
		p.reject(name, fmt.Sprintf("has %s, the limit is %s", human.Bytes(info.Size()), human.Bytes(p.maxFileSize)))
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(f, p.maxFileSize+1))
	if err != nil || int64(len(content)) > p.maxFileSize {
		p.reject(name, "changed while it was read")
		return nil
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: p.nameInArchive(name), Mode: mode, Size: int64(len(content)), ModTime: archiveTime}
	if err := p.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if _, err := p.tar.Write(content); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	p.sizes.add(name, int64(len(content)))
	return nil
}

// reject records a file that cannot be packed.
func (p *archiver) reject(name, why string) {
	if p.rejectedCount++; p.rejectedCount <= maxNamedFiles {
		p.rejected = append(p.rejected, name+" "+why)
	}
}

// rejectionError returns one error for all rejected files, or nil.
func (p *archiver) rejectionError() error {
	if p.rejectedCount == 0 {
		return nil
	}
	list := strings.Join(p.rejected, "\n")
	if more := p.rejectedCount - len(p.rejected); more > 0 {
		list += fmt.Sprintf("\nand %d more", more)
	}
	files := human.Count(p.rejectedCount, "file")
	return &dstack.Error{Kind: dstack.TooLarge,
		Message: fmt.Sprintf("cannot upload %s because of %s:\n%s", p.dir, files, list),
		Hint:    "list files that the service does not need in .dstackignore"}
}
