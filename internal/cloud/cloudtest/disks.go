package cloudtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

type disk struct {
	cloud.Disk
	installation dstack.Installation // empty: the user made it
	attachedTo   string              // Ref of a machine; empty: none
	since        time.Time           // of the attachment, or of its end
	isLeaving    bool
}

// object is something of an installation that is neither a machine nor a disk.
type object struct {
	cloud.Leftover
	installation dstack.Installation
}

// AddDisk makes a disk as the user does, and returns its Ref.
func (a *Account) AddDisk(region, zone string, sizeMiB int64) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addDisk("", cloud.Disk{Region: region, Zone: zone, SizeMiB: sizeMiB, IsExternal: true}).Ref
}

// LeakDisk makes a disk of an installation that no call of a test made: a leftover.
func (a *Account) LeakDisk(installation dstack.Installation, v dstack.VolumeID, region, zone string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addDisk(installation, cloud.Disk{Volume: v, Region: region, Zone: zone, SizeMiB: 1 << 10}).Ref
}

// DiskRefs returns the disks that exist, of all installations and of the user.
func (a *Account) DiskRefs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.disks))
}

// LeakObject makes another object of an installation, such as a key or an address, that no machine uses.
func (a *Account) LeakObject(installation dstack.Installation, l cloud.Leftover) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[l.Ref] = &object{Leftover: l, installation: installation}
}

// Objects returns the identifiers of the other objects that exist.
func (a *Account) Objects() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.objects))
}

func (a *Account) addDisk(installation dstack.Installation, d cloud.Disk) *disk {
	a.made++
	d.Ref = fmt.Sprintf("d-%06d", a.made)
	if zones := a.options.Zones[d.Region]; d.Zone == "" && len(zones) > 0 {
		d.Zone = zones[0]
	}
	d.State, d.Price, d.Device = cloud.DiskReady, float64(d.SizeMiB)/1024*0.08, cloud.DeviceSelector{Serial: "d" + fmt.Sprintf("%06d", a.made)}
	known := &disk{Disk: d, installation: installation}
	a.disks[d.Ref] = known
	return known
}

// CreateDisk makes a disk, unless the volume has one. It looks for external disks.
func (p *Provider) CreateDisk(ctx context.Context, d cloud.Disk) (cloud.Disk, error) {
	a := p.account
	if err := a.enter(ctx, "CreateDisk"); err != nil {
		return cloud.Disk{}, err
	}
	defer a.mu.Unlock()
	a.advanceDisks(a.options.Now())
	if d.IsExternal {
		known := a.disks[d.Ref]
		if known == nil || known.Region != d.Region {
			return cloud.Disk{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no disk " + d.Ref + " in " + d.Region}
		}
		return known.show(), nil
	}
	for _, known := range a.disks {
		if known.installation == p.installation && known.Volume == d.Volume {
			return known.show(), nil
		}
	}
	zones, isKnown := a.options.Zones[d.Region]
	if !isKnown || d.Zone != "" && !slices.Contains(zones, d.Zone) || d.SizeMiB <= 0 || d.Volume == "" {
		return cloud.Disk{}, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("a disk of %d MiB in %s %s is not possible", d.SizeMiB, d.Region, d.Zone)}
	}
	return a.addDisk(p.installation, d).show(), nil
}

// DeleteDisk deletes a disk of the installation.
func (p *Provider) DeleteDisk(ctx context.Context, d cloud.Disk) error {
	a := p.account
	if err := a.enter(ctx, "DeleteDisk"); err != nil {
		return err
	}
	defer a.mu.Unlock()
	a.advanceDisks(a.options.Now())
	known := a.disks[d.Ref]
	if known == nil || known.installation != p.installation || d.IsExternal {
		return nil
	}
	if known.attachedTo != "" {
		return newConflictError("the disk is attached to " + known.attachedTo)
	}
	delete(a.disks, d.Ref)
	return nil
}

// ListDisks returns the disks of the installation, and those of the user that are asked for.
func (p *Provider) ListDisks(ctx context.Context, external []cloud.Disk) ([]cloud.Disk, error) {
	a := p.account
	if err := a.enter(ctx, "ListDisks"); err != nil {
		return nil, err
	}
	defer a.mu.Unlock()
	if err := a.checkRegions(); err != nil {
		return nil, err
	}
	a.advance()
	var list []cloud.Disk
	for _, ref := range slices.Sorted(maps.Keys(a.disks)) {
		known := a.disks[ref]
		isAsked := slices.ContainsFunc(external, func(d cloud.Disk) bool { return d.Ref == ref && d.Region == known.Region })
		if known.installation == p.installation || isAsked {
			list = append(list, known.show())
		}
	}
	return list, nil
}

// AttachDisk attaches a disk to a machine of its zone.
func (p *Provider) AttachDisk(ctx context.Context, d cloud.Disk, m cloud.Machine) error {
	a := p.account
	if err := a.enter(ctx, "AttachDisk"); err != nil {
		return err
	}
	a.advance()
	known, target := a.disks[d.Ref], a.machines[m.Ref]
	err := a.checkAttachment(known, target)
	isNew := err == nil && known.attachedTo == ""
	if isNew {
		known.attachedTo, known.since, known.isLeaving = m.Ref, a.options.Now(), false
	}
	a.mu.Unlock()
	if isNew && a.options.OnAttach != nil {
		return a.options.OnAttach(known.Disk, target.Machine)
	}
	return err
}

func (a *Account) checkAttachment(d *disk, m *machine) error {
	switch {
	case d == nil:
		return &dstack.Error{Kind: dstack.NotFound, Message: "there is no such disk"}
	case m == nil || m.State == cloud.MachineEnded:
		return &dstack.Error{Kind: dstack.NotFound, Message: "there is no such machine"}
	case d.Zone != m.Zone:
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the disk is in %s, the machine in %s", d.Zone, m.Zone)}
	case d.attachedTo != "" && (d.attachedTo != m.Ref || d.isLeaving):
		return newConflictError("the disk is attached to " + d.attachedTo)
	}
	return nil
}

// DetachDisk takes a disk off a machine.
func (p *Provider) DetachDisk(ctx context.Context, d cloud.Disk, m cloud.Machine) error {
	a := p.account
	if err := a.enter(ctx, "DetachDisk"); err != nil {
		return err
	}
	defer a.mu.Unlock()
	a.advanceDisks(a.options.Now())
	if known := a.disks[d.Ref]; known != nil && known.attachedTo == m.Ref && !known.isLeaving {
		known.isLeaving, known.since = true, a.options.Now()
		a.advanceDisks(a.options.Now())
	}
	return nil
}

func (a *Account) advanceDisks(now time.Time) {
	for _, d := range a.disks {
		if d.isLeaving && now.Sub(d.since) >= a.options.Latency.Attached {
			d.attachedTo, d.isLeaving = "", false
		}
		d.State, d.Attached = cloud.DiskReady, nil
		if d.attachedTo != "" {
			isReady := !d.isLeaving && now.Sub(d.since) >= a.options.Latency.Attached
			d.State, d.Attached = cloud.DiskInUse, []cloud.DiskMachine{{Ref: d.attachedTo, IsReady: isReady}}
		}
	}
}

// releaseDisks takes the disks off a machine that has ended.
func (a *Account) releaseDisks(ref string) {
	for _, d := range a.disks {
		if d.attachedTo == ref {
			d.attachedTo, d.isLeaving = "", false
		}
	}
}

func (d *disk) show() cloud.Disk {
	shown := d.Disk
	shown.IsExternal = d.installation == ""
	shown.Attached = slices.Clone(d.Attached)
	return shown
}

// ListLeftovers returns the other objects of the installation.
func (p *Provider) ListLeftovers(ctx context.Context) ([]cloud.Leftover, error) {
	a := p.account
	if err := a.enter(ctx, "ListLeftovers"); err != nil {
		return nil, err
	}
	defer a.mu.Unlock()
	var list []cloud.Leftover
	for _, ref := range slices.Sorted(maps.Keys(a.objects)) {
		if a.objects[ref].installation == p.installation {
			list = append(list, a.objects[ref].Leftover)
		}
	}
	return list, nil
}

// DeleteLeftover deletes an object of the installation.
func (p *Provider) DeleteLeftover(ctx context.Context, l cloud.Leftover) error {
	a := p.account
	if err := a.enter(ctx, "DeleteLeftover"); err != nil {
		return err
	}
	defer a.mu.Unlock()
	if known := a.objects[l.Ref]; known != nil && known.installation == p.installation {
		delete(a.objects, l.Ref)
	}
	return nil
}
