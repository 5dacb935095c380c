package v022

import (
	"cmp"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// volumeBackend is the backend of volumes in answers that are not in a cloud. The clients of this dialect refuse a list with a volume of the
// user's own machines: their volumes are only of clouds and of Kubernetes, whose region is a free text and whose size may
// be missing.
const volumeBackend = "kubernetes"

// Volume is a volume in an answer.
type Volume struct {
	ID               string                  `json:"id"`
	Name             string                  `json:"name"`
	User             string                  `json:"user"`
	ProjectName      string                  `json:"project_name"`
	Configuration    VolumeConfiguration     `json:"configuration"`
	External         bool                    `json:"external"`
	CreatedAt        api.Timestamp           `json:"created_at"`
	LastProcessedAt  api.Timestamp           `json:"last_processed_at"`
	Status           dstack.VolumeStatus     `json:"status"`
	StatusMessage    *string                 `json:"status_message"`
	Deleted          bool                    `json:"deleted"`
	DeletedAt        *api.Timestamp          `json:"deleted_at"`
	VolumeID         *string                 `json:"volume_id"`
	ProvisioningData *api.VolumeProvisioning `json:"provisioning_data"`
	Cost             float64                 `json:"cost"`
	Attachments      []VolumeAttachment      `json:"attachments"`
}

// VolumeConfiguration is the configuration of a volume: a disk of a cloud, or in the form of a claim of Kubernetes.
type VolumeConfiguration struct {
	Type        string    `json:"type"`
	Backend     string    `json:"backend"`
	Name        string    `json:"name"`
	Region      string    `json:"region"` // the machine
	Size        *spec.GB  `json:"size"`
	ClaimName   spec.Text `json:"claim_name,omitzero"` // the claim, or the path of an external volume
	AccessModes []string  `json:"access_modes,omitempty"`

	Zone     spec.Text `json:"availability_zone,omitempty"` // of the disk of a cloud
	VolumeID spec.Text `json:"volume_id,omitempty"`

	StorageClass spec.Text `json:"storage_class_name,omitempty"`
	ReadOnly     bool      `json:"read_only,omitempty"`
}

// VolumeAttachment is a machine whose replicas mount a volume.
type VolumeAttachment struct {
	Instance VolumeInstance `json:"instance"`
}

// VolumeInstance is the machine of a VolumeAttachment.
type VolumeInstance struct {
	Name        string `json:"name"`
	FleetName   string `json:"fleet_name"`
	InstanceNum int    `json:"instance_num"`
}

// BuildVolumes returns volumes in answers.
func BuildVolumes(found []dstack.Volume) []Volume {
	volumes := make([]Volume, 0, len(found))
	for _, v := range found {
		volumes = append(volumes, BuildVolume(v))
	}
	return volumes
}

// BuildVolume returns a volume in an answer.
func BuildVolume(v dstack.Volume) Volume {
	old := v018.BuildVolume(v)
	volume := Volume{
		ID: old.ID, Name: old.Name, User: v.User, ProjectName: old.ProjectName, External: old.External, CreatedAt: old.CreatedAt,
		LastProcessedAt: api.NewTimestamp(v.Since), Status: old.Status, StatusMessage: old.StatusMessage, VolumeID: old.VolumeID,
		ProvisioningData: old.ProvisioningData, Attachments: []VolumeAttachment{},
		Configuration: VolumeConfiguration{Type: "volume", Backend: volumeBackend, Name: v.Name, Region: old.Configuration.Region,
			Size: v.Configuration.Size, ClaimName: v.Configuration.VolumeID, AccessModes: []string{"ReadWriteMany"}},
	}
	if conf := v.Configuration; conf.IsInCluster() {
		volume.Configuration.ClaimName, volume.Configuration.StorageClass = spec.Text(conf.ExistingClaim()), conf.StorageClass
		volume.Configuration.AccessModes, volume.Configuration.ReadOnly = conf.NewClaimModes(), conf.ReadOnly
	}
	if conf := v.Configuration; conf.IsInCloud() {
		volume.Configuration = VolumeConfiguration{Type: "volume", Backend: conf.Backend, Name: v.Name, Region: conf.Region, Size: conf.Size,
			Zone: conf.Zone, VolumeID: conf.VolumeID}
	} else if volume.ProvisioningData != nil {
		volume.ProvisioningData.Backend = volumeBackend
	}
	if len(v.Runs) > 0 {
		volume.Attachments = append(volume.Attachments, VolumeAttachment{VolumeInstance{Name: v.Machine, FleetName: cmp.Or(v.Fleet, v.Machine)}})
	}
	return volume
}
