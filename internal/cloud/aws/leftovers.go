package aws

import (
	"context"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// The kinds of leftovers.
const (
	kindSecurityGroup  = "security group"
	kindPlacementGroup = "placement group"
)

// ListLeftovers implements cloud.Leftovers. The security group of all machines is kept for the next one; the groups of a
// cluster are not needed any more once it has no machine.
func (p *Provider) ListLeftovers(ctx context.Context) ([]cloud.Leftover, error) {
	regions, _, err := p.splitRegions(ctx)
	if err != nil {
		return nil, err
	}
	answers, failures := inRegions(ctx, regions, p.listLeftoversInRegion)
	return slices.Concat(answers...), firstFailure(failures)
}

func (p *Provider) listLeftoversInRegion(ctx context.Context, region string) ([]cloud.Leftover, error) {
	security, err := p.listSecurityGroups(ctx, region)
	if err != nil {
		return nil, err
	}
	placement, err := p.listPlacementGroups(ctx, region)
	if err != nil || len(security)+len(placement) == 0 {
		return nil, err
	}
	instances, err := p.describeInstances(ctx, region) // after the groups: a group that a new machine uses is not listed as unused
	if err != nil {
		return nil, err
	}
	used := usedGroups(instances)
	var found []cloud.Leftover
	for _, group := range security {
		if id := sdk.ToString(group.GroupId); !used[id] {
			found = append(found, cloud.Leftover{Kind: kindSecurityGroup, Ref: id, Region: region,
				IsShared: sdk.ToString(group.GroupName) == p.groupName("")})
		}
	}
	for _, group := range placement {
		if name := sdk.ToString(group.GroupName); !used[name] && group.State == types.PlacementGroupStateAvailable {
			found = append(found, cloud.Leftover{Kind: kindPlacementGroup, Ref: name, Region: region})
		}
	}
	return found, nil
}

// usedGroups returns the IDs and names of the groups that machines use.
func usedGroups(instances []types.Instance) map[string]bool {
	used := map[string]bool{}
	for _, instance := range instances {
		if stateOf(instance.State) == cloud.MachineEnded {
			continue
		}
		for _, group := range instance.SecurityGroups {
			used[sdk.ToString(group.GroupId)] = true
		}
		for _, device := range instance.NetworkInterfaces {
			for _, group := range device.Groups {
				used[sdk.ToString(group.GroupId)] = true
			}
		}
		if instance.Placement != nil {
			used[sdk.ToString(instance.Placement.GroupName)] = true
		}
	}
	return used
}

func (p *Provider) listPlacementGroups(ctx context.Context, region string) ([]types.PlacementGroup, error) {
	var found []types.PlacementGroup
	err := p.read(ctx, region, "DescribePlacementGroups", func(ctx context.Context, client *ec2.Client) error {
		out, err := client.DescribePlacementGroups(ctx, &ec2.DescribePlacementGroupsInput{Filters: []filter{p.ownFilter()}})
		if err == nil {
			found = slices.DeleteFunc(out.PlacementGroups, func(group types.PlacementGroup) bool { return !p.isOwn(group.Tags) })
		}
		return err
	})
	return found, err
}

// DeleteLeftover implements cloud.Leftovers.
func (p *Provider) DeleteLeftover(ctx context.Context, l cloud.Leftover) error {
	var err error
	switch l.Kind {
	case kindSecurityGroup:
		err = p.change(ctx, l.Region, "DeleteSecurityGroup", func(ctx context.Context, client *ec2.Client) error {
			_, err := client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: sdk.String(l.Ref)})
			return err
		})
		p.groups.forgetAll()
	case kindPlacementGroup:
		err = p.change(ctx, l.Region, "DeletePlacementGroup", func(ctx context.Context, client *ec2.Client) error {
			_, err := client.DeletePlacementGroup(ctx, &ec2.DeletePlacementGroupInput{GroupName: sdk.String(l.Ref)})
			return err
		})
		p.clusters.forgetAll()
	default:
		return &dstack.Error{Kind: dstack.Internal, Message: "aws: there is no such kind of object: " + l.Kind}
	}
	if means(err, meansGone) || codeOf(err) == "InvalidGroup.NotFound" {
		return nil
	}
	return err
}
