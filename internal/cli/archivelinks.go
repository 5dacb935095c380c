package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// addLink packs a symbolic link as a link; it is never followed. A link that leads out of
// the folder is left out, because its target is not on the replica's machine.
func (p *archiver) addLink(name string) error {
	target, err := p.root.Readlink(name)
	if err != nil {
		p.leaveOut(name, "cannot be read")
		return nil
	}
	if outside, isOutside := p.findOutsideTarget(name); isOutside {
		p.leaveOut(name, p.describeOutside(target, outside))
		return nil
	}
	header := &tar.Header{Typeflag: tar.TypeSymlink, Name: p.nameInArchive(name), Linkname: target, Mode: 0o777, ModTime: archiveTime}
	if err := p.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	p.sizes.add(name, 0)
	return nil
}

// describeOutside says why a link to target is left out, if outside is the target of the
// link that leads out of the folder.
func (p *archiver) describeOutside(target, outside string) string {
	switch {
	case outside != target:
		return "is a link to " + target + ", which leads out of the folder, to " + outside
	case strings.HasPrefix(target, p.dir+"/"):
		return "is a link with an absolute path, to " + target
	default:
		return "is a link out of the folder, to " + target
	}
}

// maxLinks is how many links are followed at most, as in Linux.
const maxLinks = 40

// findOutsideTarget follows a link in the folder without leaving it. It returns the target
// of the link that leads out, if any does. A target that does not exist, and links in a
// circle, do not lead out.
func (p *archiver) findOutsideTarget(name string) (target string, isOutside bool) {
	type step struct{ part, link string } // a part of a path, and the link that it comes from
	split := func(path, link string) (steps []step) {
		for part := range strings.SplitSeq(path, "/") {
			steps = append(steps, step{part, link})
		}
		return steps
	}
	at, rest := ".", split(name, "")
	for links := 0; len(rest) > 0 && links <= maxLinks; {
		next := rest[0]
		rest = rest[1:]
		switch next.part {
		case "", ".":
			continue
		case "..":
			if at == "." {
				return next.link, true
			}
			at = path.Dir(at)
			continue
		}
		child := path.Join(at, next.part)
		link, err := p.root.Readlink(child)
		switch {
		case err != nil: // no link, or nothing
			at = child
		case path.IsAbs(link):
			return link, true
		default:
			links++
			rest = append(split(link, link), rest...)
		}
	}
	return "", false
}

// isClosed reports whether nothing in a folder can be opened, so that an ignore file in it
// has no meaning.
func (p *archiver) isClosed(folder string) bool {
	_, err := p.root.Lstat(path.Join(folder, ".gitignore"))
	return errors.Is(err, fs.ErrPermission)
}

// leaveOut notes something that cannot travel, and is not uploaded.
func (p *archiver) leaveOut(name, why string) {
	if p.unsuitableCount++; p.unsuitableCount <= maxNamedFiles {
		p.notes = append(p.notes, name+" "+why+": left out")
	}
}

// listNotes returns the notes about what is left out.
func (p *archiver) listNotes() []string {
	if more := p.unsuitableCount - len(p.notes); more > 0 {
		return append(p.notes, fmt.Sprintf("%d more links, sockets or unreadable files are left out", more))
	}
	return p.notes
}
