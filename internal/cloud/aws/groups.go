package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

const (
	groupTime = time.Hour
	sshPort   = 22

	groupDescription = "Machines of dstack"
)

// groupName returns the name of a security group or placement group: of all machines, or of those of one cluster.
func (p *Provider) groupName(cluster string) string {
	sum := sha256.Sum256([]byte(p.installation))
	name := "dstack-" + hex.EncodeToString(sum[:6])
	if cluster != "" {
		name += "-" + cluster
	}
	return name
}

// ensureSecurityGroup returns the security group of all machines, which allows SSH, or that of a cluster, which allows
// everything between its machines. It is made once for each network.
func (p *Provider) ensureSecurityGroup(ctx context.Context, region, vpc, cluster string) (string, error) {
	name := p.groupName(cluster)
	return p.groups.get(ctx, groupKey(region, vpc, name), groupTime, func(ctx context.Context) (string, error) {
		group, err := p.findSecurityGroup(ctx, region, vpc, name)
		if err != nil {
			return "", err
		}
		if group == nil {
			if group, err = p.createSecurityGroup(ctx, region, vpc, name); err != nil {
				return "", err
			}
		}
		return sdk.ToString(group.GroupId), p.correctRules(ctx, region, group, p.wantedRules(cluster, sdk.ToString(group.GroupId)))
	})
}

func groupKey(region, vpc, name string) string { return region + " " + vpc + " " + name }

func (p *Provider) findSecurityGroup(ctx context.Context, region, vpc, name string) (*types.SecurityGroup, error) {
	groups, err := p.listSecurityGroups(ctx, region, textFilter("vpc-id", vpc), textFilter("group-name", name))
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	return &groups[0], nil
}

// listSecurityGroups returns the security groups of the installation.
func (p *Provider) listSecurityGroups(ctx context.Context, region string, filters ...filter) ([]types.SecurityGroup, error) {
	filters = append(filters, p.ownFilter())
	var found []types.SecurityGroup
	err := p.readPages(ctx, region, "DescribeSecurityGroups", func(ctx context.Context, client *ec2.Client, token *string) (*string, error) {
		page, err := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: filters, NextToken: token})
		if err != nil {
			return nil, err
		}
		for _, group := range page.SecurityGroups {
			if p.isOwn(group.Tags) {
				found = append(found, group)
			}
		}
		return page.NextToken, nil
	})
	return found, err
}

// createSecurityGroup makes a group. Another process may make it at the same time.
func (p *Provider) createSecurityGroup(ctx context.Context, region, vpc, name string) (*types.SecurityGroup, error) {
	var id *string
	err := p.change(ctx, region, "CreateSecurityGroup", func(ctx context.Context, client *ec2.Client) error {
		out, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
			GroupName: sdk.String(name), Description: sdk.String(groupDescription), VpcId: sdk.String(vpc),
			TagSpecifications: p.tagsFor(nil, types.ResourceTypeSecurityGroup),
		})
		if err == nil {
			id = out.GroupId
		}
		return err
	})
	if means(err, meansExists) {
		group, lookErr := p.findSecurityGroup(ctx, region, vpc, name)
		if lookErr != nil || group != nil {
			return group, lookErr
		}
		return nil, placeError(region, "the security group "+name+" of "+vpc+" is not one of this installation",
			"delete it, or give it the tag "+tagInstallation)
	}
	return &types.SecurityGroup{GroupId: id}, err
}

// wantedRules returns what a security group allows.
func (p *Provider) wantedRules(cluster, id string) []types.IpPermission {
	if cluster != "" {
		return []types.IpPermission{{IpProtocol: sdk.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: sdk.String(id)}}}}
	}
	rule := types.IpPermission{IpProtocol: sdk.String("tcp"), FromPort: sdk.Int32(sshPort), ToPort: sdk.Int32(sshPort)}
	for _, source := range p.settings.SSHSources {
		if source.Addr().Is4() {
			rule.IpRanges = append(rule.IpRanges, types.IpRange{CidrIp: sdk.String(source.String())})
		} else {
			rule.Ipv6Ranges = append(rule.Ipv6Ranges, types.Ipv6Range{CidrIpv6: sdk.String(source.String())})
		}
	}
	if len(p.settings.SSHSources) == 0 {
		rule.IpRanges = []types.IpRange{{CidrIp: sdk.String(everywhere)}}
	}
	return []types.IpPermission{rule}
}

// correctRules adds and removes rules of a security group until it allows what is wanted.
func (p *Provider) correctRules(ctx context.Context, region string, group *types.SecurityGroup, wanted []types.IpPermission) error {
	add := missingRules(wanted, group.IpPermissions)
	remove := missingRules(group.IpPermissions, wanted)
	if len(add) > 0 {
		err := p.change(ctx, region, "AuthorizeSecurityGroupIngress", func(ctx context.Context, client *ec2.Client) error {
			_, err := client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: add})
			return err
		})
		if err != nil && !means(err, meansExists) {
			return err
		}
	}
	if len(remove) == 0 {
		return nil
	}
	err := p.change(ctx, region, "RevokeSecurityGroupIngress", func(ctx context.Context, client *ec2.Client) error {
		_, err := client.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: remove})
		return err
	})
	if codeOf(err) == "InvalidPermission.NotFound" {
		return nil
	}
	return err
}

// missingRules returns the rules of one list, one source each, that another does not have.
func missingRules(of, in []types.IpPermission) []types.IpPermission {
	var missing []types.IpPermission
	has := splitRules(in)
	for _, rule := range splitRules(of) {
		if !slices.ContainsFunc(has, func(other rulePart) bool { return other.key == rule.key }) {
			missing = append(missing, rule.permission)
		}
	}
	return missing
}

// rulePart is a rule with one source.
type rulePart struct {
	key        string
	permission types.IpPermission
}

func splitRules(rules []types.IpPermission) []rulePart {
	var parts []rulePart
	for _, rule := range rules {
		one := types.IpPermission{IpProtocol: rule.IpProtocol, FromPort: rule.FromPort, ToPort: rule.ToPort}
		key := sdk.ToString(rule.IpProtocol)
		if key != "-1" {
			key += " " + fmt.Sprintf("%d-%d", sdk.ToInt32(rule.FromPort), sdk.ToInt32(rule.ToPort))
		}
		for _, r := range rule.IpRanges {
			part := one
			part.IpRanges = []types.IpRange{{CidrIp: r.CidrIp}}
			parts = append(parts, rulePart{key + " " + sdk.ToString(r.CidrIp), part})
		}
		for _, r := range rule.Ipv6Ranges {
			part := one
			part.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: r.CidrIpv6}}
			parts = append(parts, rulePart{key + " " + sdk.ToString(r.CidrIpv6), part})
		}
		for _, pair := range rule.UserIdGroupPairs {
			part := one
			part.UserIdGroupPairs = []types.UserIdGroupPair{{GroupId: pair.GroupId}}
			parts = append(parts, rulePart{key + " " + sdk.ToString(pair.GroupId), part})
		}
	}
	return parts
}

// ensurePlacementGroup makes the placement group of a cluster. It is made once for each region.
func (p *Provider) ensurePlacementGroup(ctx context.Context, region, cluster string) (string, error) {
	name := p.groupName(cluster)
	_, err := p.clusters.get(ctx, region+" "+name, groupTime, func(ctx context.Context) (struct{}, error) {
		err := p.change(ctx, region, "CreatePlacementGroup", func(ctx context.Context, client *ec2.Client) error {
			_, err := client.CreatePlacementGroup(ctx, &ec2.CreatePlacementGroupInput{
				GroupName: sdk.String(name), Strategy: types.PlacementStrategyCluster,
				TagSpecifications: p.tagsFor(nil, types.ResourceTypePlacementGroup),
			})
			return err
		})
		if means(err, meansExists) {
			err = nil
		}
		return struct{}{}, err
	})
	return name, err
}

// ownFilter finds what is marked with the installation.
func (p *Provider) ownFilter() filter {
	return textFilter("tag:"+tagInstallation, string(p.installation))
}
