package engine

import (
	"fmt"
	"path"
	"regexp"

	"dstack/internal/dstack"
)

// volumeName is what a volume may be called; Docker has the same rule.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// claimName is what a PersistentVolumeClaim may be called.
var claimName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// ValidateMounts checks the mounts of an attempt as far as that is possible without an
// engine. An error has the kind Invalid.
func ValidateMounts(spec dstack.AttemptSpec) error {
	targets := map[string]bool{}
	for _, m := range spec.Mounts {
		if err := validateSource(m); err != nil {
			return err
		}
		target := path.Clean(m.Target)
		switch {
		case !path.IsAbs(m.Target) || target == "/":
			return newMountError(m, "the target must be an absolute path below /")
		case target == CodeFolder && spec.CodeHash != "":
			return newMountError(m, "the target is the folder of the uploaded code")
		case targets[target]:
			return newMountError(m, "another mount has the same target")
		}
		targets[target] = true
	}
	return nil
}

func validateSource(m dstack.Mount) error {
	switch m.Kind {
	case dstack.MountVolume:
		if !volumeName.MatchString(m.Source) {
			return newMountError(m, "a volume's name has at least two letters, digits or _.- and begins with a letter or digit")
		}
	case dstack.MountHostPath:
		if !path.IsAbs(m.Source) {
			return newMountError(m, "the path of the machine must be absolute")
		}
	case dstack.MountClaim:
		if !claimName.MatchString(m.Source) {
			return newMountError(m, "a claim's name has lower-case letters, digits, - and . only")
		}
	default:
		return newMountError(m, fmt.Sprintf("the kind of mount %q is unknown", m.Kind))
	}
	return nil
}

func newMountError(m dstack.Mount, reason string) error {
	return &dstack.Error{
		Kind:    dstack.Invalid,
		Message: fmt.Sprintf("cannot mount %q at %q: %s", m.Source, m.Target, reason),
		Hint:    "correct the volumes of the configuration",
	}
}
