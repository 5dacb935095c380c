package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// newMounts translates mounts for Docker's API. Docker refuses a host path that does not
// exist; only the older form of bind mounts, HostConfig.Binds, creates it.
func newMounts(mounts []dstack.Mount) []mount.Mount {
	var out []mount.Mount
	for _, m := range mounts {
		kind := mount.TypeVolume
		if m.Kind == dstack.MountHostPath {
			kind = mount.TypeBind
		}
		one := mount.Mount{Type: kind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		if m.IsKept { // a new volume is empty, whatever the image has at its path
			one.VolumeOptions = &mount.VolumeOptions{NoCopy: true}
		}
		out = append(out, one)
	}
	return out
}

// removeOptional removes the optional mounts that Docker refuses because their path does not exist. ok is false if there
// is none.
func removeOptional(spec dstack.AttemptSpec, refusal error) (rest dstack.AttemptSpec, ok bool) {
	if !isPathMissing(refusal) {
		return spec, false
	}
	rest = spec
	rest.Mounts = slices.DeleteFunc(slices.Clone(spec.Mounts), func(m dstack.Mount) bool {
		return m.Optional && strings.HasSuffix(strings.TrimSpace(refusal.Error()), " "+m.Source)
	})
	return rest, len(rest.Mounts) < len(spec.Mounts)
}

// checkVolume returns an error of kind NotFound if a volume that must exist does not.
func (e *Engine) checkVolume(ctx context.Context, m dstack.Mount) error {
	got, err := e.docker.VolumeInspect(ctx, m.Source, client.VolumeInspectOptions{})
	switch {
	case errdefs.IsNotFound(err):
		return engine.NewMissingVolumeError(m)
	case err != nil:
		return fmt.Errorf("cannot find the volume %s: %w", m.Source, err)
	case got.Volume.Labels[labelInstallation] != string(e.opts.Installation):
		return engine.NewMissingVolumeError(m)
	}
	return nil
}

// createVolumes creates the volumes of an attempt that do not exist yet. They outlive the
// attempt. A volume that another program or installation created is refused, because
// its data is not this installation's.
func (e *Engine) createVolumes(ctx context.Context, mounts []dstack.Mount) error {
	for _, m := range mounts {
		if m.Kind != dstack.MountVolume {
			continue
		}
		if m.IsKept {
			if err := e.checkVolume(ctx, m); err != nil {
				return err
			}
			continue
		}
		got, err := e.docker.VolumeCreate(ctx, client.VolumeCreateOptions{
			Name: m.Source, Labels: map[string]string{labelInstallation: string(e.opts.Installation)},
		})
		if err != nil {
			return fmt.Errorf("cannot create the volume %s: %w", m.Source, err)
		}
		if got.Volume.Labels[labelInstallation] != string(e.opts.Installation) {
			return &dstack.Error{
				Kind:    dstack.Conflict,
				Message: fmt.Sprintf("Docker has a volume named %s already, and this server did not create it", m.Source),
				Hint:    "choose another name for the volume, or remove it with docker volume rm",
			}
		}
	}
	return nil
}
