package v018

import (
	"cmp"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// BuildVolumes returns volumes in answers.
func BuildVolumes(found []dstack.Volume) []api.Volume {
	volumes := make([]api.Volume, 0, len(found))
	for _, v := range found {
		volumes = append(volumes, BuildVolume(v))
	}
	return volumes
}

// BuildVolume returns a volume in an answer.
func BuildVolume(v dstack.Volume) api.Volume {
	conf := v.Configuration
	conf.Region = cmp.Or(conf.Region, string(conf.Host), v.Machine) // 0.18.10 requires one
	volume := api.Volume{
		ID: string(v.ID), Name: v.Name, ProjectName: v.ProjectName, Configuration: conf, External: v.IsExternal,
		CreatedAt: api.NewTimestamp(v.CreatedAt), Status: v.Status,
		State: v.Status, Reason: string(v.Reason), Warning: v.Warning, Host: v.Machine, Fleet: v.Fleet, User: v.User, Since: v.Since.UTC(),
		UsedBy: append([]string{}, v.Runs...), EnforcedMiB: v.SizeMiB, Place: cmp.Or(v.Reach.Place, v.Zone), AccessModes: v.Reach.AccessModes,
	}
	if v.Status == dstack.VolumeDeleting {
		volume.Status = dstack.VolumeActive
	}
	if message := cmp.Or(volume.Reason, v.Warning); message != "" {
		volume.StatusMessage = &message
	}
	if v.Status != dstack.VolumeProvisioning && v.ExternalID != "" {
		volume.VolumeID = &v.ExternalID
		volume.ProvisioningData = &api.VolumeProvisioning{Backend: conf.Backend, VolumeID: v.ExternalID, SizeGB: sizeGB(v), Price: &v.Price}
		if v.Zone != "" {
			volume.ProvisioningData.AvailabilityZone = &v.Zone
		}
		isDisk := conf.IsInCloud()
		volume.ProvisioningData.Attachable, volume.ProvisioningData.Detachable = isDisk, isDisk
	}
	return volume
}

// sizeGB returns the size that the configuration of a volume asks for. That of a cluster's claim or a cloud's disk is what it got.
func sizeGB(v dstack.Volume) int {
	if v.Configuration.IsInCluster() || v.Configuration.IsInCloud() {
		return int(v.SizeMiB / 1024)
	}
	if v.Configuration.Size == nil {
		return 0
	}
	return int(*v.Configuration.Size)
}
