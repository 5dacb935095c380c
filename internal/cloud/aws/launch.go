package aws

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"math"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

const (
	maxUserData = 16 << 10 // bytes, before they are encoded
	maxToken    = 64
	mibPerGiB   = 1 << 10
)

// Launch implements cloud.Provider.
func (p *Provider) Launch(ctx context.Context, l cloud.Launch) (cloud.Machine, error) {
	in, err := p.describeLaunch(ctx, l)
	if err != nil {
		return cloud.Machine{}, explainLaunch(l.Offer, err)
	}
	machine, err := p.runInstance(ctx, l, in)
	if code := codeOf(err); code == "InvalidGroup.NotFound" || code == "InvalidPlacementGroup.Unknown" {
		p.forgetGroups(l, in) // somebody deleted it: the next attempt makes it again
		if in, err = p.describeLaunch(ctx, l); err == nil {
			machine, err = p.runInstance(ctx, l, in)
		}
	}
	switch meaningOf(codeOf(err)) {
	case meansPlace:
		p.networks.forget(l.Offer.Region)
		p.images.forget(l.Offer.Region + " " + kindOfImage(l.Offer).String())
	case meansCapacity:
		if codeOf(err) == "InsufficientFreeAddressesInSubnet" {
			p.networks.forget(l.Offer.Region)
		}
	default:
	}
	if err != nil {
		return cloud.Machine{}, explainLaunch(l.Offer, err)
	}
	return machine, nil
}

func (p *Provider) runInstance(ctx context.Context, l cloud.Launch, in *ec2.RunInstancesInput) (cloud.Machine, error) {
	var machine cloud.Machine
	err := p.change(ctx, l.Offer.Region, "RunInstances", func(ctx context.Context, client *ec2.Client) error {
		out, err := client.RunInstances(ctx, in)
		if err != nil {
			return err
		}
		if len(out.Instances) == 0 {
			return &dstack.Error{Kind: dstack.Unavailable, Message: "aws: RunInstances in " + l.Offer.Region + " returned no machine"}
		}
		machine = p.readMachine(l.Offer.Region, out.Instances[0])
		return nil
	})
	return machine, err
}

// describeLaunch returns the request for a machine. A repeated one is the same as long as its parts are kept.
func (p *Provider) describeLaunch(ctx context.Context, l cloud.Launch) (*ec2.RunInstancesInput, error) {
	if len(l.UserData) > maxUserData || len(l.Token) > maxToken || l.Token == "" {
		return nil, &dstack.Error{Kind: dstack.Internal,
			Message: fmt.Sprintf("aws: a launch with %d bytes of user data and a token of %d characters", len(l.UserData), len(l.Token))}
	}
	region := l.Offer.Region
	n, err := p.findNetwork(ctx, region)
	if err != nil {
		return nil, err
	}
	subnet, err := n.choose(p.zoneOf(ctx, n, l.Offer))
	if err != nil {
		return nil, err
	}
	image, err := p.findImage(ctx, region, kindOfImage(l.Offer))
	if err != nil {
		return nil, err
	}
	in := &ec2.RunInstancesInput{
		ClientToken:                       sdk.String(l.Token),
		MinCount:                          sdk.Int32(1),
		MaxCount:                          sdk.Int32(1),
		InstanceType:                      types.InstanceType(l.Offer.Type),
		ImageId:                           sdk.String(image.id),
		UserData:                          sdk.String(base64.StdEncoding.EncodeToString([]byte(l.UserData))),
		BlockDeviceMappings:               []types.BlockDeviceMapping{rootDisk(image, l.Offer.Hardware.DiskMiB)},
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		MetadataOptions:                   metadataOptions(),
		TagSpecifications:                 p.tagsFor(machineTags(l), types.ResourceTypeInstance, types.ResourceTypeVolume),
	}
	if l.Offer.Spot {
		in.InstanceMarketOptions = spotOptions()
	}
	if p.settings.IAMInstanceProfile != "" {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: sdk.String(p.settings.IAMInstanceProfile)}
	}
	return in, p.addGroups(ctx, in, n.vpc, subnet, l)
}

// addGroups adds the network interface with its security groups, and the placement group.
func (p *Provider) addGroups(ctx context.Context, in *ec2.RunInstancesInput, vpc, subnet string, l cloud.Launch) error {
	names := []string{""}
	if l.Group != "" {
		names = append(names, l.Group)
		group, err := p.ensurePlacementGroup(ctx, l.Offer.Region, l.Group)
		if err != nil {
			return err
		}
		in.Placement = &types.Placement{GroupName: sdk.String(group)}
	}
	var ids []string
	for _, name := range names {
		id, err := p.ensureSecurityGroup(ctx, l.Offer.Region, vpc, name)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{
		DeviceIndex: sdk.Int32(0), SubnetId: sdk.String(subnet), Groups: ids, DeleteOnTermination: sdk.Bool(true),
		AssociatePublicIpAddress: sdk.Bool(p.settings.PublicIPs),
	}}
	return nil
}

// forgetGroups drops what is known of the groups of a launch.
func (p *Provider) forgetGroups(l cloud.Launch, in *ec2.RunInstancesInput) {
	n, err := p.findNetwork(context.Background(), l.Offer.Region)
	if err == nil {
		p.groups.forget(groupKey(l.Offer.Region, n.vpc, p.groupName("")))
		p.groups.forget(groupKey(l.Offer.Region, n.vpc, p.groupName(l.Group)))
	}
	if in.Placement != nil {
		p.clusters.forget(l.Offer.Region + " " + sdk.ToString(in.Placement.GroupName))
	}
}

func machineTags(l cloud.Launch) map[string]string {
	tags := maps.Clone(l.Labels)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[tagInstance], tags["Name"] = string(l.Instance), l.Name
	return tags
}

// rootDisk returns the disk that a machine boots from, which is deleted with the machine.
func rootDisk(i image, wantedMiB int64) types.BlockDeviceMapping {
	gib := min((wantedMiB+mibPerGiB-1)/mibPerGiB, math.MaxInt32)
	return types.BlockDeviceMapping{DeviceName: sdk.String(i.device), Ebs: &types.EbsBlockDevice{
		VolumeSize: sdk.Int32(max(int32(gib), i.gib)), VolumeType: types.VolumeTypeGp3, DeleteOnTermination: sdk.Bool(true),
	}}
}

// metadataOptions demand a session for the metadata service, and keep containers away from it.
func metadataOptions() *types.InstanceMetadataOptionsRequest {
	return &types.InstanceMetadataOptionsRequest{
		HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, HttpTokens: types.HttpTokensStateRequired, HttpPutResponseHopLimit: sdk.Int32(1),
	}
}

// spotOptions ask for a spot machine at the market's price that ends when it is taken back.
func spotOptions() *types.InstanceMarketOptionsRequest {
	return &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: &types.SpotMarketOptions{
		SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
	}}
}
