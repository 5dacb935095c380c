package gitignore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	sha1Size   = 20
	sha256Size = 32

	maxIndexEntries = 1 << 24 // of the base of a split index; bounds the memory for a malformed one
)

// modes of index entries that are no files.
const (
	modeType    = 0o170000
	modeGitlink = 0o160000 // a submodule
	modeFolder  = 0o040000 // a folder outside of a sparse checkout
)

// index is the names of the files that git tracks.
type index struct {
	names      []string // sorted; in lower case if ignoreCase
	submodules []string // sorted
	ignoreCase bool
}

// contains reports whether git tracks a file.
func (x *index) contains(path string) bool {
	_, found := slices.BinarySearch(x.names, x.fold(path))
	return found
}

// containsBelow reports whether git tracks a file or a submodule in a folder, or in the folders in it.
func (x *index) containsBelow(path string) bool {
	prefix := x.fold(path) + "/"
	return hasPrefix(x.names, prefix) || hasPrefix(x.submodules, prefix)
}

// hasPrefix reports whether a name in a sorted list begins with prefix.
func hasPrefix(sorted []string, prefix string) bool {
	at, _ := slices.BinarySearch(sorted, prefix)
	return at < len(sorted) && strings.HasPrefix(sorted[at], prefix)
}

// isSubmodule reports whether a folder is a submodule.
func (x *index) isSubmodule(path string) bool {
	_, found := slices.BinarySearch(x.submodules, x.fold(path))
	return found
}

func (x *index) fold(path string) string {
	if x.ignoreCase {
		return lowerASCII(path)
	}
	return path
}

// readIndex reads the index of a repository: versions 2 to 4, split ones and sparse ones. A repository without an index
// tracks nothing.
func readIndex(gitDir string, s settings) (*index, error) {
	result := &index{ignoreCase: s.ignoreCase}
	content, err := os.ReadFile(filepath.Join(gitDir, "index"))
	if errors.Is(err, fs.ErrNotExist) {
		return result, nil
	}
	if err != nil {
		return result, err
	}
	file, err := parseIndex(content, s.hashSize)
	if err != nil {
		return result, err
	}
	entries := file.entries
	if file.base != "" {
		if entries, err = mergeSplitIndex(gitDir, file, s.hashSize); err != nil {
			return result, err
		}
	}
	for _, e := range entries {
		switch name := result.fold(e.name); e.mode & modeType {
		case modeGitlink:
			result.submodules = append(result.submodules, name)
		case modeFolder: // its files are not in the working tree
		default:
			result.names = append(result.names, name)
		}
	}
	slices.Sort(result.names)
	slices.Sort(result.submodules)
	return result, nil
}

// mergeSplitIndex returns the entries of a split index: those of its base, without the deleted ones, and its own.
func mergeSplitIndex(gitDir string, file *indexFile, hashSize int) ([]indexEntry, error) {
	content, err := os.ReadFile(filepath.Join(gitDir, "sharedindex."+file.base))
	if err != nil {
		return nil, err
	}
	base, err := parseIndex(content, hashSize)
	if err != nil {
		return nil, err
	}
	entries := file.entries
	replacements := 0 // entries without a name, in the order of the entries that they replace
	for i := range base.entries {
		if file.replaced[i] {
			if replacements >= len(entries) {
				return nil, errIndex
			}
			base.entries[i].mode = entries[replacements].mode
			replacements++
		}
	}
	merged := entries[replacements:]
	for i, e := range base.entries {
		if !file.deleted[i] {
			merged = append(merged, e)
		}
	}
	return merged, nil
}

var errIndex = errors.New("it is malformed")

// indexFile is the content of one file of an index.
type indexFile struct {
	entries           []indexEntry
	base              string // the name of the shared file of a split index, in hexadecimal
	deleted, replaced map[int]bool
}

type indexEntry struct {
	name string
	mode uint32
}

// indexReader reads the fields of an index file. After the end of the content, failed is set and all fields are zero.
type indexReader struct {
	rest   []byte
	failed bool
}

func (r *indexReader) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.failed, r.rest = true, nil
		return make([]byte, min(max(n, 0), 64))
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *indexReader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *indexReader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

// untilZero takes a text and the zero byte behind it.
func (r *indexReader) untilZero() string {
	at := bytes.IndexByte(r.rest, 0)
	if at < 0 {
		r.take(-1)
		return ""
	}
	return string(r.take(at + 1)[:at])
}

// varint takes a number of the variable length that version 4 has before names.
func (r *indexReader) varint() int {
	b := r.take(1)[0]
	n := int(b & 0x7f)
	for b&0x80 != 0 && n < 1<<24 {
		b = r.take(1)[0]
		n = (n+1)<<7 | int(b&0x7f)
	}
	return n
}

// parseIndex parses an index file. The hash at its end is not checked: git may leave it out.
func parseIndex(content []byte, hashSize int) (*indexFile, error) {
	if len(content) < 12+hashSize {
		return nil, errIndex
	}
	r := &indexReader{rest: content[:len(content)-hashSize]}
	if string(r.take(4)) != "DIRC" {
		return nil, errIndex
	}
	version, count := r.uint32(), r.uint32()
	if version < 2 || version > 4 {
		return nil, fmt.Errorf("its version %d is unknown", version)
	}
	file := &indexFile{}
	previous := ""
	for range count {
		entry := r.readEntry(version, hashSize, previous)
		if r.failed {
			return nil, errIndex
		}
		previous = entry.name
		file.entries = append(file.entries, entry)
	}
	for len(r.rest) > 0 {
		name, size := string(r.take(4)), r.uint32()
		if err := file.readExtension(name, r.take(int(size)), hashSize); err != nil {
			return nil, err
		}
		if r.failed {
			return nil, errIndex
		}
	}
	return file, nil
}

func (r *indexReader) readEntry(version uint32, hashSize int, previous string) indexEntry {
	size := len(r.rest)
	r.take(24) // two times, device, inode
	entry := indexEntry{mode: r.uint32()}
	r.take(12 + hashSize) // owner, group, size, object
	flags := r.uint16()
	if flags&0x4000 != 0 && version >= 3 {
		r.take(2)
	}
	if version == 4 {
		kept := len(previous) - r.varint()
		suffix := r.untilZero()
		if kept < 0 {
			r.take(-1)
			return entry
		}
		entry.name = previous[:kept] + suffix
		return entry
	}
	entry.name = r.untilZero()
	for (size-len(r.rest))%8 != 0 && !r.failed {
		r.take(1)
	}
	return entry
}

// readExtension reads an extension that changes the list of files. An unknown one that git calls necessary is an error.
func (f *indexFile) readExtension(name string, content []byte, hashSize int) error {
	switch {
	case name[0] >= 'A' && name[0] <= 'Z', name == "sdir": // optional, or entries for whole folders
		return nil
	case name != "link":
		return fmt.Errorf("its extension %q is unknown", name)
	}
	r := &indexReader{rest: content}
	base := r.take(hashSize)
	if bytes.Count(base, []byte{0}) < hashSize {
		f.base = hex.EncodeToString(base)
	}
	if len(r.rest) > 0 {
		f.deleted, f.replaced = r.readBitmap(), r.readBitmap()
	}
	if r.failed {
		return errIndex
	}
	return nil
}

// readBitmap reads a bitmap in the EWAH format: words that tell how many equal words and how many literal words follow.
func (r *indexReader) readBitmap() map[int]bool {
	size := int(r.uint32())
	words := &indexReader{rest: r.take(int(r.uint32()) * 8)}
	r.take(4) // where the last run begins
	r.failed = r.failed || size > maxIndexEntries
	result := map[int]bool{}
	at := 0
	for len(words.rest) > 0 && at < size && !r.failed {
		run := binary.BigEndian.Uint64(words.take(8))
		equal, literals := int(run>>1&0xffffffff), int(run>>33)
		for end := at + equal*64; at < end && at < size; at++ {
			if run&1 != 0 {
				result[at] = true
			}
		}
		for ; literals > 0 && at < size && !words.failed; literals-- {
			word := binary.BigEndian.Uint64(words.take(8))
			for bit := range 64 {
				if word&(1<<bit) != 0 {
					result[at+bit] = true
				}
			}
			at += 64
		}
	}
	r.failed = r.failed || words.failed
	return result
}
