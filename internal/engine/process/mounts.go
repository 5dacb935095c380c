package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// A process has no file system of its own. What it mounts is linked at its path, which must be in the folder of the
// attempt's code. The exception is a host path whose target is the same path, which the process sees anyway.

// mountLink is a link in the working folder of an attempt.
type mountLink struct {
	source   string // an existing file or folder
	target   string // relative to the folder of the code
	isVolume bool   // the source is in the server's folder, and stays visible nevertheless
}

// mountsFile is the file in the folder of an attempt that has its mountRecord.
const mountsFile = "mounts.json"

// mountRecord names the folders of the volumes that an attempt has links to.
type mountRecord struct {
	Volumes []string
}

// resolveMounts returns the links that the mounts of an attempt need. It refuses mounts that a process cannot have.
func (e *Engine) resolveMounts(spec dstack.AttemptSpec) (links []mountLink, err error) {
	if err := engine.ValidateMounts(spec); err != nil {
		return nil, err
	}
	for _, m := range spec.Mounts {
		source, err := e.findSource(m)
		if err != nil {
			return nil, err
		}
		switch {
		case source == "": // optional, and missing
		case m.ReadOnly:
			return nil, newUnsupportedError(m, "a mount cannot be read-only without Docker", "do not mount it read-only")
		case m.Kind == dstack.MountHostPath && filepath.Clean(source) == filepath.Clean(m.Target):
		default:
			target, ok := dstack.FindPathInFolder(".", m.Target)
			if !ok || target == "." {
				return nil, newUnsupportedError(m, "a plain process has no files outside of its folder, and the path is outside",
					"mount it at a path below /workflow, which is the folder of the code")
			}
			links = append(links, mountLink{source, target, m.Kind == dstack.MountVolume})
		}
	}
	return links, nil
}

// findSource returns the path on this machine that a mount shows; "": it is optional and does not exist.
func (e *Engine) findSource(m dstack.Mount) (string, error) {
	if m.Kind == dstack.MountVolume {
		dir := e.volumePath(m.Source)
		if !m.IsKept || dir == "" {
			return "", newUnsupportedError(m, "there are no volumes without Docker", "use a host path, mounted at the same path")
		}
		dir = filepath.Join(dir, "data")
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return "", engine.NewMissingVolumeError(m)
		}
		return dir, nil
	}
	if _, err := os.Stat(m.Source); err != nil {
		if m.Optional {
			return "", nil
		}
		return "", &dstack.Error{
			Kind:    dstack.NotFound,
			Message: fmt.Sprintf("the host path %s does not exist on this machine, or cannot be read", m.Source),
			Hint:    "create it, or correct the path in the configuration",
			Cause:   err,
		}
	}
	return m.Source, nil
}

// linkMounts makes the links in the folder of the code, after the code.
func linkMounts(dir folder, links []mountLink) error {
	if len(links) == 0 {
		return nil
	}
	root, err := os.OpenRoot(dir.path("work"))
	if err != nil {
		return err
	}
	defer root.Close()
	var record mountRecord
	for _, link := range links {
		if err := linkMount(root, link); err != nil {
			return err
		}
		if link.isVolume {
			record.Volumes = append(record.Volumes, link.source)
		}
	}
	return dir.writeJSON(mountsFile, record)
}

// linkMount makes one link. An empty folder in its place is replaced; the code's own files are not.
func linkMount(root *os.Root, link mountLink) error {
	if parent := filepath.Dir(link.target); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	if _, err := root.Lstat(link.target); err == nil {
		if err := root.Remove(link.target); err != nil {
			return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the code has %s, where a volume or folder is to be mounted", link.target),
				Hint: "mount it at another path, or exclude that path from the code in .gitignore", Cause: err}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.Symlink(link.source, link.target)
}

func newUnsupportedError(m dstack.Mount, reason, alternative string) error {
	return &dstack.Error{
		Kind:    dstack.Unsupported,
		Message: fmt.Sprintf("cannot mount %q at %q: %s", m.Source, m.Target, reason),
		Hint:    "install Docker, or " + alternative,
	}
}
