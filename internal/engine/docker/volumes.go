package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Labels of volumes that CreateVolume makes, besides labelInstallation and labelProject.
const (
	labelVolume     = "dstack.volume"
	labelVolumeName = "dstack.volume_name"
	labelVolumeSize = "dstack.volume_size" // the enforced size in MiB
)

var _ engine.Volumes = (*Engine)(nil)

// nameVolume returns the name of a volume for Docker. It is for people, and unique.
func nameVolume(v dstack.Volume) string {
	id := string(v.ID)
	return fmt.Sprintf("dstack-%s-%s", v.Name, id[:min(8, len(id))])
}

// CreateVolume implements engine.Volumes.
func (e *Engine) CreateVolume(ctx context.Context, v dstack.Volume) (dstack.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if v.IsExternal {
		return v, e.checkHostPath(ctx, v.ExternalID)
	}
	known, err := e.ListVolumes(ctx)
	if err != nil {
		return v, err
	}
	v.ExternalID = nameVolume(v)
	if found, ok := known[v.ID]; ok {
		wanted := v.SizeMiB
		v.ExternalID, v.SizeMiB = found.ExternalID, found.SizeMiB
		v.Warning = warnAboutSize(wanted, found.SizeMiB)
		return v, nil
	}
	wanted := v.SizeMiB
	err = e.createVolume(ctx, v)
	if wanted > 0 && isQuotaMissing(err) {
		v.SizeMiB = 0
		err = e.createVolume(ctx, v)
	}
	v.Warning = warnAboutSize(wanted, v.SizeMiB)
	return v, err
}

// createVolume creates a volume with a quota of its size; 0: without one.
func (e *Engine) createVolume(ctx context.Context, v dstack.Volume) error {
	options := client.VolumeCreateOptions{Name: v.ExternalID, Driver: "local", Labels: map[string]string{
		labelInstallation: string(e.opts.Installation), labelVolume: string(v.ID), labelVolumeName: v.Name, labelProject: v.ProjectName,
		labelVolumeSize: strconv.FormatInt(v.SizeMiB, 10),
	}}
	if v.SizeMiB > 0 {
		options.DriverOpts = map[string]string{"size": fmt.Sprintf("%dM", v.SizeMiB)}
	}
	got, err := e.docker.VolumeCreate(ctx, options)
	if err != nil {
		return translateVolumeError(err, "create the volume "+v.Name)
	}
	if got.Volume.Labels[labelVolume] != string(v.ID) || got.Volume.Labels[labelInstallation] != string(e.opts.Installation) {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("Docker has a volume named %s already, and this server did not create it", v.ExternalID),
			Hint: "remove it with docker volume rm, or choose another name"}
	}
	return nil
}

// isQuotaMissing reports whether Docker refused the size of a volume because its file system has no quotas.
func isQuotaMissing(err error) bool {
	return err != nil && strings.Contains(strings.ToLower(err.Error()), "quota")
}

// warnAboutSize says that Docker does not enforce the size of a volume.
func warnAboutSize(wanted, enforced int64) string {
	if wanted == 0 || enforced > 0 {
		return ""
	}
	return "its size is not enforced: the file system of Docker's data folder has no quotas (xfs with the option pquota has), " +
		"so it may grow until the disk is full"
}

// DeleteVolume implements engine.Volumes.
func (e *Engine) DeleteVolume(ctx context.Context, v dstack.Volume) error {
	if v.IsExternal {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	known, err := e.ListVolumes(ctx)
	if err != nil {
		return err
	}
	found, ok := known[v.ID]
	if !ok {
		return nil
	}
	_, err = e.docker.VolumeRemove(ctx, found.ExternalID, client.VolumeRemoveOptions{})
	switch {
	case err == nil || errdefs.IsNotFound(err):
		return nil
	case errdefs.IsConflict(err):
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("a container still mounts the volume %s", v.Name), Cause: err,
			Hint: "it is deleted when the container is gone: docker ps -a --filter volume=" + found.ExternalID}
	}
	return translateVolumeError(err, "delete the volume "+v.Name)
}

// ListVolumes implements engine.Volumes.
func (e *Engine) ListVolumes(ctx context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	filters := client.Filters{}.Add("label", labelInstallation+"="+string(e.opts.Installation))
	got, err := e.docker.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	if err != nil {
		return nil, translateVolumeError(err, "list volumes")
	}
	found := map[dstack.VolumeID]dstack.Volume{}
	for _, item := range got.Items {
		id := dstack.VolumeID(item.Labels[labelVolume])
		if id == "" {
			continue
		}
		size, _ := strconv.ParseInt(item.Labels[labelVolumeSize], 10, 64) // 0 without the label
		found[id] = dstack.Volume{ID: id, Name: item.Labels[labelVolumeName], ExternalID: item.Name, SizeMiB: size, ProjectName: item.Labels[labelProject]}
	}
	return found, nil
}

// checkedImage names no image: Docker checks the mounts of a new container before it looks for its image.
const checkedImage = "dstack.invalid/checks-a-path:none"

// checkHostPath returns an error of kind NotFound if a path does not exist on the machine of the Docker Engine. It
// creates nothing: it asks for a container of an image that does not exist, with a mount of the path.
func (e *Engine) checkHostPath(ctx context.Context, path string) error {
	created, err := e.docker.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: checkedImage},
		HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeBind, Source: path, Target: "/checked"}}},
	})
	switch {
	case err == nil:
		_, err = e.docker.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{Force: true})
		return err
	case isPathMissing(err):
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no folder %s on the machine", path), Cause: err,
			Hint: "create it there, or correct volume_id"}
	case errdefs.IsNotFound(err):
		return nil
	}
	return translateVolumeError(err, "look for the folder "+path)
}

// isPathMissing reports whether Docker refused a mount because the path does not exist.
func isPathMissing(err error) bool {
	return err != nil && strings.Contains(err.Error(), "bind source path does not exist")
}

func translateVolumeError(err error, what string) error {
	if client.IsErrConnectionFailed(err) {
		return newUnreachableError(err)
	}
	kind, hint := dstack.Unavailable, "it is tried again"
	if errdefs.IsInvalidArgument(err) {
		kind, hint = dstack.Invalid, "correct the configuration of the volume"
	}
	return &dstack.Error{Kind: kind, Message: fmt.Sprintf("Docker cannot %s: %s", what, shortenError(err)), Hint: hint, Cause: err}
}
