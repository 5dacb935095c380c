package process

import (
	"fmt"
	"os"
	"path/filepath"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// checkMounts refuses mounts: a process has no file system of its own. The exception is a
// writable host path whose target is the same path, which the process sees anyway.
func checkMounts(spec dstack.AttemptSpec) error {
	if err := engine.ValidateMounts(spec); err != nil {
		return err
	}
	for _, m := range spec.Mounts {
		if err := checkMount(m); err != nil {
			return err
		}
	}
	return nil
}

func checkMount(m dstack.Mount) error {
	switch {
	case m.Kind == dstack.MountVolume:
		return newUnsupportedError(m, "there are no volumes without Docker", "use a host path, mounted at the same path")
	case filepath.Clean(m.Source) != filepath.Clean(m.Target):
		return newUnsupportedError(m, "a host path cannot appear at another path without Docker", "mount it at the same path")
	case m.ReadOnly:
		return newUnsupportedError(m, "a host path cannot be read-only without Docker", "do not mount it read-only")
	}
	if _, err := os.Stat(m.Source); err != nil {
		return &dstack.Error{
			Kind:    dstack.NotFound,
			Message: fmt.Sprintf("the host path %s does not exist on this machine, or cannot be read", m.Source),
			Hint:    "create it, or correct the path in the configuration",
			Cause:   err,
		}
	}
	return nil
}

func newUnsupportedError(m dstack.Mount, reason, alternative string) error {
	return &dstack.Error{
		Kind:    dstack.Unsupported,
		Message: fmt.Sprintf("cannot mount %q at %q: %s", m.Source, m.Target, reason),
		Hint:    "install Docker, or " + alternative,
	}
}
