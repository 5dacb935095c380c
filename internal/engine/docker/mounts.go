package docker

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
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
		out = append(out, mount.Mount{Type: kind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	return out
}

// createVolumes creates the volumes of an attempt that do not exist yet. They outlive the
// attempt. A volume that another program or installation created is refused, because
// its data is not this installation's.
func (e *Engine) createVolumes(ctx context.Context, mounts []dstack.Mount) error {
	for _, m := range mounts {
		if m.Kind != dstack.MountVolume {
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
