package api

import (
	"context"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Paths about volumes.
const (
	PathVolumes     = ProjectPrefix + "/volumes"
	PathApplyVolume = PathVolumes + "/apply"
)

// Volume is a volume in answers. The fields after AttachmentData are for our own command line.
type Volume struct {
	ID               string                `json:"id"`
	Name             string                `json:"name"`
	ProjectName      string                `json:"project_name"`
	Configuration    spec.Volume           `json:"configuration"`
	External         bool                  `json:"external"`
	CreatedAt        Timestamp             `json:"created_at"`
	Status           dstack.VolumeStatus   `json:"status"` // deleting is active
	StatusMessage    *string               `json:"status_message"`
	Deleted          bool                  `json:"deleted"`
	VolumeID         *string               `json:"volume_id"`
	ProvisioningData *VolumeProvisioning   `json:"provisioning_data"`
	AttachmentData   *VolumeAttachmentData `json:"attachment_data"`

	State       dstack.VolumeStatus `json:"state"`
	Reason      string              `json:"reason"`  // why it has the state, or what it waits for
	Warning     string              `json:"warning"` // what the user should know although it can be used
	Host        string              `json:"host"`    // the machine that it is on, or the cluster
	Fleet       string              `json:"fleet"`   // of the machine; empty: none
	User        string              `json:"user"`    // who created it
	Since       time.Time           `json:"since"`   // when the state last changed
	UsedBy      []string            `json:"used_by"` // names of unfinished runs
	EnforcedMiB int64               `json:"enforced_mib"`
	Place       string              `json:"place,omitempty"`        // of a cluster's volume: the nodes that can mount it, if not all can
	AccessModes []string            `json:"access_modes,omitempty"` // of a cluster's volume
}

// VolumeProvisioning describes a volume that exists.
type VolumeProvisioning struct {
	Backend          string   `json:"backend"`
	VolumeID         string   `json:"volume_id"`
	SizeGB           int      `json:"size_gb"`
	AvailabilityZone *string  `json:"availability_zone"`
	Price            *float64 `json:"price"`
	Attachable       bool     `json:"attachable"`
	Detachable       bool     `json:"detachable"`
	BackendData      *string  `json:"backend_data"`
}

// VolumeAttachmentData is how a machine sees a volume.
type VolumeAttachmentData struct {
	DeviceName *string `json:"device_name"`
}

// AppliedVolume answers volumes/apply.
type AppliedVolume struct {
	Volume
	Created bool `json:"created"` // false: it exists with the same configuration already
}

// Requests about volumes.
type (
	// ListVolumes is the body of /api/volumes/list.
	ListVolumes struct {
		ProjectName   *string    `json:"project_name,omitempty"`
		OnlyActive    bool       `json:"only_active,omitempty"` // leaves out failed volumes
		PrevCreatedAt *time.Time `json:"prev_created_at,omitempty"`
		PrevID        *string    `json:"prev_id,omitempty"`
		Limit         *int       `json:"limit,omitempty" minimum:"0" maximum:"100"`
		Ascending     bool       `json:"ascending,omitempty"`
	}
	// VolumeName is the body of volumes/get.
	VolumeName struct {
		Name string `json:"name"`
	}
	// CreateVolume is the body of volumes/create and volumes/apply.
	CreateVolume struct {
		Configuration spec.Volume `json:"configuration"`
	}
	// DeleteVolumes is the body of volumes/delete.
	DeleteVolumes struct {
		Names []string `json:"names"`
	}
)

// ListVolumes returns the volumes of a project by name.
func (c *Client) ListVolumes(ctx context.Context, project string) ([]Volume, error) {
	return readWithRetry[[]Volume](ctx, c, projectPath(PathVolumes+"/list", project), struct{}{}, callTimeout)
}

// Volume returns a volume.
func (c *Client) Volume(ctx context.Context, project, name string) (Volume, error) {
	return readWithRetry[Volume](ctx, c, projectPath(PathVolumes+"/get", project), VolumeName{name}, callTimeout)
}

// ApplyVolume creates a volume, unless it exists with the same configuration; a failed one is created again. It fails with Conflict if it exists with
// another one.
func (c *Client) ApplyVolume(ctx context.Context, project string, configuration spec.Volume) (AppliedVolume, error) {
	var applied AppliedVolume
	err := c.callOnce(ctx, projectPath(PathApplyVolume, project), CreateVolume{configuration}, &applied)
	return applied, err
}

// DeleteVolumes requests the deletion of volumes, and waits for a few seconds until they are gone.
func (c *Client) DeleteVolumes(ctx context.Context, project string, names []string) error {
	return c.callOnce(ctx, projectPath(PathVolumes+"/delete", project), DeleteVolumes{names}, nil)
}
