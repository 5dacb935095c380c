package ec2test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// launch is a RunInstances request after its checks.
type launch struct {
	image          *image
	kind           *Type
	zone           string
	subnet         *subnet
	groups         []string
	placementGroup string
	userData       []byte
	spot           bool
	diskGB         int
	profile        string
	wantsPublic    bool
	token          string
	tags           map[string]string
	volumeTags     map[string]string
	least, most    int
}

func (s *Server) runInstances(r *request, reg *region, f *Fault) ([]node, error) {
	token, fingerprint := r.params.get("ClientToken"), r.params.fingerprint("ClientToken")
	if len(token) > 64 || strings.Trim(token, asciiPrintable) != "" {
		return nil, fail("InvalidParameterValue", "The client token %q is not of at most 64 ASCII characters", token)
	}
	use := reg.tokens[token]
	if token != "" && use != nil && !r.params.isTrue("DryRun") {
		return s.repeatLaunch(r, reg, use, fingerprint)
	}
	l, err := s.readLaunch(r, reg)
	if err != nil {
		return nil, err
	}
	if err := r.params.checkAllRead(); err != nil {
		return nil, err
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	count, err := s.takeCapacity(reg, l)
	if err != nil {
		return nil, err
	}
	use = &tokenUse{fingerprint: fingerprint}
	for range count {
		i := s.addInstance(reg, l)
		s.boot(reg, i, f)
		use.ids = append(use.ids, i.ID)
	}
	if token != "" {
		reg.tokens[token] = use
	}
	return s.launchAnswer(reg, use), nil
}

const asciiPrintable = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~ "

// repeatLaunch answers a token that was used before.
func (s *Server) repeatLaunch(r *request, reg *region, use *tokenUse, fingerprint string) ([]node, error) {
	for name := range r.params.values {
		r.params.get(name)
	}
	if use.fingerprint != fingerprint {
		return nil, fail("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
	}
	for _, id := range use.ids {
		if i := reg.instances[id]; i == nil || i.State == "terminated" || i.State == "shutting-down" {
			return nil, fail("IdempotentInstanceTerminated", "The instance of this client token has been terminated.")
		}
	}
	return s.launchAnswer(reg, use), nil
}

func (s *Server) launchAnswer(reg *region, use *tokenUse) []node {
	var items []node
	for _, id := range use.ids {
		i := reg.instances[id]
		state := i.State
		if state == "shutting-down" {
			state = "pending" // it ends right after the answer
		}
		items = append(items, s.instanceNode(i, state))
	}
	first := reg.instances[use.ids[0]]
	return []node{text("reservationId", first.reservation), text("ownerId", s.options.Account), set("groupSet", nil), set("instancesSet", items)}
}

func (s *Server) readLaunch(r *request, reg *region) (*launch, error) {
	p := r.params
	l := &launch{token: p.get("ClientToken"), least: p.getInt("MinCount", 0), most: p.getInt("MaxCount", 0)}
	if l.least < 1 || l.most < l.least {
		return nil, fail("InvalidParameterValue", "MinCount %d and MaxCount %d are not possible", l.least, l.most)
	}
	p.get("DryRun")
	for _, read := range []func(*params, *region, *launch) error{
		s.readImage, s.readNetwork, s.readPlacement, s.readUserData, s.readMarket, s.readDisk, s.readMachineOptions,
	} {
		if err := read(p, reg, l); err != nil {
			return nil, err
		}
	}
	var err error
	if l.tags, err = p.readTags("instance"); err != nil {
		return nil, err
	}
	l.volumeTags, err = p.readTags("volume")
	return l, err
}

func (s *Server) readImage(p *params, reg *region, l *launch) error {
	id, name := p.get("ImageId"), p.get("InstanceType")
	if !strings.HasPrefix(id, "ami-") {
		return fail("InvalidAMIID.Malformed", "Invalid id: \"%s\" (expecting \"ami-...\")", id)
	}
	if l.image = reg.findImage(id); l.image == nil {
		return fail("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
	}
	if l.kind = s.findType(name); l.kind == nil {
		return fail("InvalidParameterValue", "Invalid value '%s' for InstanceType.", name)
	}
	if l.kind.Arch != l.image.Arch {
		return fail("InvalidParameterValue", "The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI. "+
			"Specify an instance type and an AMI that have matching architectures, and try again.", l.kind.Arch, l.image.Arch)
	}
	return nil
}

func (s *Server) readNetwork(p *params, reg *region, l *launch) error {
	id, groups := p.get("SubnetId"), p.list("SecurityGroupId")
	asked := false
	for n, prefix := range p.groups("NetworkInterface") {
		if id != "" || len(groups) > 0 && n == 0 {
			return fail("InvalidParameterCombination", "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request")
		}
		if p.getInt(prefix+"DeviceIndex", -1) != n {
			return fail("InvalidParameterValue", "Each network interface requires a device index.")
		}
		id, groups = p.get(prefix+"SubnetId"), p.list(prefix+"SecurityGroupId")
		asked, l.wantsPublic = p.has(prefix+"AssociatePublicIpAddress"), p.isTrue(prefix+"AssociatePublicIpAddress")
		p.get(prefix + "DeleteOnTermination")
		p.get(prefix + "Description")
	}
	l.zone = p.get("Placement.AvailabilityZone")
	if l.subnet = reg.findSubnet(id); id != "" && l.subnet == nil {
		return fail("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
	}
	if l.subnet == nil {
		l.subnet = reg.findDefaultSubnet(l.zone)
	}
	if l.subnet == nil {
		return fail("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
	}
	if l.zone != "" && l.zone != l.subnet.Zone {
		return fail("InvalidParameterValue", "The specified availability zone %s does not match the zone %s of subnet %s", l.zone, l.subnet.Zone, l.subnet.ID)
	}
	l.zone = l.subnet.Zone
	if !asked {
		l.wantsPublic = l.subnet.IsPublic
	}
	if len(groups) == 0 {
		groups = []string{reg.findGroup(l.subnet.vpc, "default").id}
	}
	for _, group := range groups {
		known := reg.groups[group]
		if known == nil {
			return fail("InvalidGroup.NotFound", "The security group '%s' does not exist", group)
		}
		if known.vpc != l.subnet.vpc {
			return fail("InvalidParameter", "Security group %s and subnet %s belong to different networks.", group, l.subnet.ID)
		}
	}
	l.groups = groups
	if l.subnet.Free < l.least {
		return fail("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", l.subnet.ID)
	}
	return nil
}

func (r *region) findDefaultSubnet(zone string) *subnet {
	for _, v := range r.vpcs {
		for _, sub := range v.subnets {
			if v.IsDefault && (zone == "" || sub.Zone == zone) {
				return sub
			}
		}
	}
	return nil
}

func (s *Server) readPlacement(p *params, reg *region, l *launch) error {
	p.get("Placement.Tenancy")
	if name := p.get("Placement.GroupName"); name != "" {
		if reg.placement[name] == nil {
			return fail("InvalidPlacementGroup.Unknown", "The Placement Group '%s' is unknown.", name)
		}
		for _, i := range reg.instances {
			if i.PlacementGroup == name && i.State != "terminated" && i.Zone != l.zone {
				return fail("InvalidParameterValue", "The placement group '%s' has instances in %s and cannot span zones.", name, i.Zone)
			}
		}
		l.placementGroup = name
	}
	zones := reg.zonesOf(l.kind)
	if slices.Contains(zones, l.zone) {
		return nil
	}
	if len(zones) == 0 {
		return fail("Unsupported", "The requested configuration is currently not supported. Please check the documentation for supported configurations.")
	}
	return fail("Unsupported", "Your requested instance type (%s) is not supported in your requested Availability Zone (%s). "+
		"Please retry your request by not specifying an Availability Zone or choosing %s.", l.kind.Name, l.zone, strings.Join(zones, ", "))
}

func (s *Server) readUserData(p *params, _ *region, l *launch) error {
	data, err := base64.StdEncoding.DecodeString(p.get("UserData"))
	switch {
	case err != nil:
		return fail("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	case len(data) > 16<<10:
		return fail("InvalidParameterValue", "User data is limited to 16384 bytes")
	}
	l.userData = data
	return nil
}

func (s *Server) readMarket(p *params, _ *region, l *launch) error {
	const prefix = "InstanceMarketOptions."
	market := p.get(prefix + "MarketType")
	if market == "" {
		return nil
	}
	kind, behaviour, maxPrice := p.get(prefix+"SpotOptions.SpotInstanceType"), p.get(prefix+"SpotOptions.InstanceInterruptionBehavior"), p.get(prefix+"SpotOptions.MaxPrice")
	switch {
	case market != "spot":
		return fail("InvalidParameterValue", "Value (%s) for parameter marketType is invalid.", market)
	case kind == "one-time" && behaviour != "" && behaviour != "terminate":
		return fail("InvalidParameterCombination", "The instance interruption behavior '%s' is not supported with a one-time Spot request", behaviour)
	case l.kind.SpotPrice == 0:
		return fail("Unsupported", "Spot is not supported for the instance type %s.", l.kind.Name)
	}
	var limit float64
	if _, err := fmt.Sscanf(maxPrice, "%g", &limit); err == nil && limit < l.kind.SpotPrice {
		return fail("SpotMaxPriceTooLow", "Your Spot request price of %g is lower than the minimum required Spot request fulfillment price of %g.", limit, l.kind.SpotPrice)
	}
	l.spot = true
	return nil
}

func (s *Server) readDisk(p *params, _ *region, l *launch) error {
	l.diskGB = l.image.SizeGB
	for _, prefix := range p.groups("BlockDeviceMapping") {
		device, size, kind := p.get(prefix+"DeviceName"), p.getInt(prefix+"Ebs.VolumeSize", l.image.SizeGB), p.get(prefix+"Ebs.VolumeType")
		for _, name := range []string{"Ebs.DeleteOnTermination", "Ebs.Encrypted", "Ebs.Iops", "Ebs.Throughput"} {
			p.get(prefix + name)
		}
		switch {
		case device != rootDevice:
			return fail("InvalidBlockDeviceMapping", "ec2test has images with the root device %s only, not %s", rootDevice, device)
		case size < l.image.SizeGB:
			return fail("InvalidBlockDeviceMapping", "Volume of size %dGB is smaller than snapshot 'snap-%s', expect size >= %dGB", size, l.image.id[4:], l.image.SizeGB)
		case size > 65536:
			return fail("InvalidParameterValue", "Volume of %dGB is too large for volume type %s; maximum is 65536GB", size, kind)
		case !slices.Contains(volumeTypes, kind):
			return fail("InvalidParameterValue", "Invalid value '%s' for volumeType", kind)
		}
		l.diskGB = size
	}
	return nil
}

var volumeTypes = []string{"", "gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"}

func (s *Server) readMachineOptions(p *params, _ *region, l *launch) error {
	l.profile = p.get("IamInstanceProfile.Name")
	if arn := p.get("IamInstanceProfile.Arn"); arn != "" {
		_, l.profile = splitLast(arn, "/")
	}
	if l.profile != "" && !slices.Contains(s.options.Profiles, l.profile) {
		return fail("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", l.profile)
	}
	if tokens := p.get("MetadataOptions.HttpTokens"); tokens != "" && tokens != "required" && tokens != "optional" {
		return fail("InvalidParameterValue", "Value (%s) for parameter HttpTokens is invalid", tokens)
	}
	for _, name := range []string{
		"MetadataOptions.HttpPutResponseHopLimit", "MetadataOptions.HttpEndpoint", "MetadataOptions.InstanceMetadataTags",
		"InstanceInitiatedShutdownBehavior", "EbsOptimized", "Monitoring.Enabled",
	} {
		p.get(name)
	}
	return nil
}

// takeCapacity checks quota and capacity, and returns how many machines can be had.
func (s *Server) takeCapacity(reg *region, l *launch) (int, error) {
	quota := l.kind.quotaCode(l.spot)
	used := 0
	for _, i := range reg.instances {
		if i.quota == quota && i.State != "terminated" {
			used += i.vcpus
		}
	}
	if limit, has := reg.quotas[quota]; has && used+l.least*l.kind.VCPUs > limit {
		if l.spot {
			return 0, fail("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
		}
		return 0, fail("VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of %d allows for the instance bucket that the specified "+
			"instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.", limit)
	}
	place := Place{Zone: l.zone, Type: l.kind.Name, Spot: l.spot}
	left, isLimited := s.capacity[place]
	if !isLimited {
		return l.most, nil
	}
	if left < l.least {
		return 0, &apiError{500, "InsufficientInstanceCapacity", s.describeShortage(reg, l)}
	}
	count := min(left, l.most)
	s.capacity[place] = left - count
	return count, nil
}

// describeShortage is the message for missing capacity, with the zones that have some.
func (s *Server) describeShortage(reg *region, l *launch) string {
	var others []string
	for _, zone := range reg.zonesOf(l.kind) {
		if left, isLimited := s.capacity[Place{Zone: zone, Type: l.kind.Name, Spot: l.spot}]; !isLimited || left > 0 {
			others = append(others, zone)
		}
	}
	if l.spot {
		return "There is no Spot capacity available that matches your request."
	}
	message := fmt.Sprintf("We currently do not have sufficient %s capacity in the Availability Zone you requested (%s). Our system will be working on "+
		"provisioning additional capacity.", l.kind.Name, l.zone)
	if len(others) > 0 {
		message += fmt.Sprintf(" You can currently get %s capacity by not specifying an Availability Zone in your request or choosing %s.",
			l.kind.Name, strings.Join(others, ", "))
	}
	return message
}

func (s *Server) addInstance(reg *region, l *launch) *instance {
	quota := l.kind.quotaCode(l.spot)
	l.subnet.Free--
	l.subnet.next++
	i := &instance{
		reservation: s.newID("r"), wantsPublic: l.wantsPublic, subnet: l.subnet, image: l.image, vcpus: l.kind.VCPUs, quota: quota,
		Instance: Instance{
			ID: s.newID("i"), Region: reg.name, Zone: l.zone, Type: l.kind.Name, Arch: l.kind.Arch, Spot: l.spot, State: "pending",
			Token: l.token, Image: l.image.id, ImageName: l.image.Name, UserData: l.userData, Tags: l.tags, Subnet: l.subnet.ID,
			SecurityGroups: l.groups, PlacementGroup: l.placementGroup, Profile: l.profile, DiskGB: l.diskGB, LaunchedAt: s.now(),
			PrivateIP: fmt.Sprintf("172.31.%d.%d", l.subnet.next/250, 1+l.subnet.next%250),
		},
	}
	reg.instances[i.ID] = i
	s.addRootVolume(reg, i, l)
	return i
}
