package dstack

import (
	"time"

	"dstack/internal/spec"
)

// Volume keeps data that outlives the runs that use it: a disk of a cloud, a claim of a Kubernetes cluster, or a folder or
// Docker volume of a machine of the user. A run names it in its configuration.
type Volume struct {
	ID            VolumeID
	Project       ProjectID
	ProjectName   string
	Name          string      // unique in the project
	User          string      // who created it
	Configuration spec.Volume // as it was applied
	Backend       string      // key in backend.Set
	Instance      InstanceID  // the owned machine that has it; empty: its backend has it
	Machine       string      // name of that machine
	Fleet         string      // name of the fleet of that machine; empty: none
	Host          string      // see Instance.Host
	Region        string
	SizeMiB       int64
	ExternalID    string  // the identifier of its backend or engine; empty: not created yet
	IsExternal    bool    // the user created it: deleting the volume leaves the disk or folder
	Zone          string  // part of the region whose machines can attach it; empty: all of it, or not known yet
	Price         float64 // dollars per month; 0: nothing, or unknown
	IsFormatted   bool    // its disk has got a file system, so it is never formatted again
	Status        VolumeStatus
	Reason        Reason // why it has the status, or what it waits for
	Warning       string // what the user should know although it can be used, such as a size that is not enforced
	CreatedAt     time.Time
	Since         time.Time // when Status last changed
	Failures      int       // failed actions in a row
	Version       int64
	Runs          []string // the names of the unfinished runs that name it
	Attachments   []VolumeAttachment
	Reach         Reach // of a volume that its backend has
}

// Reach says which machines of its backend can mount a volume, and how many at a time.
type Reach struct {
	AccessModes []string     `json:"access_modes,omitempty"` // as in spec.Volume; empty: not known yet
	IsLimited   bool         `json:"is_limited,omitempty"`   // only Machines can mount it; false: every machine of the backend
	Machines    []InstanceID `json:"machines,omitempty"`
	Place       string       `json:"place,omitempty"` // what Machines have in common, for the user: k1; zone eu-1a
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

// VolumeAttachment is a volume on a machine. The database has at most one for each volume, from before the backend is asked
// to attach it until the backend confirmed that it is detached.
type VolumeAttachment struct {
	Instance InstanceID
	Device   string // name of the device there, such as /dev/sdf; empty: not known yet
	IsReady  bool   // it is mounted on the machine
}

// MountPoint returns the folder where the disk of a cloud's volume is mounted on the machine that it is attached to. It is
// gone when the machine has booted again: a replica never starts with an empty folder in place of its data.
func (v Volume) MountPoint() string { return "/run/dstack/volumes/" + string(v.ID) }

// IsAttachedTo reports whether the volume is attached to an instance.
func (v Volume) IsAttachedTo(id InstanceID) bool {
	for _, a := range v.Attachments {
		if a.Instance == id {
			return true
		}
	}
	return false
}
