package engine

import (
	"context"
	"fmt"

	"dstack/internal/dstack"
)

// Volumes is implemented by engines that keep volumes on their machine; ask with a type assertion on an Engine. The rules
// of Engine for goroutines, repeated calls and time apply. A volume is identified by Volume.ID, with which the engine
// marks what it creates. Errors are of the kinds of dstack.Error; any kind other than Invalid, NotFound, Conflict and
// Unsupported may end by itself.
type Volumes interface {
	// CreateVolume creates a volume and returns it with ExternalID, SizeMiB (0: the size is not enforced) and Warning. It
	// does nothing if a volume with the same ID exists. For an external volume it only checks that the path
	// Volume.ExternalID exists on the machine, and never creates it: NotFound if there is none.
	CreateVolume(ctx context.Context, v dstack.Volume) (dstack.Volume, error)

	// DeleteVolume deletes a volume and its data. It fails with Conflict while an attempt mounts it. It is no error if the
	// volume does not exist. An external volume is left as it is.
	DeleteVolume(ctx context.Context, v dstack.Volume) error

	// ListVolumes returns every volume that the engine created for its installation, with ID, Name, ExternalID and SizeMiB.
	// Absence means that the volume and its data do not exist any more. External volumes are not listed.
	ListVolumes(ctx context.Context) (map[dstack.VolumeID]dstack.Volume, error)
}

// NewMissingVolumeError returns the error for an attempt whose volume is not on the machine. Its data may be lost, so the
// attempt must not start with an empty volume in its place.
func NewMissingVolumeError(m dstack.Mount) error {
	return &dstack.Error{Kind: dstack.NotFound,
		Message: fmt.Sprintf("the volume %s, which is to be mounted at %s, does not exist on the machine any more", m.Source, m.Target),
		Hint:    "delete the volume and apply its configuration again, which begins without data"}
}
