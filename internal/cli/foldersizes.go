package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	maxMeasuredFiles = 20 * maxFiles // beyond, sizes are not added up any more
	maxNamedFolders  = 3             // the largest ones, that the error names
	minNamedShare    = 20            // smaller ones than this part of all are not named
)

// folderSizes are the numbers and sizes of the files to upload.
type folderSizes struct {
	files int
	bytes int64
	top   map[string]entrySize // of each entry of the uploaded folder
}

type entrySize struct {
	files int
	bytes int64
}

// add adds a file.
func (s *folderSizes) add(name string, bytes int64) {
	s.files++
	s.bytes += bytes
	if s.top == nil {
		s.top = map[string]entrySize{}
	}
	top, _, isInFolder := strings.Cut(name, "/")
	if isInFolder {
		top += "/"
	}
	size := s.top[top]
	s.top[top] = entrySize{size.files + 1, size.bytes + bytes}
}

func (s *folderSizes) areTooLarge() bool { return s.files > maxFiles || s.bytes > maxArchiveSize }

// hasTooManyFiles reports whether the number of files alone is beyond the limit.
func (s *folderSizes) hasTooManyFiles() bool { return s.files > maxFiles && s.bytes <= maxArchiveSize }

// describeLargest names the entries that have most of the files or bytes.
func (s *folderSizes) describeLargest() string {
	measure, total := func(e entrySize) int64 { return e.bytes }, s.bytes
	format := human.Bytes
	if s.hasTooManyFiles() {
		measure, total = func(e entrySize) int64 { return int64(e.files) }, int64(s.files)
		format = func(n int64) string { return human.Count(int(n), "file") }
	}
	names := slices.SortedFunc(maps.Keys(s.top), func(x, y string) int {
		return cmp.Or(cmp.Compare(measure(s.top[y]), measure(s.top[x])), cmp.Compare(x, y))
	})
	var parts []string
	for i, name := range names[:min(maxNamedFolders, len(names))] {
		size := measure(s.top[name])
		if i > 0 && size < total/minNamedShare {
			break
		}
		parts = append(parts, fmt.Sprintf("%s has %s", name, format(size)))
	}
	return strings.Join(parts, ", ")
}

// tooLargeError returns the error of a folder beyond the limits.
func (p *archiver) tooLargeError() error {
	why := fmt.Sprintf("its files have more than %s in all", human.Bytes(maxArchiveSize))
	if p.sizes.hasTooManyFiles() {
		why = fmt.Sprintf("it has more than %d files", maxFiles)
	}
	return &dstack.Error{Kind: dstack.TooLarge,
		Message: fmt.Sprintf("cannot upload %s: %s (%s)", p.dir, why, p.sizes.describeLargest()),
		Hint:    "apply from the service's own folder, or list files that it does not need in .dstackignore"}
}
