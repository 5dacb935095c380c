package backendtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"dstack/internal/dstack"
)

// AddDisk adds a disk that the user created, for external volumes.
func (f *Fake) AddDisk(externalID string, sizeMiB int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disks[externalID] = sizeMiB
}

// HasDisk reports whether a disk that the user created still exists.
func (f *Fake) HasDisk(externalID string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.disks[externalID]
	return ok
}

// CreateVolume creates a volume, or checks an external one.
func (f *Fake) CreateVolume(_ context.Context, v dstack.Volume) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults.Create != nil || f.volumes[v.ID] != nil {
		return f.faults.Create
	}
	if v.IsExternal {
		size, ok := f.disks[v.ExternalID]
		if !ok {
			return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no disk %q", v.ExternalID)}
		}
		v.SizeMiB = size
	} else {
		v.ExternalID = "disk-" + string(v.ID)
	}
	v.Status, v.CreatedAt, v.Attachments = dstack.VolumeProvisioning, time.Now(), nil
	f.volumes[v.ID] = &v
	return nil
}

// DeleteVolume deletes a volume that is not attached.
func (f *Fake) DeleteVolume(_ context.Context, v dstack.Volume) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeGone()
	if f.faults.Delete != nil || f.faults.IgnoreDeletes {
		return f.faults.Delete
	}
	if known := f.volumes[v.ID]; known != nil && len(known.Attachments) > 0 {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %q is attached", v.Name)}
	}
	delete(f.volumes, v.ID)
	return nil
}

// ListVolumes lists every volume.
func (f *Fake) ListVolumes(context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults.List != nil {
		return nil, f.faults.List
	}
	f.removeGone()
	listed := map[dstack.VolumeID]dstack.Volume{}
	for id, v := range f.volumes {
		described := *v
		described.Status = f.volumeStatus(v)
		described.Attachments = slices.Clone(v.Attachments)
		listed[id] = described
	}
	return listed, nil
}

func (f *Fake) volumeStatus(v *dstack.Volume) dstack.VolumeStatus {
	if time.Since(v.CreatedAt) < f.options.Latency.Running {
		return dstack.VolumeProvisioning
	}
	return dstack.VolumeActive
}

// AttachVolume attaches an active volume to a running machine. A volume can be
// attached to one machine.
func (f *Fake) AttachVolume(_ context.Context, v dstack.Volume, instance dstack.InstanceID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeGone()
	known := f.volumes[v.ID]
	m := f.machines[instance]
	switch {
	case f.faults.Attach != nil:
		return f.faults.Attach
	case known == nil:
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no volume %q", v.Name)}
	case m == nil && !f.isOwned(instance):
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no machine for the instance %s", instance)}
	case known.IsAttachedTo(instance):
		return nil
	case f.volumeStatus(known) != dstack.VolumeActive:
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %q is not active yet", v.Name)}
	case len(known.Attachments) > 0:
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %q is attached to another machine", v.Name)}
	}
	known.Attachments = []dstack.VolumeAttachment{{Instance: instance, Device: "/dev/fake"}}
	return nil
}

// DetachVolume takes a volume off a machine.
func (f *Fake) DetachVolume(_ context.Context, v dstack.Volume, instance dstack.InstanceID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.volumes[v.ID]; known != nil {
		detach(known, instance)
	}
	return nil
}

func detach(v *dstack.Volume, instance dstack.InstanceID) {
	isThere := func(a dstack.VolumeAttachment) bool { return a.Instance == instance }
	v.Attachments = slices.DeleteFunc(v.Attachments, isThere)
}
