package backend

import (
	"context"

	"dstack/internal/dstack"
)

// Volumes is implemented by backends that have volumes; ask with a type
// assertion on a Backend. The rules of Backend for goroutines, repeated calls,
// time and kinds of errors apply. A volume is identified by Volume.ID: a
// backend marks what it creates with it. A volume that the user created is
// identified by Volume.ExternalID, and IsExternal is set.
type Volumes interface {
	// CreateVolume requests a volume and returns at once; ListVolumes reports the
	// progress. It does nothing if a volume with the same ID exists. For an
	// external volume it only checks that the volume can be used: NotFound if
	// there is none. NoCapacity means that a quota is used up.
	CreateVolume(ctx context.Context, v dstack.Volume) error

	// DeleteVolume requests the deletion of a volume and its data, and returns at
	// once. It fails with Conflict while the volume is attached. It is no error
	// if the volume does not exist. An external volume is left as it is.
	DeleteVolume(ctx context.Context, v dstack.Volume) error

	// ListVolumes returns every volume that the backend created, including
	// volumes that nothing else is known of, so that leaks are found, and the
	// external ones that CreateVolume has checked since the backend was opened.
	// ID, Region, SizeMiB, ExternalID, IsExternal, Zone, Price, Status, Reason,
	// Warning, Attachments and Reach are set. Absence means that the volume no
	// longer exists. A listing that is incomplete is an error. The caller does not
	// change the map.
	ListVolumes(ctx context.Context) (map[dstack.VolumeID]dstack.Volume, error)
}

// VolumeAttacher is implemented by backends whose volumes have to be attached to
// a machine before its replicas can mount them; ask with a type assertion on a
// Backend. A cluster attaches a volume itself when a pod mounts it. The rules of
// Volumes apply.
type VolumeAttacher interface {
	// AttachVolume attaches a volume to the machine of an instance, and returns
	// when the machine can use it. It does nothing if that is so already. It fails
	// with NotFound if the volume or the machine does not exist, and with Conflict
	// if the volume is not active, or attached to another machine and the backend
	// allows only one.
	AttachVolume(ctx context.Context, v dstack.Volume, instance dstack.InstanceID) error

	// DetachVolume takes a volume off the machine of an instance. It is no error
	// if it is not attached there, or either does not exist. Deleting a machine
	// detaches its volumes.
	DetachVolume(ctx context.Context, v dstack.Volume, instance dstack.InstanceID) error
}

// Regional is implemented by backends of clouds; ask with a type assertion on a Backend.
type Regional interface {
	// ListRegions returns the regions that the configuration lets the backend use; empty: not known. It asks nobody.
	ListRegions() []string
}
