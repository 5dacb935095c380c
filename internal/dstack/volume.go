package dstack

import "time"

// Volume is a disk of a backend. It outlives the machines that it is attached
// to. A run names it in its configuration.
type Volume struct {
	ID          VolumeID
	Project     ProjectID
	Name        string // unique in the project
	Backend     string // key in backend.Set
	Region      string
	SizeMiB     int64
	ExternalID  string  // the backend's own identifier; empty: not created yet
	IsExternal  bool    // the user created it: deleting the volume leaves the disk
	Zone        string  // part of the region whose machines can attach it; empty: all of it
	Price       float64 // dollars per month; 0: nothing, or unknown
	Status      VolumeStatus
	Reason      Reason
	CreatedAt   time.Time
	Attachments []VolumeAttachment
}

// VolumeStatus is the phase of a volume's life.
type VolumeStatus string

// The statuses of a volume. Those of the wire format are the same, except that
// it has no deleting: there the volume is still active.
const (
	VolumeSubmitted    VolumeStatus = "submitted"    // its backend has not been asked yet
	VolumeProvisioning VolumeStatus = "provisioning" // requested from the backend
	VolumeActive       VolumeStatus = "active"       // can be attached
	VolumeFailed       VolumeStatus = "failed"       // could not be created, or is lost; Reason says why
	VolumeDeleting     VolumeStatus = "deleting"     // its deletion was requested
)

// VolumeAttachment is a volume on a machine.
type VolumeAttachment struct {
	Instance InstanceID
	Device   string // name of the device there, such as /dev/sdf; empty: not known yet
}

// IsAttachedTo reports whether the volume is attached to an instance.
func (v Volume) IsAttachedTo(id InstanceID) bool {
	for _, a := range v.Attachments {
		if a.Instance == id {
			return true
		}
	}
	return false
}
