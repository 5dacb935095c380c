package volume

import (
	"fmt"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// Names returns the names of all volumes that a service mounts, each once.
func Names(s spec.Service) (names []string) {
	for _, m := range s.Volumes {
		for _, name := range namesOf(m) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// namesOf returns the volumes one of which is mounted; nil for a folder of the machine.
func namesOf(m spec.Mount) []string {
	if m.Name == "" {
		return nil
	}
	return append([]string{m.Name}, m.OtherNames...)
}

// CheckMounts returns an error if no machine can ever have everything that a service mounts: volumes that do not exist,
// failed or are being deleted, volumes on different machines, and two mounts at the same path. volumes are those of the
// project.
func CheckMounts(s spec.Service, project string, volumes []dstack.Volume) error {
	paths := map[string]bool{}
	for _, m := range s.Volumes {
		if paths[m.Path] {
			return &dstack.Error{Kind: dstack.Invalid, Message: "two volumes are mounted at " + m.Path, Hint: "write another path for one of them"}
		}
		paths[m.Path] = true
		if err := checkMount(m, project, volumes); err != nil {
			return err
		}
	}
	pin := findPin(s, volumes, isExpected)
	if pin != nil && isEmpty(pin) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "no machine has all volumes of the service: " + describePlaces(s, volumes),
			Hint: "use volumes of one host, or of one cluster; a volume cannot be moved"}
	}
	return checkSharing(s, volumes)
}

// checkSharing returns an error if a service has more replicas than may mount one of its volumes.
func checkSharing(s spec.Service, volumes []dstack.Volume) error {
	replicas := countReplicas(s)
	if replicas <= 1 {
		return nil
	}
	for _, name := range Names(s) {
		v, ok := findVolume(volumes, name)
		if ok && isInCloud(v) {
			return &dstack.Error{Kind: dstack.Invalid,
				Message: fmt.Sprintf("the service may have %d replicas, and the disk of the volume %s is attached to one machine at a time", replicas, name),
				Hint:    "write replicas: 1; or use a volume of a host, or of a cluster with access_modes: [" + spec.AccessReadWriteMany + "]"}
		}
		if ok && SharingOf(v) == dstack.SharedByNobody {
			return &dstack.Error{Kind: dstack.Invalid,
				Message: fmt.Sprintf("the service may have %d replicas, and replicas mount the volume %s one at a time (%s)", replicas, name, spec.AccessReadWriteOncePod),
				Hint:    "write replicas: 1; or use a volume with access_modes: [" + spec.AccessReadWriteMany + "], or [" + spec.AccessReadWriteOnce + "] for replicas on one node"}
		}
	}
	return nil
}

// checkMount checks the volumes of one mount: each must exist, and one of them must be usable.
func checkMount(m spec.Mount, project string, volumes []dstack.Volume) error {
	var unusable []dstack.Volume
	names := namesOf(m)
	for _, name := range names {
		v, ok := findVolume(volumes, name)
		switch {
		case !ok:
			return newUnknownError(name, project, volumes)
		case !isExpected(v):
			unusable = append(unusable, v)
		}
	}
	if len(names) == 0 || len(unusable) < len(names) {
		return nil
	}
	v := unusable[0]
	if v.Status == dstack.VolumeDeleting {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %s is being deleted", v.Name),
			Hint: "wait until it is gone, and apply its configuration again" + otherVolumes(volumes)}
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %s has failed: %s", v.Name, v.Reason),
		Hint: "see: dstack volume get " + v.Name + otherVolumes(volumes)}
}

// isExpected reports whether a volume can be used, or is about to be.
func isExpected(v dstack.Volume) bool {
	return v.Status == dstack.VolumeActive || v.Status == dstack.VolumeSubmitted || v.Status == dstack.VolumeProvisioning
}

func isActive(v dstack.Volume) bool { return v.Status == dstack.VolumeActive }

// otherVolumes names the active volumes of a project, as a part of a hint.
func otherVolumes(volumes []dstack.Volume) string {
	if names := activeNames(volumes); len(names) > 0 {
		return "; active: " + joinNames(names)
	}
	return ""
}

func activeNames(volumes []dstack.Volume) (names []string) {
	for _, v := range volumes {
		if isActive(v) {
			names = append(names, v.Name)
		}
	}
	return names
}

func newUnknownError(name, project string, volumes []dstack.Volume) error {
	var known []string
	for _, v := range volumes {
		known = append(known, v.Name)
	}
	hint := "apply the configuration of a volume first: type: volume"
	if near := human.Nearest(name, known); near != "" {
		hint = "did you mean " + near + "?"
	} else if len(known) > 0 {
		hint = "the project has: " + joinNames(known)
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("there is no volume %s in project %s", name, project), Hint: hint}
}

// findVolume returns the volume with a name, and whether there is one.
func findVolume(volumes []dstack.Volume, name string) (dstack.Volume, bool) {
	at := slices.IndexFunc(volumes, func(v dstack.Volume) bool { return v.Name == name })
	if at < 0 {
		return dstack.Volume{}, false
	}
	return volumes[at], true
}

// BuildMounts returns the mounts of a replica on a machine. It fails with NotFound if a volume is not there, which can
// only be if the volume changed after the replica was placed.
func BuildMounts(s spec.Service, volumes []dstack.Volume, on dstack.Instance) (mounts []dstack.Mount, err error) {
	for _, m := range s.Volumes {
		if m.InstancePath != "" {
			mounts = append(mounts, dstack.Mount{Kind: dstack.MountHostPath, Source: m.InstancePath, Target: m.Path, Optional: m.Optional})
			continue
		}
		v, ok := findOn(volumes, namesOf(m), on)
		if !ok {
			return nil, newUnmountableError(m, s, volumes)
		}
		switch {
		case isInCloud(v): // its disk is attached to the machine before
			mounts = append(mounts, dstack.Mount{Kind: dstack.MountHostPath, Source: v.MountPoint(), Target: m.Path})
		case isInCluster(v):
			mounts = append(mounts, dstack.Mount{Kind: dstack.MountClaim, Source: v.ExternalID, Target: m.Path, ReadOnly: isReadOnly(v),
				OneNode: SharingOf(v) == dstack.SharedByMachine})
		case v.IsExternal:
			mounts = append(mounts, dstack.Mount{Kind: dstack.MountHostPath, Source: v.ExternalID, Target: m.Path})
		default:
			mounts = append(mounts, dstack.Mount{Kind: dstack.MountVolume, Source: v.ExternalID, Target: m.Path, IsKept: true})
		}
	}
	return mounts, nil
}

func newUnmountableError(m spec.Mount, s spec.Service, volumes []dstack.Volume) error {
	return &dstack.Error{Kind: dstack.NotFound, Message: "cannot mount " + m.Path + ": " + describePlaces(s, volumes),
		Hint: "see: dstack volume list -v"}
}

// findOn returns the first of the named volumes that is active, and that a machine has.
func findOn(volumes []dstack.Volume, names []string, on dstack.Instance) (dstack.Volume, bool) {
	for _, name := range names {
		v, ok := findVolume(volumes, name)
		if ok && isActive(v) && len(intersect(locationsOf(v), []location{newLocation(on)})) > 0 {
			return v, true
		}
	}
	return dstack.Volume{}, false
}
