package cloud

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dstack/internal/backend"
	"dstack/internal/cloud"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

var (
	_ backend.Volumes        = (*Backend)(nil)
	_ backend.VolumeAttacher = (*Backend)(nil)
	_ backend.Regional       = (*Backend)(nil)
)

const (
	diskTimeout       = 20 * time.Second // of one call about disks
	diskListingAge    = 10 * time.Second // how old a listing may be for a volume that just exists
	defaultAttachPoll = time.Second      // how often a disk is looked at that is being attached or detached
	maxAttachWait     = 15 * time.Second // how long a call waits for that; a repeated call goes on
)

// diskListing is the latest listing of disks, and the disks of the user that are volumes.
type diskListing struct {
	mu       sync.Mutex
	external map[dstack.VolumeID]cloud.Disk
	disks    []cloud.Disk
	begunAt  time.Time // of disks; zero: something has changed since
}

// findDisks returns the disks of the provider.
func (b *Backend) findDisks() (cloud.Disks, error) {
	disks, ok := b.Provider.(cloud.Disks)
	if !ok {
		return nil, &dstack.Error{Kind: dstack.Unsupported, Message: "the cloud " + b.Key + " has no disks that can be volumes"}
	}
	return disks, nil
}

// newDisk returns the disk of a volume.
func newDisk(v dstack.Volume) cloud.Disk {
	return cloud.Disk{Volume: v.ID, Ref: v.ExternalID, IsExternal: v.IsExternal, Region: v.Region, Zone: v.Zone, SizeMiB: v.SizeMiB}
}

// CreateVolume requests a disk, or looks for an existing one.
func (b *Backend) CreateVolume(ctx context.Context, v dstack.Volume) error {
	disks, err := b.findDisks()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	defer b.disks.forget()
	if !v.IsExternal {
		_, err = disks.CreateDisk(ctx, newDisk(v))
		return err
	}
	wanted := newDisk(v)
	wanted.Volume = ""
	found, err := disks.CreateDisk(ctx, wanted)
	if err != nil {
		return err
	}
	b.disks.addExternal(v.ID, found)
	return nil
}

// DeleteVolume requests the deletion of a disk that CreateVolume made.
func (b *Backend) DeleteVolume(ctx context.Context, v dstack.Volume) error {
	disks, err := b.findDisks()
	if err != nil {
		return err
	}
	if v.IsExternal {
		b.disks.removeExternal(v.ID)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	found, err := b.findDisk(ctx, v)
	if dstack.KindOf(err) == dstack.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.disks.forget()
	return disks.DeleteDisk(ctx, found)
}

// ListVolumes returns the disks of the installation, and those of the user that are volumes.
func (b *Backend) ListVolumes(ctx context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	listed, err := b.listDisks(ctx, b.busyListingAge)
	if err != nil {
		return nil, err
	}
	machines, err := b.listings.get(ctx, b.calmListingAge, time.Time{})
	if err != nil {
		return nil, err
	}
	instances := map[string]dstack.InstanceID{}
	for _, m := range machines.machines {
		instances[m.Ref] = m.Instance
	}
	volumes := map[dstack.VolumeID]dstack.Volume{}
	for id, d := range listed {
		volumes[id] = describeDisk(id, d, instances)
	}
	return volumes, nil
}

// describeDisk returns the volume that a disk is.
func describeDisk(id dstack.VolumeID, d cloud.Disk, instances map[string]dstack.InstanceID) dstack.Volume {
	v := dstack.Volume{ID: id, Region: d.Region, Zone: d.Zone, SizeMiB: d.SizeMiB, ExternalID: d.Ref, IsExternal: d.IsExternal,
		Price: d.Price, Status: dstack.VolumeActive}
	switch d.State {
	case cloud.DiskCreating:
		v.Status, v.Reason = dstack.VolumeProvisioning, "its cloud makes the disk"
	case cloud.DiskDeleting:
		v.Status, v.Reason = dstack.VolumeFailed, "its disk is being deleted, and not by dstack"
	case cloud.DiskFailed:
		v.Status, v.Reason = dstack.VolumeFailed, dstack.Reason("its disk has failed: "+d.Reason)
	case cloud.DiskReady, cloud.DiskInUse:
	}
	for _, m := range d.Attached {
		v.Attachments = append(v.Attachments, dstack.VolumeAttachment{Instance: instances[m.Ref], IsReady: m.IsReady})
	}
	return v
}

// AttachVolume attaches a disk to a machine, and mounts it there.
func (b *Backend) AttachVolume(ctx context.Context, v dstack.Volume, id dstack.InstanceID) error {
	disks, err := b.findDisks()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxAttachWait+diskTimeout)
	defer cancel()
	if v.IsExternal {
		b.disks.addExternal(v.ID, newDisk(v))
	}
	machine, err := b.findMachine(ctx, id)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(maxAttachWait); ; {
		found, isReady, err := b.stepAttachment(ctx, disks, v, machine)
		if err != nil {
			return err
		}
		if isReady {
			return b.mountDisk(ctx, v, found, id)
		}
		if time.Now().After(deadline) {
			return &dstack.Error{Kind: dstack.Unavailable, Message: "its cloud is attaching the disk"}
		}
		if err := loop.Sleep(ctx, b.attachPoll); err != nil {
			return err
		}
	}
}

// stepAttachment requests the attachment of a disk, unless that was done, and reports whether it is complete.
func (b *Backend) stepAttachment(ctx context.Context, disks cloud.Disks, v dstack.Volume, m cloud.Machine) (d cloud.Disk, isReady bool, err error) {
	if d, err = b.findDisk(ctx, v); err != nil {
		return d, false, err
	}
	if err := checkAttachable(v, d, m); err != nil {
		return d, false, err
	}
	if len(d.Attached) > 0 {
		at := d.Attached[0]
		if at.Ref == m.Ref {
			return d, at.IsReady, nil
		}
		return d, false, b.takeFromEnded(ctx, disks, d, at.Ref)
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	return d, false, disks.AttachDisk(ctx, d, m)
}

// checkAttachable returns an error if a disk cannot be attached to a machine now, or ever.
func checkAttachable(v dstack.Volume, d cloud.Disk, m cloud.Machine) error {
	switch {
	case d.Region != m.Region || d.Zone != m.Zone:
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the disk of the volume %s is in %s, and the machine in %s", v.Name, d.Zone, m.Zone),
			Hint: "a disk can only be attached in its own zone"}
	case d.State == cloud.DiskReady || d.State == cloud.DiskInUse:
		return nil
	case d.State == cloud.DiskCreating:
		return &dstack.Error{Kind: dstack.Conflict, Message: "its cloud is making the disk"}
	}
	return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the disk of the volume %s is %s: %s", v.Name, d.State, d.Reason)}
}

// takeFromEnded takes a disk off another machine, if that has ended: nothing on it can write to the disk any more.
func (b *Backend) takeFromEnded(ctx context.Context, disks cloud.Disks, d cloud.Disk, ref string) error {
	got, err := b.listings.get(ctx, 0, time.Now())
	if err != nil {
		return err
	}
	owner := cloud.Machine{Ref: ref, Region: d.Region, Zone: d.Zone, State: cloud.MachineEnded}
	isTheirs := true // it may be the user's own machine, which no listing has
	for _, m := range got.machines {
		if m.Ref == ref {
			owner, isTheirs = m, false
		}
	}
	for _, h := range b.copyHosts() {
		isTheirs = isTheirs && h.Ref != ref
	}
	if isTheirs || owner.State != cloud.MachineEnded {
		return &dstack.Error{Kind: dstack.Conflict, Message: "the disk is attached to another machine: " + ref}
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	return disks.DetachDisk(ctx, d, owner)
}

// DetachVolume unmounts a disk and takes it off a machine. A machine that has ended has no disks.
func (b *Backend) DetachVolume(ctx context.Context, v dstack.Volume, id dstack.InstanceID) error {
	disks, err := b.findDisks()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxAttachWait+diskTimeout)
	defer cancel()
	machine, err := b.findMachine(ctx, id)
	if dstack.KindOf(err) == dstack.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(maxAttachWait); ; {
		isOff, err := b.stepDetachment(ctx, disks, v, machine, id)
		if isOff || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return &dstack.Error{Kind: dstack.Unavailable, Message: "its cloud is detaching the disk"}
		}
		if err := loop.Sleep(ctx, b.attachPoll); err != nil {
			return err
		}
	}
}

// stepDetachment requests that a disk is taken off a machine, after it was unmounted, and reports whether it is off.
func (b *Backend) stepDetachment(ctx context.Context, disks cloud.Disks, v dstack.Volume, m cloud.Machine, id dstack.InstanceID) (isOff bool, err error) {
	d, err := b.findDisk(ctx, v)
	if dstack.KindOf(err) == dstack.NotFound {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, at := range d.Attached {
		if at.Ref != m.Ref {
			continue
		}
		if !at.IsReady { // it is on its way off, or was never complete
			break
		}
		if err := b.unmountDisk(ctx, v, d, id); err != nil {
			return false, err
		}
	}
	if len(d.Attached) == 0 || d.Attached[0].Ref != m.Ref {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	return false, disks.DetachDisk(ctx, d, m)
}

// findMachine returns the rented machine of an instance. It fails with NotFound if it does not exist any more.
func (b *Backend) findMachine(ctx context.Context, id dstack.InstanceID) (cloud.Machine, error) {
	if err := b.ensureRead(ctx); err != nil {
		return cloud.Machine{}, err
	}
	got, err := b.listings.get(ctx, b.busyListingAge, time.Time{})
	if err != nil {
		return cloud.Machine{}, err
	}
	host, ok := b.findHost(id)
	if !ok {
		host = dstack.RentedHost{Instance: id}
	}
	if m := chooseMachine(got.machines, host); m != nil && m.State != cloud.MachineEnded {
		return *m, nil
	}
	if m, ok := b.launchedMachine(host, time.Now()); ok {
		return m, nil
	}
	return cloud.Machine{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no machine for the instance %s", id)}
}

// findDisk returns the disk of a volume as its cloud lists it now. It fails with NotFound.
func (b *Backend) findDisk(ctx context.Context, v dstack.Volume) (cloud.Disk, error) {
	if v.IsExternal {
		b.disks.addExternal(v.ID, newDisk(v))
	}
	listed, err := b.listDisks(ctx, 0)
	if err != nil {
		return cloud.Disk{}, err
	}
	d, ok := listed[v.ID]
	if !ok {
		return d, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no disk for the volume %s", v.Name)}
	}
	return d, nil
}

// listDisks returns the disks that are volumes, from a listing that is at most maxAge old.
func (b *Backend) listDisks(ctx context.Context, maxAge time.Duration) (map[dstack.VolumeID]cloud.Disk, error) {
	disks, err := b.findDisks()
	if err != nil {
		return nil, err
	}
	listed, external, isNew := b.disks.get(maxAge)
	if !isNew {
		ctx, cancel := context.WithTimeout(ctx, diskTimeout)
		defer cancel()
		asked := make([]cloud.Disk, 0, len(external))
		for _, d := range external {
			asked = append(asked, d)
		}
		begun := time.Now()
		if listed, err = disks.ListDisks(ctx, asked); err != nil {
			return nil, err
		}
		b.disks.keep(listed, begun)
	}
	found := map[dstack.VolumeID]cloud.Disk{}
	for _, d := range listed {
		if !d.IsExternal && d.Volume != "" {
			found[d.Volume] = d
		}
		for id, e := range external {
			if e.Ref == d.Ref && e.Region == d.Region {
				d.IsExternal = true
				found[id] = d
			}
		}
	}
	return found, nil
}

func (l *diskListing) get(maxAge time.Duration) (disks []cloud.Disk, external map[dstack.VolumeID]cloud.Disk, isNew bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	external = make(map[dstack.VolumeID]cloud.Disk, len(l.external))
	for id, d := range l.external {
		external[id] = d
	}
	return l.disks, external, maxAge > 0 && time.Since(l.begunAt) <= maxAge
}

func (l *diskListing) keep(disks []cloud.Disk, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disks, l.begunAt = disks, begun
}

// forget makes the next caller ask the cloud again.
func (l *diskListing) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begunAt = time.Time{}
}

func (l *diskListing) addExternal(id dstack.VolumeID, d cloud.Disk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.external == nil {
		l.external = map[dstack.VolumeID]cloud.Disk{}
	}
	if _, ok := l.external[id]; !ok {
		l.external[id], l.begunAt = cloud.Disk{Ref: d.Ref, IsExternal: true, Region: d.Region, Zone: d.Zone}, time.Time{}
	}
}

func (l *diskListing) removeExternal(id dstack.VolumeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.external, id)
	l.begunAt = time.Time{}
}
