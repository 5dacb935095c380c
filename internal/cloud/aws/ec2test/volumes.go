package ec2test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Volume is a disk.
type Volume struct {
	ID, Region, Zone string
	State            string // creating, available, in-use
	SizeGB           int
	Kind             string // gp3
	Tags             map[string]string
	Instance, Device string // that it is attached to
	CreatedAt        time.Time
}

type volume struct {
	Volume
	isRoot     bool   // it is deleted with its machine
	attachment string // attaching, attached, detaching; empty: none
	since      time.Time
	hooks      int
}

// maxVolumes is how many disks a machine can have beside its root volume.
const maxVolumes = 26

// Volumes returns the disks of all regions, without root volumes, ordered by ID.
func (s *Server) Volumes() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	var list []Volume
	for _, r := range s.regions {
		for _, v := range r.volumes {
			if !v.isRoot {
				list = append(list, v.Volume)
			}
		}
	}
	slices.SortFunc(list, func(a, b Volume) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// AddVolume makes a disk as the user does, and returns its ID.
func (s *Server) AddVolume(regionName, zone string, sizeGB int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.addVolume(s.regions[regionName], zone, sizeGB, "gp3", map[string]string{})
	v.State = "available"
	return v.ID
}

func (s *Server) addVolume(reg *region, zone string, sizeGB int, kind string, tags map[string]string) *volume {
	v := &volume{Volume: Volume{
		ID: s.newID("vol"), Region: reg.name, Zone: zone, State: "creating", SizeGB: sizeGB, Kind: kind, Tags: tags, CreatedAt: s.now(),
	}}
	reg.volumes[v.ID] = v
	return v
}

func (s *Server) addRootVolume(reg *region, i *instance, l *launch) {
	v := s.addVolume(reg, l.zone, l.diskGB, "gp3", l.volumeTags)
	v.isRoot, v.State, v.Instance, v.Device, v.attachment = true, "in-use", i.ID, rootDevice, "attached"
}

// releaseVolumes takes the disks off a machine that has ended. Its root volume is deleted.
func (s *Server) releaseVolumes(reg *region, i *instance) {
	for id, v := range reg.volumes {
		switch {
		case v.Instance != i.ID:
		case v.isRoot:
			delete(reg.volumes, id)
		default:
			v.Instance, v.Device, v.attachment, v.State = "", "", "", "available"
		}
	}
}

func (s *Server) advanceVolume(_ *region, v *volume, now time.Time) {
	steps := s.options.Steps
	if v.State == "creating" && isAfter(now, v.CreatedAt, steps.Volume) {
		v.State = "available"
	}
	if v.hooks > 0 || !isAfter(now, v.since, steps.Attach) {
		return
	}
	switch v.attachment {
	case "attaching":
		v.attachment = "attached"
	case "detaching":
		v.attachment, v.Instance, v.Device, v.State = "", "", "", "available"
	}
}

func (s *Server) createVolume(r *request, reg *region) ([]node, error) {
	p := r.params
	token, fingerprint := p.get("ClientToken"), p.fingerprint("ClientToken")
	zone, size, kind := p.get("AvailabilityZone"), p.getInt("Size", 0), p.get("VolumeType")
	for _, name := range []string{"Iops", "Throughput", "Encrypted"} {
		p.get(name)
	}
	tags, err := p.readTags("volume")
	if err != nil {
		return nil, err
	}
	switch {
	case len(token) > 64:
		return nil, fail("InvalidParameterValue", "The client token has more than 64 characters")
	case !slices.Contains(reg.zones, zone):
		return nil, fail("InvalidZone.NotFound", "The zone '%s' does not exist.", zone)
	case size < 1 || size > 65536:
		return nil, fail("InvalidParameterValue", "Volume of %dGiB is not possible for volume type %s", size, kind)
	case !slices.Contains(volumeTypes, kind):
		return nil, fail("UnknownVolumeType", "Unknown volume type '%s'", kind)
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	key := "volume/" + token
	if use := reg.tokens[key]; token != "" && use != nil {
		v := reg.volumes[use.ids[0]]
		if use.fingerprint != fingerprint || v == nil {
			return nil, fail("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
		}
		return volumeNode(v).children, nil
	}
	v := s.addVolume(reg, zone, size, kind, tags)
	if token != "" {
		reg.tokens[key] = &tokenUse{fingerprint: fingerprint, ids: []string{v.ID}}
	}
	return volumeNode(v).children, nil
}

func volumeNode(v *volume) node {
	var attachments []node
	if v.Instance != "" {
		attachments = []node{group("item", attachmentNodes(v)...)}
	}
	return group("item", text("volumeId", v.ID), number("size", v.SizeGB), text("availabilityZone", v.Zone), text("status", v.State),
		moment("createTime", v.CreatedAt), text("volumeType", v.Kind), number("iops", 3000), number("throughput", 125), boolean("encrypted", false),
		set("attachmentSet", attachments), tagSet(v.Tags))
}

func attachmentNodes(v *volume) []node {
	return []node{
		text("volumeId", v.ID), text("instanceId", v.Instance), text("device", v.Device), text("status", v.attachment),
		moment("attachTime", v.since), boolean("deleteOnTermination", v.isRoot),
	}
}

func (s *Server) describeVolumes(r *request, reg *region) ([]node, error) {
	ids, f := r.params.list("VolumeId"), r.params.readFilters()
	for _, id := range ids {
		if reg.volumes[id] == nil {
			return nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
		}
	}
	var items []node
	for _, id := range sortedKeys(reg.volumes) {
		v := reg.volumes[id]
		if len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		ok, err := f.matches(v.Tags, map[string][]string{
			"volume-id": {id}, "status": {v.State}, "availability-zone": {v.Zone}, "attachment.instance-id": {v.Instance},
			"attachment.status": {v.attachment}, "volume-type": {v.Kind},
		})
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, volumeNode(v))
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("volumeSet", items[from:to], next), nil
}

// findAttachment reads the disk and the machine of a request.
func (s *Server) findAttachment(r *request, reg *region) (*volume, *instance, error) {
	v, i := reg.volumes[r.params.get("VolumeId")], reg.instances[r.params.get("InstanceId")]
	switch {
	case v == nil:
		return nil, nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", r.params.get("VolumeId"))
	case i == nil && r.params.get("InstanceId") != "":
		return nil, nil, fail("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", r.params.get("InstanceId"))
	}
	return v, i, nil
}

func (s *Server) attachVolume(r *request, reg *region) ([]node, error) {
	v, i, err := s.findAttachment(r, reg)
	device := r.params.get("Device")
	switch {
	case err != nil:
		return nil, err
	case i == nil:
		return nil, fail("MissingParameter", "The request must contain the parameter instanceId")
	case i.State != "running":
		return nil, fail("IncorrectState", "Instance '%s' is not 'running'.", i.ID)
	case v.Zone != i.Zone:
		return nil, fail("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.ID, i.ID)
	case v.State == "in-use":
		return nil, fail("VolumeInUse", "%s is already attached to an instance", v.ID)
	case v.State != "available":
		return nil, fail("IncorrectState", "Volume '%s' is in the '%s' state.", v.ID, v.State)
	case !strings.HasPrefix(device, "/dev/sd") && !strings.HasPrefix(device, "/dev/xvd"):
		return nil, fail("InvalidParameterValue", "Value (%s) for parameter device is invalid. %s is not a valid EBS device name.", device, device)
	}
	attached := 0
	for _, other := range reg.volumes {
		if other.Instance != i.ID {
			continue
		}
		attached++
		if other.Device == device {
			return nil, fail("InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
		}
	}
	if attached > maxVolumes {
		return nil, fail("AttachmentLimitExceeded", "The instance '%s' has no room for another volume.", i.ID)
	}
	v.State, v.Instance, v.Device, v.attachment, v.since = "in-use", i.ID, device, "attaching", s.now()
	if s.options.OnAttach != nil {
		s.startAttachHook(v, i)
	}
	answer := attachmentNodes(v)
	s.advanceVolume(reg, v, s.now())
	return answer, nil
}

func (s *Server) startAttachHook(v *volume, i *instance) {
	v.hooks++
	disk, machine := v.Volume, i.Instance
	s.hooks.Go(func() {
		err := s.options.OnAttach(disk, machine)
		s.mu.Lock()
		defer s.mu.Unlock()
		v.hooks--
		if err != nil { // it stays "attaching", as a machine that does not answer the request keeps it
			v.since = v.since.Add(24 * time.Hour)
		}
	})
}

func (s *Server) detachVolume(r *request, reg *region) ([]node, error) {
	v, i, err := s.findAttachment(r, reg)
	r.params.get("Force")
	r.params.get("Device")
	switch {
	case err != nil:
		return nil, err
	case v.State == "available":
		return nil, fail("IncorrectState", "Volume '%s' is in the 'available' state.", v.ID)
	case i != nil && v.Instance != i.ID:
		return nil, fail("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s'.", v.ID, i.ID)
	case v.isRoot:
		return nil, fail("OperationNotPermitted", "Unable to detach root volume '%s' from instance '%s'", v.ID, v.Instance)
	}
	if v.attachment != "detaching" {
		v.attachment, v.since = "detaching", s.now()
		if holder := reg.instances[v.Instance]; s.options.OnDetach != nil && holder != nil {
			v.hooks++
			disk, machine := v.Volume, holder.Instance
			s.hooks.Go(func() {
				s.options.OnDetach(disk, machine)
				s.mu.Lock()
				defer s.mu.Unlock()
				v.hooks--
			})
		}
	}
	answer := attachmentNodes(v)
	s.advanceVolume(reg, v, s.now())
	return answer, nil
}

func (s *Server) deleteVolume(r *request, reg *region) ([]node, error) {
	id := r.params.get("VolumeId")
	v := reg.volumes[id]
	switch {
	case v == nil:
		return nil, fail("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
	case v.Instance != "":
		return nil, fail("VolumeInUse", "Volume %s is currently attached to %s", v.ID, v.Instance)
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	delete(reg.volumes, id)
	return []node{boolean("return", true)}, nil
}

// String returns the disk for messages of tests.
func (v Volume) String() string {
	return fmt.Sprintf("%s (%s, %s, %q)", v.ID, v.Zone, v.State, v.Instance)
}
