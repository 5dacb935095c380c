package gcp

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	// volumeType is the type of the disks that are made. It fits most machines; those of hyperdiskFamilies refuse it.
	volumeType  = "pd-balanced"
	minDiskGiB  = 10
	pricePerGiB = 0.10 // dollars per month for pd-balanced in us-central1; other regions cost up to half as much again
)

// CreateDisk implements cloud.Disks.
func (p *Provider) CreateDisk(ctx context.Context, d cloud.Disk) (cloud.Disk, error) {
	if d.IsExternal {
		return p.findExternal(ctx, d)
	}
	name := p.diskName(d.Volume)
	what := "make the disk " + name
	found, err := p.findDisks(ctx, name)
	if err != nil {
		return d, p.describeError(err, nil)
	}
	for _, one := range found {
		if p.isOwn(one.Labels) {
			return p.newDisk(one), nil
		}
	}
	zone, err := p.chooseZone(ctx, d)
	if err != nil {
		return d, err
	}
	at := p.zonePlace(zone)
	labels := p.labelsOf(nil, labelVolume, string(d.Volume))
	labels[labelRole] = roleVolume
	body := disk{Name: name, Description: "a volume of dstack", SizeGB: formatGiB(max(d.SizeMiB, minDiskGiB<<10)), Type: "zones/" + zone + "/diskTypes/" + volumeType, Labels: labels}
	o, err := p.change(ctx, call{method: http.MethodPost, url: p.client.compute + string(at) + "/disks", body: body, what: what}, at)
	if err != nil && !hasMeaning(err, meansExists) {
		return d, p.describeError(err, &place{Type: volumeType, Zone: zone, Region: d.Region})
	}
	made, err := read[disk](ctx, p, p.settings.ProjectID, "zones/"+zone+"/disks/"+name, diskFields, what)
	if hasMeaning(err, meansNotFound) && !o.isDone() {
		d.Ref, d.Zone, d.State, d.Device = name, zone, cloud.DiskCreating, deviceOf(name)
		return d, nil
	}
	if err != nil {
		return d, p.describeError(err, nil)
	}
	if !p.isOwn(made.Labels) {
		return d, &dstack.Error{Kind: dstack.Conflict, Message: "another disk has the name " + name}
	}
	return p.newDisk(made), nil
}

// chooseZone returns the zone in which a disk is made: the wanted one, or the first of the region. The region and the zone are
// what a user wrote, and become parts of URLs.
func (p *Provider) chooseZone(ctx context.Context, d cloud.Disk) (string, error) {
	all, err := p.zones.get(ctx, p.readZones)
	if err != nil {
		return "", p.describeError(err, nil)
	}
	zones := all[d.Region]
	switch {
	case len(zones) == 0:
		return "", &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("GCP has no region %.60q", d.Region), Hint: "write a region such as us-central1"}
	case d.Zone == "":
		return zones[0], nil
	case !slices.Contains(zones, d.Zone):
		return "", &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the region %s of GCP has no zone %.60q", d.Region, d.Zone),
			Hint: "its zones are: " + strings.Join(zones, ", ")}
	}
	return d.Zone, nil
}

// findDisks looks for disks with a name in all zones.
func (p *Provider) findDisks(ctx context.Context, name string) ([]disk, error) {
	found, err := listEverywhere[disk](ctx, p, p.settings.ProjectID, "disks", "name = "+quoteFilter(name), diskFields, "find the disk "+name)
	return slices.DeleteFunc(found, func(d disk) bool { return d.Name != name }), err
}

// findExternal looks for a disk that the user made.
func (p *Provider) findExternal(ctx context.Context, d cloud.Disk) (cloud.Disk, error) {
	found, err := p.matchExternal(ctx, []cloud.Disk{d}, true)
	if err != nil {
		return d, err
	}
	if len(found) == 0 {
		where := d.Zone
		if where == "" {
			where = d.Region
		}
		return d, &dstack.Error{Kind: dstack.NotFound, Message: "there is no disk " + d.Ref + " in " + where + " of the project " + p.settings.ProjectID,
			Hint: "list the disks: gcloud compute disks list --project " + p.settings.ProjectID}
	}
	return found[0], nil
}

// newMarkedDiskError refuses a disk that an installation of dstack made: it belongs to a volume of somebody else, or is left
// over and would be deleted.
func newMarkedDiskError(d disk) error {
	labels := strings.Join([]string{labelInstallation, labelVolume, labelRole}, ",")
	return &dstack.Error{Kind: dstack.Conflict, Message: "dstack made the disk " + d.Name + " and may delete it: its labels say so",
		Hint: fmt.Sprintf("if nothing uses it any more, remove them: gcloud compute disks remove-labels %s --zone %s --labels %s", d.Name, lastPart(d.Zone), labels)}
}

// matchExternal returns those of the user's disks that exist. isNew: they are not volumes yet.
func (p *Provider) matchExternal(ctx context.Context, wanted []cloud.Disk, isNew bool) ([]cloud.Disk, error) {
	var disks []cloud.Disk
	for _, d := range wanted {
		if !objectName.MatchString(d.Ref) {
			return nil, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is not the name of a disk", d.Ref), Hint: "write the name that gcloud compute disks list shows"}
		}
		found, err := p.findDisks(ctx, d.Ref)
		if err != nil {
			return nil, p.describeError(err, nil)
		}
		found = slices.DeleteFunc(found, func(one disk) bool {
			zone := lastPart(one.Zone)
			return d.Zone != "" && zone != d.Zone || d.Region != "" && regionOf(zone) != d.Region
		})
		if len(found) > 1 {
			return nil, &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("%s has %d disks with the name %s", d.Region, len(found), d.Ref), Hint: "add availability_zone: " + lastPart(found[0].Zone)}
		}
		for _, one := range found {
			if isNew && one.Labels[labelInstallation] != "" {
				return nil, newMarkedDiskError(one)
			}
			made := p.newDisk(one)
			made.IsExternal, made.Volume = true, d.Volume
			disks = append(disks, made)
		}
	}
	return disks, nil
}

// newDisk returns a disk as the API reports it.
func (p *Provider) newDisk(d disk) cloud.Disk {
	zone := lastPart(d.Zone)
	size, _ := strconv.ParseInt(d.SizeGB, 10, 64)
	made := cloud.Disk{Volume: dstack.VolumeID(d.Labels[labelVolume]), Ref: d.Name, Region: regionOf(zone), Zone: zone, SizeMiB: size << 10, Device: deviceOf(d.Name)}
	if lastPart(d.Type) == volumeType {
		made.Price = float64(size) * pricePerGiB
	}
	for _, user := range d.Users {
		made.Attached = append(made.Attached, cloud.DiskMachine{Ref: lastPart(user), IsReady: true})
	}
	switch d.Status {
	case "CREATING", "RESTORING":
		made.State = cloud.DiskCreating
	case "DELETING":
		made.State = cloud.DiskDeleting
	case "FAILED":
		made.State, made.Reason = cloud.DiskFailed, "GCP could not make the disk"
	case "UNAVAILABLE":
		made.State, made.Reason = cloud.DiskFailed, "the disk is not available"
	default:
		made.State = cloud.DiskReady
		if len(d.Users) > 0 {
			made.State = cloud.DiskInUse
		}
	}
	return made
}

// deviceOf returns how a machine finds a disk: the name of the device is the disk's own.
func deviceOf(name string) cloud.DeviceSelector { return cloud.DeviceSelector{ByID: "google-" + name} }

// DeleteDisk implements cloud.Disks.
func (p *Provider) DeleteDisk(ctx context.Context, d cloud.Disk) error {
	if d.IsExternal || d.Ref == "" {
		return nil
	}
	zone := d.Zone
	if zone == "" {
		found, err := p.findDisks(ctx, d.Ref)
		if err != nil || len(found) == 0 {
			return p.describeError(err, nil)
		}
		zone = lastPart(found[0].Zone)
	}
	return p.deleteDisk(ctx, zone, d.Ref)
}

// deleteDisk requests the deletion of a disk of the installation.
func (p *Provider) deleteDisk(ctx context.Context, zone, name string) error {
	what, at := "delete the disk "+name, p.zonePlace(zone)
	found, err := read[disk](ctx, p, p.settings.ProjectID, "zones/"+zone+"/disks/"+name, diskFields, what)
	switch {
	case hasMeaning(err, meansNotFound):
		return nil
	case err != nil:
		return p.describeError(err, nil)
	case !p.isOwn(found.Labels):
		return &dstack.Error{Kind: dstack.Forbidden, Message: "the disk " + name + " does not belong to this installation"}
	case len(found.Users) > 0:
		return &dstack.Error{Kind: dstack.Conflict, Message: "the disk " + name + " is attached to " + lastPart(found.Users[0])}
	}
	_, err = p.change(ctx, call{method: http.MethodDelete, url: p.client.compute + string(at) + "/disks/" + name, what: what}, at)
	if hasMeaning(err, meansNotFound) {
		return nil
	}
	return p.describeError(err, nil)
}

// ListDisks implements cloud.Disks.
func (p *Provider) ListDisks(ctx context.Context, external []cloud.Disk) ([]cloud.Disk, error) {
	found, err := listEverywhere[disk](ctx, p, p.settings.ProjectID, "disks", p.ownFilter(), diskFields, "list the disks of "+p.settings.ProjectID)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	var disks []cloud.Disk
	for _, d := range found {
		if p.isOwn(d.Labels) && d.Labels[labelRole] == roleVolume {
			disks = append(disks, p.newDisk(d))
		}
	}
	others, err := p.matchExternal(ctx, external, false)
	return append(disks, others...), err
}

// AttachDisk implements cloud.Disks.
func (p *Provider) AttachDisk(ctx context.Context, d cloud.Disk, m cloud.Machine) error {
	if d.Zone != m.Zone {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the disk %s is in %s, and the machine %s in %s", d.Ref, d.Zone, m.Ref, m.Zone)}
	}
	what := "attach the disk " + d.Ref + " to " + m.Ref
	found, err := read[disk](ctx, p, p.settings.ProjectID, "zones/"+d.Zone+"/disks/"+d.Ref, diskFields, what)
	if err != nil {
		return p.describeError(err, nil)
	}
	switch {
	case isUsedBy(found, m):
		return nil
	case len(found.Users) > 0:
		return &dstack.Error{Kind: dstack.Conflict, Message: "the disk " + d.Ref + " is attached to " + lastPart(found.Users[0])}
	}
	at := p.zonePlace(m.Zone)
	body := attachedDisk{Source: string(at) + "/disks/" + d.Ref, DeviceName: d.Ref, Mode: "READ_WRITE"}
	_, err = p.change(ctx, call{method: http.MethodPost, url: p.client.compute + string(at) + "/instances/" + m.Ref + "/attachDisk", body: body, what: what}, at)
	if !hasMeaning(err, meansInUse) {
		return p.describeError(err, nil)
	}
	// Another request was faster, perhaps an earlier one of the same.
	now, readErr := read[disk](ctx, p, p.settings.ProjectID, "zones/"+d.Zone+"/disks/"+d.Ref, diskFields, what)
	switch {
	case readErr == nil && isUsedBy(now, m):
		return nil
	case readErr == nil && len(now.Users) == 0:
		return &dstack.Error{Kind: dstack.Unavailable, Message: "cannot " + what + ": GCP is attaching it", Cause: err, Hint: "dstack tries again"}
	}
	return p.describeError(err, nil)
}

func isUsedBy(d disk, m cloud.Machine) bool {
	return slices.ContainsFunc(d.Users, func(user string) bool { return lastPart(user) == m.Ref })
}

// DetachDisk implements cloud.Disks.
func (p *Provider) DetachDisk(ctx context.Context, d cloud.Disk, m cloud.Machine) error {
	what := "detach the disk " + d.Ref + " from " + m.Ref
	found, err := read[instance](ctx, p, p.settings.ProjectID, "zones/"+m.Zone+"/instances/"+m.Ref, "disks(source,deviceName)", what)
	if hasMeaning(err, meansNotFound) {
		return nil
	}
	if err != nil {
		return p.describeError(err, nil)
	}
	for _, attached := range found.Disks {
		if lastPart(attached.Source) != d.Ref {
			continue
		}
		at := p.zonePlace(m.Zone)
		_, err := p.change(ctx, call{method: http.MethodPost, url: p.client.compute + string(at) + "/instances/" + m.Ref + "/detachDisk",
			query: url.Values{"deviceName": {attached.DeviceName}}, what: what}, at)
		if hasMeaning(err, meansNotFound) {
			return nil
		}
		return p.describeError(err, nil)
	}
	return nil
}
