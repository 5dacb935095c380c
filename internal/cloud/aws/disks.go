package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	maxExternal      = 200 // disks of one request
	pricePerGiB      = 0.08
	pricePerIOPS     = 0.005
	freeIOPS         = 3000
	volumesPerPage   = 500
	firstDeviceLabel = 'f' // /dev/sdf to /dev/sdp are for disks beside that of the system
	lastDeviceLabel  = 'p'
)

var volumeRef = regexp.MustCompile(`^vol-[0-9a-f]{8,17}$`)

// CreateDisk implements cloud.Disks.
func (p *Provider) CreateDisk(ctx context.Context, d cloud.Disk) (cloud.Disk, error) {
	if d.IsExternal {
		return p.findExternal(ctx, d)
	}
	found, err := p.describeVolumes(ctx, d.Region, &ec2.DescribeVolumesInput{
		Filters: []filter{p.ownFilter(), textFilter("tag:"+tagVolume, string(d.Volume))}})
	if err != nil {
		return cloud.Disk{}, err
	}
	for _, volume := range found {
		if p.isOwn(volume.Tags) && tagOf(volume.Tags, tagVolume) == string(d.Volume) &&
			volume.State != types.VolumeStateDeleting && volume.State != types.VolumeStateDeleted {
			return readDisk(d.Region, volume), nil
		}
	}
	zone := d.Zone
	if zone == "" {
		n, err := p.findNetwork(ctx, d.Region)
		if err != nil {
			return cloud.Disk{}, err
		}
		zone = n.zones()[0]
	}
	return p.createVolume(ctx, d, zone)
}

func (p *Provider) createVolume(ctx context.Context, d cloud.Disk, zone string) (cloud.Disk, error) {
	sum := sha256.Sum256([]byte(string(p.installation) + "\x00" + string(d.Volume)))
	var made cloud.Disk
	err := p.change(ctx, d.Region, "CreateVolume", func(ctx context.Context, client *ec2.Client) error {
		out, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{
			AvailabilityZone:  sdk.String(zone),
			ClientToken:       sdk.String(hex.EncodeToString(sum[:])),
			Size:              sdk.Int32(int32((d.SizeMiB + mibPerGiB - 1) / mibPerGiB)),
			VolumeType:        types.VolumeTypeGp3,
			TagSpecifications: p.tagsFor(map[string]string{tagVolume: string(d.Volume), "Name": "dstack-volume"}, types.ResourceTypeVolume),
		})
		if err != nil {
			return err
		}
		made = readDisk(d.Region, types.Volume{VolumeId: out.VolumeId, State: out.State, Size: out.Size, Iops: out.Iops,
			AvailabilityZone: out.AvailabilityZone, Tags: out.Tags, VolumeType: out.VolumeType})
		made.Volume = d.Volume
		return nil
	})
	return made, explainVolume(d, zone, err)
}

// explainVolume returns the error of a new disk for the user.
func explainVolume(d cloud.Disk, zone string, err error) error {
	switch {
	case means(err, meansQuota):
		return newFailure(dstack.NoCapacity, err, dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopePlace,
			Message: fmt.Sprintf("aws: the account's quota for disks does not allow another %d GB in %s", d.SizeMiB/mibPerGiB, d.Region)},
			"ask AWS for a higher quota: Service Quotas, Amazon EBS")
	case codeOf(err) == "InvalidZone.NotFound":
		return &dstack.Error{Kind: dstack.NotFound, Message: "aws: there is no zone " + zone + " in " + d.Region,
			Hint: "correct availability_zone of the volume", Cause: err}
	}
	return err
}

// findExternal returns a disk that the user made.
func (p *Provider) findExternal(ctx context.Context, d cloud.Disk) (cloud.Disk, error) {
	missing := &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("aws: there is no disk %s in %s", d.Ref, d.Region),
		Hint: "correct volume_id or region of the volume: aws ec2 describe-volumes --region " + d.Region + " lists the disks"}
	if !volumeRef.MatchString(d.Ref) {
		missing.Message = fmt.Sprintf("aws: %s is not the ID of a disk: one begins with vol-", d.Ref)
		return cloud.Disk{}, missing
	}
	found, err := p.describeVolumes(ctx, d.Region, &ec2.DescribeVolumesInput{VolumeIds: []string{d.Ref}})
	switch {
	case means(err, meansGone) || err == nil && len(found) == 0:
		missing.Cause = err
		return cloud.Disk{}, missing
	case err != nil:
		return cloud.Disk{}, err
	}
	if tagOf(found[0].Tags, tagInstallation) != "" {
		return cloud.Disk{}, newMarkedDiskError(d)
	}
	disk := readDisk(d.Region, found[0])
	disk.IsExternal, disk.Volume = true, ""
	return disk, nil
}

// newMarkedDiskError refuses a disk that an installation of dstack made: it belongs to a volume or machine of somebody else,
// or is left over and would be deleted.
func newMarkedDiskError(d cloud.Disk) error {
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("aws: dstack made the disk %s and may delete it: its tags say so", d.Ref),
		Hint: fmt.Sprintf("if nothing uses it any more, remove them: aws ec2 delete-tags --region %s --resources %s --tags Key=%s Key=%s",
			d.Region, d.Ref, tagInstallation, tagVolume)}
}

// DeleteDisk implements cloud.Disks.
func (p *Provider) DeleteDisk(ctx context.Context, d cloud.Disk) error {
	if d.IsExternal || d.Ref == "" {
		return nil
	}
	err := p.change(ctx, d.Region, "DeleteVolume", func(ctx context.Context, client *ec2.Client) error {
		_, err := client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: sdk.String(d.Ref)})
		return err
	})
	if means(err, meansGone) {
		return nil
	}
	return err
}

// ListDisks implements cloud.Disks. If a region fails, it returns the disks of the others with the error.
func (p *Provider) ListDisks(ctx context.Context, external []cloud.Disk) ([]cloud.Disk, error) {
	own, ownErr := listEverywhere(ctx, p, &p.quietDisks, p.listOwnDisks, func(cloud.Disk) bool { return true })
	byRegion := map[string][]string{}
	for _, d := range external {
		byRegion[d.Region] = append(byRegion[d.Region], d.Ref)
	}
	answers, failures := inRegions(ctx, slices.Sorted(maps.Keys(byRegion)), func(ctx context.Context, region string) ([]cloud.Disk, error) {
		return p.listExternalDisks(ctx, region, byRegion[region])
	})
	return append(own, slices.Concat(answers...)...), errors.Join(ownErr, firstFailure(failures))
}

// listOwnDisks returns the disks of the installation in a region, without those that machines boot from.
func (p *Provider) listOwnDisks(ctx context.Context, region string) ([]cloud.Disk, error) {
	found, err := p.describeVolumes(ctx, region, &ec2.DescribeVolumesInput{
		Filters: []filter{p.ownFilter(), textFilter("tag-key", tagVolume)}, MaxResults: sdk.Int32(volumesPerPage)})
	var disks []cloud.Disk
	for _, volume := range found {
		if p.isOwn(volume.Tags) && tagOf(volume.Tags, tagVolume) != "" && volume.State != types.VolumeStateDeleted {
			disks = append(disks, readDisk(region, volume))
		}
	}
	return disks, err
}

// listExternalDisks returns the disks of a region that exist among those of users. It uses a filter, since a list of IDs
// fails if one of them does not exist.
func (p *Provider) listExternalDisks(ctx context.Context, region string, ids []string) ([]cloud.Disk, error) {
	var disks []cloud.Disk
	for some := range slices.Chunk(ids, maxExternal) {
		found, err := p.describeVolumes(ctx, region, &ec2.DescribeVolumesInput{Filters: []filter{textFilter("volume-id", some...)}})
		if err != nil {
			return nil, err
		}
		for _, volume := range found {
			disk := readDisk(region, volume)
			disk.IsExternal, disk.Volume = true, ""
			disks = append(disks, disk)
		}
	}
	return disks, nil
}

func (p *Provider) describeVolumes(ctx context.Context, region string, in *ec2.DescribeVolumesInput) ([]types.Volume, error) {
	var found []types.Volume
	err := p.readPages(ctx, region, "DescribeVolumes", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		asked := *in
		asked.NextToken = token
		page, err := client.DescribeVolumes(ctx, &asked)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Volumes...)
		return page.NextToken, nil
	})
	return found, err
}

// readDisk returns a disk as EC2 describes it.
func readDisk(region string, v types.Volume) cloud.Disk {
	d := cloud.Disk{
		Volume:  dstack.VolumeID(tagOf(v.Tags, tagVolume)),
		Ref:     sdk.ToString(v.VolumeId),
		Region:  region,
		Zone:    sdk.ToString(v.AvailabilityZone),
		SizeMiB: int64(sdk.ToInt32(v.Size)) * mibPerGiB,
		Device:  cloud.DeviceSelector{Serial: strings.ReplaceAll(sdk.ToString(v.VolumeId), "-", "")},
	}
	if v.VolumeType == types.VolumeTypeGp3 {
		d.Price = float64(sdk.ToInt32(v.Size))*pricePerGiB + float64(max(sdk.ToInt32(v.Iops)-freeIOPS, 0))*pricePerIOPS
	}
	switch v.State {
	case types.VolumeStateCreating, "":
		d.State = cloud.DiskCreating
	case types.VolumeStateAvailable:
		d.State = cloud.DiskReady
	case types.VolumeStateInUse:
		d.State = cloud.DiskInUse
	case types.VolumeStateDeleting, types.VolumeStateDeleted:
		d.State = cloud.DiskDeleting
	default:
		d.State, d.Reason = cloud.DiskFailed, "aws could not make the disk ("+string(v.State)+")"
	}
	for _, a := range v.Attachments {
		if a.State != types.VolumeAttachmentStateDetached {
			d.Attached = append(d.Attached, cloud.DiskMachine{Ref: sdk.ToString(a.InstanceId), IsReady: a.State == types.VolumeAttachmentStateAttached})
		}
	}
	return d
}

// ExplainNoDisks implements cloud.DiskTypes.
func (p *Provider) ExplainNoDisks(instanceType string) string {
	if isNitro(instanceType) {
		return ""
	}
	return fmt.Sprintf("volumes cannot be used on %s: its machines do not show which disk is which", instanceType)
}

// AttachDisk implements cloud.Disks.
func (p *Provider) AttachDisk(ctx context.Context, d cloud.Disk, m cloud.Machine) error {
	if reason := p.ExplainNoDisks(m.Type); reason != "" {
		return &dstack.Error{Kind: dstack.Invalid, Hint: "use a newer type", Message: "aws: " + reason}
	}
	attached, err := p.findAttached(ctx, d, m)
	if err != nil || attached.isDone {
		return err
	}
	for label := firstDeviceLabel; label <= lastDeviceLabel; label++ {
		device := "/dev/sd" + string(label)
		if slices.Contains(attached.devices, device) {
			continue
		}
		err := p.change(ctx, d.Region, "AttachVolume", func(ctx context.Context, client *ec2.Client) error {
			_, err := client.AttachVolume(ctx, &ec2.AttachVolumeInput{
				VolumeId: sdk.String(d.Ref), InstanceId: sdk.String(m.Ref), Device: sdk.String(device)})
			return err
		})
		if codeOf(err) == "InvalidParameterValue" && strings.Contains(err.Error(), device) { // taken by a disk that is not listed yet
			continue
		}
		return err
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("aws: the machine %s has as many disks as dstack can attach", m.Ref)}
}

// attachments is what a machine has.
type attachments struct {
	devices []string // names that its disks have
	isDone  bool     // the disk is there already
}

// findAttached returns the disks of a machine. It refuses a disk that cannot be attached there.
func (p *Provider) findAttached(ctx context.Context, d cloud.Disk, m cloud.Machine) (attachments, error) {
	var a attachments
	found, err := p.describeVolumes(ctx, d.Region, &ec2.DescribeVolumesInput{VolumeIds: []string{d.Ref}})
	if err != nil {
		return a, err
	}
	for _, volume := range found {
		if zone := sdk.ToString(volume.AvailabilityZone); m.Zone != "" && zone != m.Zone {
			return a, &dstack.Error{Kind: dstack.Invalid,
				Message: fmt.Sprintf("aws: the disk %s is in %s, and the machine %s in %s", d.Ref, zone, m.Ref, m.Zone)}
		}
		for _, one := range volume.Attachments {
			switch other := sdk.ToString(one.InstanceId); {
			case one.State == types.VolumeAttachmentStateDetached:
			case other != m.Ref || one.State == types.VolumeAttachmentStateDetaching:
				return a, &dstack.Error{Kind: dstack.Conflict,
					Message: fmt.Sprintf("aws: the disk %s is attached to the machine %s (%s)", d.Ref, other, one.State)}
			default:
				a.isDone = true
				return a, nil
			}
		}
	}
	others, err := p.describeVolumes(ctx, d.Region, &ec2.DescribeVolumesInput{Filters: []filter{textFilter("attachment.instance-id", m.Ref)}})
	for _, volume := range others {
		for _, one := range volume.Attachments {
			a.devices = append(a.devices, sdk.ToString(one.Device))
		}
	}
	return a, err
}

// DetachDisk implements cloud.Disks.
func (p *Provider) DetachDisk(ctx context.Context, d cloud.Disk, m cloud.Machine) error {
	err := p.change(ctx, d.Region, "DetachVolume", func(ctx context.Context, client *ec2.Client) error {
		_, err := client.DetachVolume(ctx, &ec2.DetachVolumeInput{
			VolumeId: sdk.String(d.Ref), InstanceId: sdk.String(m.Ref),
			Force: sdk.Bool(m.State == cloud.MachineEnded), // nothing on it can write any more
		})
		return err
	})
	switch {
	case means(err, meansGone), codeOf(err) == "IncorrectState": // it is not attached, or being detached
		return nil
	}
	return err
}
